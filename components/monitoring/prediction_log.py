"""The durable prediction log: Parquet files `<uri>/<usecase>/date=YYYY-MM-DD/<hash>.parquet`, partitioned by the prediction moment's date (UTC).

A file's name is the hash of the rows' identities in it, so moving the same rows again writes the same file. Files are immutable and written
whole; several writers and readers need no lock. The same row may stand in two files (a batch cut differently after a crash, a compaction
under way): reading removes the repetition.

Columns: those of `LoggedPrediction`, with `features` spread into `feature.<name>` (numbers and truth values as double, text as text; a
feature that is missing in all rows of a file is no column of it and reads as null), `feature_times` as JSON text and `warnings` as a list.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from upath import UPath

from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.serving import FeatureValue, LoggedPrediction
from components.contracts.storage import create_atomically, is_local, names_in, read_whole, remove, storage_path, write_atomically

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

FEATURE_PREFIX = "feature."
BATCH_PREDICTOR = "batch"  # the predictor's name of batch scoring: its moments lie ahead of service, so windows and watermark leave it out
_PLAIN = ("id", "usecase", "predictor", "entity", "model_version", "release", "feature_set", "probability", "decision", "warnings", "instance", "sequence")
_MOMENTS = ("prediction_moment", "event_time", "received")
_READ_ATTEMPTS = 5  # a compaction may remove a file between its listing and its reading; what replaced it is listed the next time


class _OfThread(threading.local):
    """DuckDB connections by file system (None is the local one); a connection serves one thread."""

    def __init__(self) -> None:
        self.connections: dict[object, duckdb.DuckDBPyConnection] = {}


_OF_THREAD = _OfThread()


class PredictionLog:
    """Every prediction of every replica, model and batch run. `uri` is a path or an fsspec URI."""

    def __init__(self, uri: str) -> None:
        self.root = storage_path(uri)
        self._highest: tuple[tuple[str, date], dict[str, datetime | None]] | None = None  # of the newest day's files, which never change

    def append(self, rows: Sequence[LoggedPrediction]) -> int:
        """Write rows durably; return how many stand in files that did not exist before. Raises as `append_new` does."""
        return len(self.append_new(rows))

    def append_new(self, rows: Sequence[LoggedPrediction]) -> list[LoggedPrediction]:
        """Write rows durably; return those in files that did not exist before. Appending the same rows again writes nothing.

        Raises InvalidData when one feature holds numbers in one row and text in another of the same release; nothing is then written.
        """
        groups: dict[tuple[str, date, str], list[LoggedPrediction]] = defaultdict(list)
        for row in rows:
            groups[(row.usecase, row.prediction_moment.astimezone(UTC).date(), row.release)].append(row)
        files: dict[UPath, tuple[list[LoggedPrediction], bytes]] = {}
        for (usecase, day, _), group in sorted(groups.items()):
            unique = {_identity(row): row for row in sorted(group, key=_order)}
            path = self._day(usecase, day) / f"{_file_name(list(unique))}.parquet"
            if not path.exists():
                files[path] = (list(unique.values()), _parquet(list(unique.values())))
        return [row for path, (group, content) in files.items() if create_atomically(path, content) for row in group]

    def read(self, usecase: str, start: datetime, end: datetime, model_version: str | None = None, predictor: str | None = None) -> pd.DataFrame:
        """The rows with `start <= prediction_moment < end`, once each, in order of prediction moment and id.

        Of several rows under one id (a client repeated its request id) the one received first is kept. An empty result has the plain columns.
        """
        wanted = {"model_version": model_version, "predictor": predictor}
        conditions = [f"{name} = ${name}" for name, value in wanted.items() if value is not None]
        query = f"""
            SELECT * EXCLUDE (filename) FROM log WHERE {" AND ".join(["prediction_moment >= $start AND prediction_moment < $end", *conditions])}
            QUALIFY row_number() OVER (PARTITION BY predictor, id ORDER BY received, instance, sequence) = 1
            ORDER BY prediction_moment, id
        """  # noqa: S608 - the conditions are ours, the values are parameters
        given = {"start": start, "end": end, **{name: value for name, value in wanted.items() if value is not None}}
        return self._query(lambda: self._files_between(usecase, start, end), query, given)

    def answers(self, usecase: str, start: datetime, end: datetime) -> pd.DataFrame:
        """The numbered answers: columns instance, sequence, model_version, release, predictor, first (lowest prediction moment in the answer), rows."""
        query = """
            SELECT instance, sequence, any_value(model_version) AS model_version, any_value(release) AS release, any_value(predictor) AS predictor,
                   min(prediction_moment) AS first, count(DISTINCT id) AS rows
            FROM log WHERE prediction_moment >= $start AND prediction_moment < $end
            GROUP BY instance, sequence ORDER BY instance, sequence
        """
        return self._query(lambda: self._files_between(usecase, start, end), query, {"start": start, "end": end})

    def received_since(self, usecase: str, since: datetime) -> pd.DataFrame:
        """What was served, and received, from a moment of the wall clock on, whatever its prediction moment: columns id, predictor, entity,
        model_version, release, prediction_moment, received, probability; once each, in order of receipt and id.

        Reads dates backwards until one on which something was served and nothing received any more.
        """
        query = """
            SELECT id, predictor, entity, model_version, release, prediction_moment, received, probability FROM log
            WHERE predictor <> $batch AND prediction_moment >= $start AND prediction_moment < $end
            QUALIFY row_number() OVER (PARTITION BY predictor, id ORDER BY received, instance, sequence) = 1
            ORDER BY received, id
        """
        import pandas as pd

        found = []
        for day in reversed(self.days(usecase)):
            start = datetime.combine(day, datetime.min.time(), UTC)
            bounds = {"start": start, "end": start + timedelta(days=1), "batch": BATCH_PREDICTOR}
            served = self._query(lambda day=day: self.files(usecase, day), query, bounds)  # type: ignore[misc]
            rows = served[pd.to_datetime(served["received"], utc=True) >= since]
            if len(served) and not len(rows):
                break
            found.append(rows)
        if not found:
            return _empty()[["id", "predictor", "entity", "model_version", "release", "prediction_moment", "received", "probability"]]
        return pd.concat(found, ignore_index=True).sort_values(["received", "id"], kind="stable", ignore_index=True)

    def latest(self, usecase: str) -> datetime | None:
        """The highest prediction moment that any replica has served (batch scoring aside), or None for an empty log: the clock of all windows.

        Asked again and again by a replica, so a file is read once only.
        """
        import pandas as pd

        query = "SELECT filename, max(prediction_moment) FILTER (WHERE predictor <> $batch) AS latest FROM log GROUP BY filename"
        for day in reversed(self.days(usecase)):
            known = self._highest[1] if self._highest is not None and self._highest[0] == (usecase, day) else {}
            new = self._query(self._not_in(usecase, day, known), query, {"batch": BATCH_PREDICTOR})
            if len(new):
                moments = [None if pd.isna(moment) else moment.to_pydatetime().astimezone(UTC) for moment in new["latest"]]
                known = known | dict(zip(new["filename"], moments, strict=True))
                self._highest = ((usecase, day), known)
            found = [moment for moment in known.values() if moment is not None]
            if found:
                return max(found)
        return None

    def _not_in(self, usecase: str, day: date, known: Mapping[str, datetime | None]) -> Callable[[], list[UPath]]:
        return lambda: [path for path in self.files(usecase, day) if str(path) not in known]

    def days(self, usecase: str) -> list[date]:
        """The dates (UTC) that have rows, in order."""
        return [date.fromisoformat(name.removeprefix("date=")) for name in names_in(self.root / usecase) if name.startswith("date=")]

    def compact(self, usecase: str, day: date) -> int:
        """Merge a day's files into one per release; return how many files were merged. Safe while others read, append or compact."""
        files = self.files(usecase, day)
        by_schema: dict[str, list[tuple[UPath, Any]]] = defaultdict(list)
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        for path in files:
            try:
                table = pq.read_table(io.BytesIO(read_whole(path)))
            except FileNotFoundError:
                return 0  # somebody else is compacting this day
            by_schema[str(table.column("release")[0].as_py())].append((path, table))
        merged = 0
        for parts in by_schema.values():
            if len(parts) < 2:
                continue
            whole = pa.concat_tables([table for _, table in parts], promote_options="permissive").sort_by(
                [("prediction_moment", "ascending"), ("id", "ascending"), ("received", "ascending")]
            )
            keys = [tuple(row.values()) for row in whole.select(["predictor", "id", "instance", "sequence"]).to_pylist()]
            first = {key: number for number, key in reversed(list(enumerate(keys)))}
            whole = pc.take(whole, pa.array(sorted(first.values())))
            path = self._day(usecase, day) / f"{_file_name([str(key) for key in first])}.parquet"
            buffer = io.BytesIO()
            pq.write_table(whole, buffer, compression="zstd")
            write_atomically(path, buffer.getvalue())
            for old, _ in parts:
                if old.name != path.name:
                    remove(old)
            merged += len(parts)
        return merged

    def _query(self, files_now: Callable[[], Sequence[UPath]], query: str, parameters: Mapping[str, Any]) -> pd.DataFrame:
        """`query` over the view `log` of those files, with the column `filename` beside the log's own; listed again when one goes meanwhile."""
        for attempt in range(_READ_ATTEMPTS):
            files = files_now()
            if not files:
                return _empty()
            connection = self._connection()
            try:
                relation = f"CREATE OR REPLACE TEMP VIEW log AS SELECT *, filename FROM read_parquet({[str(path) for path in files]!r}, union_by_name = true, hive_partitioning = false)"  # noqa: S608 - the log's own file names
                connection.execute(relation)
                frame: pd.DataFrame = connection.execute(query, dict(parameters)).df()
                return frame
            except Exception as error:
                _OF_THREAD.connections.clear()  # DuckDB takes no query after some errors, for good
                if attempt == _READ_ATTEMPTS - 1 or all(path.exists() for path in files):
                    raise CrisplineError(
                        f"the prediction log {self.root} cannot be read: {error}\n    remedy: check the files of the dates asked for"
                    ) from error
        raise AssertionError("unreachable")

    def _connection(self) -> duckdb.DuckDBPyConnection:
        """This thread's, kept: making one takes longer than most queries do."""
        import duckdb

        filesystem = None if is_local(self.root) else self.root.fs
        held = _OF_THREAD.connections
        if filesystem not in held:
            connection = duckdb.connect(config={"threads": "2"})
            connection.execute("SET TimeZone = 'UTC'")
            if filesystem is not None:
                connection.register_filesystem(filesystem)
            held[filesystem] = connection
        return held[filesystem]

    def _day(self, usecase: str, day: date) -> UPath:
        return self.root / usecase / f"date={day.isoformat()}"

    def files(self, usecase: str, day: date) -> list[UPath]:
        """The files of one date."""
        folder = self._day(usecase, day)
        return [folder / name for name in names_in(folder) if name.endswith(".parquet")]

    def _files_between(self, usecase: str, start: datetime, end: datetime) -> list[UPath]:
        first, last = start.astimezone(UTC).date(), end.astimezone(UTC).date()
        return [path for day in self.days(usecase) if first <= day <= last for path in self.files(usecase, day)]


