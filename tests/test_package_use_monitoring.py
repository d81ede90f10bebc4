"""Each package of the monitoring environment does real work: take it out, and a piece of a component fails."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from package_use import OBJECT_STORE, Use, assert_used, declared

pytestmark = pytest.mark.monitoring

DRIFT = """
import numpy as np
from components.monitoring.detectors.alibi import AlibiDetect
random = np.random.default_rng(1)
(statistic, p_value), = AlibiDetect().numeric(random.normal(size=(300, 1)), random.normal(1, 1, size=(300, 1)))
assert statistic > 0.2 and p_value < 0.01
"""

ESTIMATE = """
import numpy as np
from components.monitoring.performance.estimate import expected_metric
assert 0.5 < expected_metric("roc_auc", np.linspace(0.1, 0.9, 200)) < 1
"""

LOG = """
from datetime import UTC, datetime
from components.contracts.serving import LoggedPrediction
from components.monitoring.prediction_log import PredictionLog
moment = datetime(2013, 4, 1, tzinfo=UTC)
log = PredictionLog("log")
assert log.append([LoggedPrediction(
    id="a", usecase="flights", predictor="default", entity="e", prediction_moment=moment, event_time=moment, model_version="m", release="r",
    feature_set="f", probability=0.5, decision=True, features={}, feature_times={}, warnings=[], instance="i", sequence=1, received=moment)]) == 1
assert len(log.read("flights", moment, datetime(2013, 4, 2, tzinfo=UTC))) == 1
"""

LAKE = """
from datetime import timedelta
from pathlib import Path
from components.contracts.loading import load_usecase
from components.data_engineering.ingest import ingest_period
from components.data_engineering.lake import read_group
from components.data_engineering.tests.small_source import FIRST, START, SmallSource
lake = str(Path("lake").resolve())
version = ingest_period(load_usecase("flights"), lake, START, FIRST + timedelta(days=2), SmallSource(days=4).read_period)
assert len(read_group(lake, version, "flights", "departure")) > 300
"""

SIDECAR = "from components.monitoring.sidecar import app\nassert app.Starlette"

USES = [
    Use("kfp", "kfp", "from components.monitoring.component import fit_detectors\nassert 'detectors' in fit_detectors.component_spec.outputs"),
    Use("alibi-detect", "alibi_detect", DRIFT),
    Use("nannyml", "nannyml", ESTIMATE),
    Use("statsmodels", "statsmodels", ESTIMATE),
    Use("numpy", "numpy", DRIFT),
    Use("xgboost-cpu", "xgboost", """
        from pathlib import Path
        from components.contracts.loading import load_usecase
        from components.deployment.tests.example_release import train
        train(load_usecase("flights"), Path("."))
    """),
    Use("duckdb", "duckdb", LOG),
    Use("pyarrow", "pyarrow", LOG),
    Use("deltalake", "deltalake", LAKE),
    Use("prometheus-client", "prometheus_client", """
        from components.monitoring.metrics import SidecarMetrics
        metrics = SidecarMetrics("flights")
        metrics.logged(3)
        assert b'crispline_sidecar_predictions_logged_total{usecase="flights"} 3.0' in metrics.exposition(0, 0)
    """),
    Use("starlette", "starlette", SIDECAR),
    Use("uvicorn", "uvicorn", "from components.monitoring.sidecar import __main__ as sidecar\nassert sidecar.uvicorn"),
    Use("httpx", "httpx", """
        from components.monitoring.alert_outbox import AlertOutbox
        assert AlertOutbox("outbox", "http://127.0.0.1:9/events", lambda: 0.0).send() == 0
    """),
    Use("s3fs", "s3fs", OBJECT_STORE),
]  # fmt: skip


@pytest.mark.parametrize("use", USES, ids=str)
def test_without_it_a_component_fails(use: Use, tmp_path: Path) -> None:
    assert_used(use, tmp_path)


def test_nothing_else_is_declared() -> None:
    assert declared("monitoring") - {use.package for use in USES} == set()
