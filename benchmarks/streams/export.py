"""Real streams as Parquet, with the probability that a model of their history gives, for benchmarks/drift_alarms.py.

    benchmarks/.venv/bin/python -m benchmarks.streams.export <folder>

A stream is taken when it has at least `FEWEST_BLOCKS` windows of at least `FEWEST_ROWS` rows after the model's history. Columns: features, `moment`,
`window` (its number), `probability`; `<name>.json` holds the window's length in days and which columns are categories.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost as xgb

from benchmarks.streams import packaged
from benchmarks.streams.stream import LABEL, MOMENT, Stream

FEWEST_BLOCKS, FEWEST_ROWS = 40, 60


def prepared(stream: Stream) -> pd.DataFrame | None:
    """The rows of the windows that are large enough, or None."""
    history, later = stream.rows[stream.rows[MOMENT] < stream.start], stream.rows[stream.rows[MOMENT] >= stream.start]
    matrix = xgb.DMatrix(history[stream.features], history[LABEL], enable_categorical=True)
    model = xgb.train({"objective": "binary:logistic", "max_depth": 4, "eta": 0.2, "nthread": 1, "seed": 1}, matrix, 40)
    rows = later.assign(
        window=np.asarray((later[MOMENT] - stream.start) // stream.window),
        probability=model.predict(xgb.DMatrix(later[stream.features], enable_categorical=True)),
    )
    rows = rows[rows.groupby("window")[LABEL].transform("size") >= FEWEST_ROWS].drop(columns=LABEL)
    return rows if rows["window"].nunique() >= FEWEST_BLOCKS else None


def main(folder: Path) -> None:
    makers: tuple[Callable[[], Stream], ...] = (*packaged.JUDGED, *packaged.DEVELOPMENT)
    folder.mkdir(parents=True, exist_ok=True)
    for maker in makers:
        stream = maker()
        rows = prepared(stream)
        if rows is None:
            print(f"{stream.name}: too few windows of {FEWEST_ROWS} rows")
            continue
        categorical = [name for name in stream.features if isinstance(rows[name].dtype, pd.CategoricalDtype)]
        rows.astype(dict.fromkeys(categorical, object)).to_parquet(folder / f"{stream.name}.parquet", index=False)
        described = {"window_days": stream.window / timedelta(days=1), "features": stream.features, "categorical": categorical}
        (folder / f"{stream.name}.json").write_text(json.dumps(described))
        print(f"{stream.name}: {rows['window'].nunique()} windows, {len(rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
