"""Each package of the serving environment does real work: take it out, and a piece of the model server fails."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from package_use import OBJECT_STORE, Use, assert_used, declared

pytestmark = pytest.mark.serving

RELEASE = """
from pathlib import Path
from components.deployment.bundle import fetch_bundle
from components.deployment.tests.example_release import build_release
release = build_release(Path("bundles"))
folder = Path("release")
fetch_bundle("bundles", release, folder)
"""

# One prediction through the whole WSGI application, as gunicorn would call it.
ANSWER = RELEASE + """
from datetime import timedelta
from components.model_server.seldon.server import Server, ServerOptions
from components.model_server.tests.processes import body, full_row
server = Server(ServerOptions(folder, "127.0.0.1", 0, 1, "", None, "i"))
answer = server.load().test_client().post("/api/v1.0/predictions", json=body(full_row()))
assert answer.status_code == 200, answer.text
assert b"crispline_requests_total" in server.load().test_client().get("/metrics").data
"""  # fmt: skip

SCORING = RELEASE + """
import pandas as pd
from components.model_server.scoring import ScoringModel
from components.model_server.tests.processes import full_row
assert 0 < ScoringModel.load(folder).predict_probability(pd.DataFrame([full_row()["features"]]))[0] < 1
"""  # fmt: skip

FORWARDER = "from components.model_server import forwarder\nassert forwarder.Starlette and forwarder.uvicorn"

USES = [
    Use("seldon-core", "seldon_core", ANSWER),
    Use("gunicorn", "gunicorn", ANSWER),
    Use("prometheus-client", "prometheus_client", ANSWER),
    Use("xgboost-cpu", "xgboost", SCORING),
    Use("numpy", "numpy", SCORING),
    Use("pandas", "pandas", SCORING),
    Use("httpx", "httpx", FORWARDER),
    Use("uvicorn", "uvicorn", FORWARDER),
    Use("starlette", "starlette", FORWARDER),
    Use("s3fs", "s3fs", OBJECT_STORE),
]  # fmt: skip


@pytest.mark.parametrize("use", USES, ids=str)
def test_without_it_the_model_server_fails(use: Use, tmp_path: Path) -> None:
    assert_used(use, tmp_path)


def test_nothing_else_is_declared() -> None:
    assert declared("serving") - {use.package for use in USES} == set()
