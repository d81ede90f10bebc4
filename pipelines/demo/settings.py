"""What a loop replays: periods and sample. The dates belong to the example's data; another use case names its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from components.contracts.durations import format_moment
from pipelines.demo.replay import Sample

# Replaying everything takes longer than the five minutes that a newcomer waits; one flight in eight leaves a monitoring window about 800 rows.
DEFAULT_SAMPLE = 0.125


@dataclass(frozen=True)
class Settings:
    """History is ingested from `history_start` to `start`, the moment of the first training; then [`start`, `end`) is replayed."""

    history_start: datetime
    start: datetime
    end: datetime
    sample: Sample

    def described(self) -> dict[str, str]:
        return {"start": format_moment(self.start), "end": format_moment(self.end), "sample": str(self.sample.share)}


def settings_of(fast: bool, full: bool) -> Settings:
    """The year of the example; `fast`: the first quarter of the replay alone; `full`: every row instead of the sample."""
    start = datetime(2013, 4, 1, tzinfo=UTC)
    end = datetime(2013, 7, 1, tzinfo=UTC) if fast else datetime(2014, 1, 1, tzinfo=UTC)
    return Settings(
        # A schedule is published a week ahead and the register of aircraft before that: history begins where the first row becomes known.
        history_start=datetime(2013, 1, 1, tzinfo=UTC) - timedelta(days=14),
        start=start,
        end=end,
        sample=Sample(1.0 if full else DEFAULT_SAMPLE),
    )
