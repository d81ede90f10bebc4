"""A small made-up source with the shape of the flights': ten departures an hour, all day, and a weather observation at each airport."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

FIRST = datetime(2013, 1, 1, tzinfo=UTC)
START = FIRST - timedelta(days=8)
DAY = timedelta(days=1)


def small_source(days: int = 40) -> dict[str, pd.DataFrame]:
    """Rows of every known-at group, by "<table>.<group>"."""
    numbers = np.arange(days * 240)
    departure = pd.Series(pd.DatetimeIndex(pd.Timestamp(FIRST) + pd.to_timedelta(numbers * 6, unit="min"))).astype("datetime64[us, UTC]")
    random = np.random.default_rng(1)
    delay = pd.Series(random.normal(5, 15, len(numbers)).round())
    cancelled = pd.Series(numbers % 50 == 7)
    origin = pd.Series(np.array(["EWR", "JFK", "LGA"])[numbers % 3])
    carrier = pd.Series(np.array(["AA", "DL"])[numbers % 2])
    key = {"flight_id": pd.Series([f"F{number}" for number in numbers]), "sched_dep_utc": departure}
    hours = pd.Series(pd.DatetimeIndex(pd.Timestamp(FIRST) + pd.to_timedelta(np.repeat(np.arange(days * 24), 3), unit="h"))).astype("datetime64[us, UTC]")
    frames = {
        "flights.schedule": pd.DataFrame(
            {
                **key,
                "carrier": carrier,
                "origin": origin,
                "dest": "LAX",
                "route": origin + "-LAX",
                "carrier_origin": carrier + "-" + origin,
                "tailnum": pd.Series([None if number % 9 == 0 else f"N{number % 30}" for number in numbers], dtype=object),
                "month": departure.dt.month.astype("int64"),
                "weekday": departure.dt.weekday.astype("int64"),
                "dep_minute": (departure.dt.hour * 60 + departure.dt.minute).astype("int64"),
                "arr_minute": pd.Series(600, index=departure.index),
                "distance": 2475.0,
                "scheduled_minutes": 360.0,
                "scheduled_departures": pd.Series(20, index=departure.index),
                "known_at": departure - 7 * DAY,
            }
        ),
        "flights.departure": pd.DataFrame(
            {**key, "dep_delay": delay.mask(cancelled), "cancelled": cancelled, "known_at": departure + pd.to_timedelta(delay.clip(lower=0) + 5, unit="min")}
        ),
        "flights.outcome": pd.DataFrame(
            {
                **key,
                "arr_delay": (delay - 3).mask(cancelled),
                "outcome": np.where(cancelled, "cancelled", "arrived"),
                "known_at": (departure + 14 * DAY + pd.Timedelta(hours=6)).dt.ceil("h"),
            }
        ),
        "weather.observation": pd.DataFrame(
            {
                "origin": np.tile(["EWR", "JFK", "LGA"], days * 24),
                "observed_utc": hours,
                **dict.fromkeys(("temp", "humid", "precip", "visib"), 10.0),
                "wind_speed": 12.0,
                "pressure": pd.Series(np.where(np.arange(len(hours)) % 7, 1013.0, np.nan)),
                "known_at": hours + pd.Timedelta(hours=1),
            }
        ),
        "planes.register": pd.DataFrame(
            {
                "tailnum": [f"N{number}" for number in range(1, 25)],
                "registered_utc": pd.Timestamp(START),
                "built": 2001.0,
                "seats": 150.0,
                "known_at": pd.Timestamp(START),
            }
        ),
    }
    for frame in frames.values():
        for name in frame.select_dtypes("datetimetz"):
            frame[name] = frame[name].astype("datetime64[us, UTC]")
    return frames


class SmallSource:
    """`read_period` over frames that a test may change."""

    def __init__(self, days: int = 40) -> None:
        self.frames = small_source(days)
        self.reads: list[str] = []

    def read_period(self, table: str, group: str, start: datetime, end: datetime) -> pd.DataFrame:
        name = f"{table}.{group}"
        self.reads.append(name)
        frame = self.frames[name]
        return frame[(frame["known_at"] >= pd.Timestamp(start)) & (frame["known_at"] < pd.Timestamp(end))].reset_index(drop=True)
