"""Evidently's data drift preset as it comes, for benchmarks/drift_alarms.py: a line of JSON in, a line of JSON out.

In: {"reference": <parquet>, "window": <parquet>, "numeric": [...], "categorical": [...]}. Out: {"dataset": bool, "column": bool}: whether
half of the columns drift (the preset's own verdict on the data set), and whether any does.
"""

import contextlib
import json
import os
import sys
import warnings
from typing import Any

import pandas as pd

os.environ["DO_NOT_TRACK"] = "1"
warnings.simplefilter("ignore")

from evidently import DataDefinition, Dataset, Report  # noqa: E402
from evidently.presets import DataDriftPreset  # noqa: E402


def verdict(question: dict[str, Any]) -> dict[str, bool]:
    definition = DataDefinition(numerical_columns=question["numeric"], categorical_columns=question["categorical"])
    columns = [*question["numeric"], *question["categorical"]]
    window, reference = (Dataset.from_pandas(pd.read_parquet(question[name])[columns], data_definition=definition) for name in ("window", "reference"))
    metrics = Report([DataDriftPreset()]).run(window, reference).dict()["metrics"]
    drifted = next(each["value"] for each in metrics if "DriftedColumnsCount" in str(each.get("metric_name", each.get("metric_id", ""))))
    return {"dataset": drifted["share"] >= 0.5, "column": drifted["count"] > 0}


def main() -> None:
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        for line in sys.stdin:
            print(json.dumps(verdict(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
