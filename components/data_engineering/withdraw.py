"""Take the newest period back, after its validation failed, so that corrected rows can be ingested in its place."""

from __future__ import annotations

from deltalake import CommitProperties, DeltaTable

from components.contracts.errors import CrisplineError
from components.contracts.loading import LoadedUseCase
from components.data_engineering.content_hash import ContentHash
from components.data_engineering.lake import STATE_KEY, Period, TableState, forget_period, groups, periods, table_state, table_uri


def withdraw_last_period(usecase: LoadedUseCase, lake_uri: str) -> Period:
    """Restore every table to what it was before the newest period, and strike the period from the ledger. Returns the period.

    Delta keeps the withdrawn version, so a record that names it can still be looked into. A crash in between is completed by the same call.
    Raises CrisplineError when nothing was ingested.
    """
    known = periods(lake_uri, usecase.name)
    if not known:
        raise CrisplineError(f"the lake {lake_uri} holds no period of {usecase.name!r}; there is nothing to take back")
    last, before = known[-1], known[-2] if len(known) > 1 else None
    for table, group in groups(usecase.config):
        name = f"{table}.{group}"
        delta = DeltaTable(table_uri(lake_uri, usecase.name, table, group))
        state = table_state(delta)
        if state is None or state.until <= last.start:
            continue
        version, rows, digest = 0, 0, ContentHash().hexdigest
        if before is not None:
            recorded = before.version.tables[name]
            version, rows, digest = recorded.version, recorded.rows, recorded.content_hash
        restored = TableState(until=last.start, rows=rows, digest=digest)
        delta.restore(version, commit_properties=CommitProperties(custom_metadata={STATE_KEY: restored.model_dump_json()}))
    forget_period(lake_uri, usecase.name, last)
    return last
