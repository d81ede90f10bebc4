"""Each package of the pipeline environment does real work: take it out, and a piece of a component fails."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from package_use import OBJECT_STORE, Use, assert_used, declared

pytestmark = pytest.mark.pipeline

TRAINING = """
from components.contracts.loading import load_usecase
from components.model_engineering.tests.flight_rows import flight_rows, manifest_of
flights = load_usecase("flights")
frame = flight_rows(flights, 1500)
from components.model_engineering.train import prepare
from components.model_engineering.boosting import fit_booster
data = prepare(flights, frame).data
"""

INGEST = """
from datetime import UTC, datetime
from pathlib import Path
from components.contracts.loading import load_usecase
from components.data_engineering.ingest import ingest_period
from components.data_engineering.lake import read_group
flights = load_usecase("flights")
version = ingest_period(flights, str(Path("lake").resolve()), datetime(2012, 12, 20, tzinfo=UTC), datetime(2012, 12, 26, tzinfo=UTC))
assert len(read_group(str(Path("lake").resolve()), version, "flights", "schedule")) > 500
"""

REGISTRY = """
from pathlib import Path
from components.contracts.platform import Platform
from components.deployment.registry import version_with_alias
platform = Platform.embedded(Path("state"))
(Path("state") / "mlflow").mkdir(parents=True)
assert version_with_alias(platform, "flights", "champion") == ""
assert (Path("state") / "mlflow" / "mlflow.db").exists()
"""

FEAST = """
from components.contracts.loading import load_usecase
from components.data_engineering.feature_repository import feast_objects
flights = load_usecase("flights")
paths = {view.served_name: f"{view.served_name}.parquet" for view in flights.features.views}
assert len(feast_objects(flights.config, flights.features.views, paths, expire=True)) > len(flights.features.views)
"""


LOG = """
from datetime import UTC, datetime
from components.contracts.serving import LoggedPrediction
from components.monitoring.prediction_log import PredictionLog
moment = datetime(2013, 4, 1, tzinfo=UTC)
log = PredictionLog("log")
log.append([LoggedPrediction(
    id="a", usecase="flights", predictor="default", entity="e", prediction_moment=moment, event_time=moment, model_version="m", release="r",
    feature_set="f", probability=0.5, decision=True, features={}, feature_times={}, warnings=[], instance="i", sequence=1, received=moment)])
assert len(log.read("flights", moment, datetime(2013, 4, 2, tzinfo=UTC))) == 1
"""

# The trigger serves until it is told to end, which it is as soon as it answers.
TRIGGER = """
import os, signal, threading, time
from pathlib import Path
from components.contracts.platform import Platform
from components.monitoring.retrain_trigger.__main__ import main
from pipelines.demo.services import _answers, free_port
port, answered = free_port(), []

def end_it():
    while not _answers(f"http://127.0.0.1:{port}/healthz"):
        time.sleep(0.1)
    answered.append(port)
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, lambda *_: None)
Path("platform.json").write_text(Platform.embedded(Path(".")).model_dump_json())
os.environ["CRISPLINE_PLATFORM"] = "platform.json"
threading.Thread(target=end_it, daemon=True).start()
assert main(["--port", str(port), "--usecase", "flights", "--state", "."]) == 0 and answered
"""

USES = [
    Use("kfp", "kfp", "from pipelines.compiled import compile_pipeline\nassert 'assess-performance' in compile_pipeline('monitoring')"),
    Use("mlflow-skinny", "mlflow", REGISTRY),
    Use("sqlalchemy", "sqlalchemy", REGISTRY),
    Use("alembic", "alembic", REGISTRY),
    Use("feast", "feast", FEAST),
    Use("xgboost-cpu", "xgboost", TRAINING + "assert fit_booster(data, {'max_depth': 3}, seed=1, maximum_rounds=3, early_stopping_rounds=2).loss < 1"),
    Use("scikit-learn", "sklearn", "import numpy as np\nfrom components.model_engineering.calibration import fit_calibrator\n"
        "p = np.linspace(0.1, 0.9, 50)\nassert fit_calibrator('isotonic', p, (p > 0.5).astype(float)).kind == 'isotonic'"),
    Use("optuna", "optuna", TRAINING + "from components.model_engineering.tune import tune\nfrom pathlib import Path\n"
        "assert len(tune(flights, data, manifest_of(flights, frame), 1, Path('journals')).trials) == 1"),
    Use("pandera", "pandera", """
        from datetime import UTC, datetime
        import pandas as pd
        from components.contracts.loading import load_usecase
        from components.data_engineering.contract_schema import breaches, group_schema
        schema = group_schema(load_usecase("flights").config, "planes", "register", datetime(2012, 12, 1, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC))
        assert "built" in set(breaches(schema, pd.DataFrame({"tailnum": ["N1"], "built": [1066.0]}))["column"])
    """),
    Use("deltalake", "deltalake", INGEST),
    Use("duckdb", "duckdb", LOG),
    Use("openlineage-python", "openlineage", """
        from datetime import UTC, datetime
        from pathlib import Path
        from components.contracts.artifacts import DataVersion
        from components.data_engineering.lineage import emit_materialised
        version = DataVersion(id="v", usecase="flights", as_of=datetime(2013, 4, 1, tzinfo=UTC), tables={})
        emit_materialised(str(Path("lineage.jsonl").resolve()), version, version.as_of, {"plane": 3})
        assert len(Path("lineage.jsonl").read_text().splitlines()) == 2
    """),
    Use("matplotlib", "matplotlib", "from pipelines.demo.figures import costs\nassert costs(['Apr'], [1.0], [2.0], 'USD').startswith('<svg')"),
    Use("starlette", "starlette", "from components.monitoring.retrain_trigger import service\nassert service.Starlette"),
    Use("uvicorn", "uvicorn", TRIGGER),
    Use("httpx", "httpx", "from pipelines.demo.services import _answers\nassert not _answers('http://127.0.0.1:9/')"),
    Use("kubernetes", "kubernetes", """
        import os
        from pathlib import Path
        from components.monitoring.retrain_trigger.stores import open_store
        from components.monitoring.tests.fake_kubernetes_api import FakeKubernetesApi
        with FakeKubernetesApi() as api:
            os.environ["KUBECONFIG"] = str(api.kubeconfig(Path(".")))
            store = open_store("kubernetes:///crispline/claims", "flights")
            assert store.bind("cause", "run-1", "flights").run_id == store.bind("cause", "run-2", "flights").run_id == "run-1"
    """),
    Use("s3fs", "s3fs", OBJECT_STORE),
]  # fmt: skip


@pytest.mark.parametrize("use", USES, ids=str)
def test_without_it_a_component_fails(use: Use, tmp_path: Path) -> None:
    assert_used(use, tmp_path)


def test_nothing_else_is_declared() -> None:
    assert declared("pipeline") - {use.package for use in USES} == set()
