"""An example consumer: the rebooking desk. It acts on predictions, pays for what came of it, and disputes a prediction that it knows is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from components.contracts.durations import format_duration
from components.contracts.loading import LoadedUseCase
from components.contracts.records import Lineage, Record, record_id
from components.contracts.serving import Feedback


@dataclass(frozen=True)
class Account:
    """What acting on the predictions of a period came to, once the labels were known. Costs are in the use case's currency."""

    rows: int
    acted: int
    right: int
    false_alarms: int
    misses: int
    cost: float
    cost_without: float


def account(usecase: LoadedUseCase, predictions: pd.DataFrame, labels: Mapping[str, bool]) -> Account:
    """Hold decisions against labels.

    `predictions` has the columns `entity` and `decision`; rows without a label (still missing, cancelled, diverted) cost nothing and are left out.
    A false alarm costs `cost_false_alarm`, a miss `cost_miss`; without predictions every positive is a miss.
    """
    business = usecase.config.business
    known = predictions[predictions["entity"].isin(labels.keys())]
    decided = known["decision"].astype(bool).to_numpy()
    late = known["entity"].map(labels).astype(bool).to_numpy()
    false_alarms, misses = int((decided & ~late).sum()), int((~decided & late).sum())
    return Account(
        rows=len(known),
        acted=int(decided.sum()),
        right=int((decided & late).sum()),
        false_alarms=false_alarms,
        misses=misses,
        cost=false_alarms * business.cost_false_alarm + misses * business.cost_miss,
        cost_without=float(late.sum()) * business.cost_miss,
    )


def account_record(usecase: LoadedUseCase, start: datetime, end: datetime, as_of: datetime, result: Account) -> Record:
    """The account of one window as a record; `outcome` says whether acting paid."""
    currency = usecase.config.business.currency
    saved = result.cost_without - result.cost
    return Record(
        kind="consumer_action",
        id=record_id(usecase.name, "consumer", start, end),
        usecase=usecase.name,
        event_time=as_of,
        outcome="paid" if saved > 0 else "did_not_pay",
        reason=f"Acted on {result.acted} of {result.rows} predictions, {result.right} of them rightly, and missed {result.misses}: "
        f"{abs(saved):,.0f} {currency} {'saved' if saved > 0 else 'lost'} against not acting in the window of {format_duration(end - start)}.",
        inputs={"window_start": start.isoformat(), "window_end": end.isoformat(), **{key: getattr(result, key) for key in Account.__dataclass_fields__}},
        lineage=Lineage(),
    )


# The desk sees on the airport's board that a flight leaves an hour late: then an arrival on time is out of question for it.
DISPUTED_FROM_MINUTES = 60.0
DISPUTES_PER_DAY = 3


def disputes(predictions: pd.DataFrame, departures: pd.DataFrame, by: str) -> list[Feedback]:
    """Corrections of predictions "on time" for flights that then left an hour late, the worst first, a few a day.

    `predictions`: columns `id`, `entity`, `decision`; `departures`: columns `flight_id`, `dep_delay` (minutes), `known_at`.
    """
    joined = predictions[~predictions["decision"].astype(bool)].merge(departures, left_on="entity", right_on="flight_id")
    worst = joined[joined["dep_delay"] >= DISPUTED_FROM_MINUTES].nlargest(DISPUTES_PER_DAY, "dep_delay")
    return [
        Feedback(
            entity=str(row.entity),
            prediction_id=str(row.id),
            kind="correction",
            value=True,
            reason=f"left {row.dep_delay:.0f} minutes late, it cannot arrive on time",
            by=by,
            event_time=seen.to_pydatetime(),
        )
        for row, seen in zip(worst.itertuples(), worst["known_at"], strict=True)
    ]