def feature_columns(frame: pd.DataFrame) -> dict[str, str]:
    """Feature name by column of a frame that `PredictionLog.read` returned."""
    return {column: column.removeprefix(FEATURE_PREFIX) for column in frame.columns if column.startswith(FEATURE_PREFIX)}


def features_of(frame: pd.DataFrame, feature_names: Sequence[str]) -> pd.DataFrame:
    """The model's input columns, in its order, out of a frame that `PredictionLog.read` returned; a feature that no row has is all missing."""
    columns = [FEATURE_PREFIX + name for name in feature_names]
    return frame.reindex(columns=columns).rename(columns=dict(zip(columns, feature_names, strict=True)))


def _identity(row: LoggedPrediction) -> str:
    return str((row.predictor, row.id, row.instance, row.sequence))


def _order(row: LoggedPrediction) -> tuple[datetime, str, str, int]:
    return row.prediction_moment, row.id, row.instance, row.sequence


def _file_name(identities: list[str]) -> str:
    return hashlib.sha256(json.dumps(sorted(identities)).encode()).hexdigest()[:32]


def _parquet(rows: list[LoggedPrediction]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    moment = pa.timestamp("us", tz="UTC")
    columns: dict[str, Any] = {name: pa.array([getattr(row, name) for row in rows]) for name in _PLAIN if name != "warnings"}
    columns["warnings"] = pa.array([row.warnings for row in rows], pa.list_(pa.string()))
    columns |= {name: pa.array([getattr(row, name) for row in rows], moment) for name in _MOMENTS}
    columns["feature_times"] = pa.array(
        [json.dumps({view: None if at is None else at.astimezone(UTC).isoformat() for view, at in row.feature_times.items()}) for row in rows]
    )
    for name in sorted({name for row in rows for name in row.features}):
        values = [row.features.get(name) for row in rows]
        if any(value is not None for value in values):
            columns[FEATURE_PREFIX + name] = _feature_array(name, values)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def _feature_array(name: str, values: list[FeatureValue]) -> Any:
    import pyarrow as pa

    texts = [value is None or isinstance(value, str) for value in values]
    if all(texts):
        return pa.array(values, pa.string())
    if any(isinstance(value, str) for value in values):
        raise InvalidData(f"feature {name!r} holds text in one row and numbers in another\n    remedy: the server must send each feature in its declared type")
    return pa.array([None if value is None or isinstance(value, str) else float(value) for value in values], pa.float64())


def _empty() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: pd.Series(dtype="datetime64[us, UTC]" if name in _MOMENTS else "object") for name in (*_PLAIN, *_MOMENTS, "feature_times")})
