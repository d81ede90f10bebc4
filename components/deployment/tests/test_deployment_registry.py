"""MLflow's registry follows the release: challenger at registration, champion at promotion and at rollback."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.deployment.registry import crown, register, version_with_alias
from components.deployment.tests.conftest import gates_record
from components.deployment.tests.example_release import CREATED

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """One MLflow database for the module: making one takes seconds."""
    platform = Platform.embedded(tmp_path_factory.mktemp("registry"))
    Path(platform.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    return platform


def tracked_run(platform: Platform) -> tuple[str, str]:
    from components.model_engineering.tracking import quiet_mlflow

    client = quiet_mlflow().MlflowClient(tracking_uri=platform.tracking_uri)
    found = client.get_experiment_by_name("flights")
    experiment = found.experiment_id if found else client.create_experiment("flights", artifact_location=platform.artifact_uri)
    run = client.create_run(experiment)
    client.log_dict(run.info.run_id, {}, "model/MLmodel.json")
    return run.info.run_id, f"{run.info.artifact_uri}/model"


def test_the_aliases_follow_registration_promotion_and_rollback(registry: Platform) -> None:
    numbers = []
    for version in ("model-1", "model-2"):
        run, uri = tracked_run(registry)
        numbers.append(register(registry, "flights", run, uri, version, gates_record(version), CREATED))
        assert register(registry, "flights", run, uri, version, gates_record(version), CREATED + timedelta(days=1)) == numbers[-1]
        assert version_with_alias(registry, "flights", "challenger") == version
        crown(registry, "flights", version)
        assert version_with_alias(registry, "flights", "champion") == version
        assert version_with_alias(registry, "flights", "challenger") == ""
    assert numbers == ["1", "2"]
    assert crown(registry, "flights", "model-1") == "1"
    assert version_with_alias(registry, "flights", "champion") == "model-1"
    kept = list(RecordStore(registry.records_uri).list("registration"))
    assert sorted((record.outcome, record.lineage.model_version) for record in kept) == [("registered", "model-1"), ("registered", "model-2")]


def test_a_model_that_was_refused_is_not_registered(registry: Platform) -> None:
    with pytest.raises(CrisplineError, match="did not pass its gates"):
        register(registry, "flights", "run", "uri", "model-9", gates_record("model-9", "failed"), CREATED)
    with pytest.raises(CrisplineError, match="is about model model-8"):
        register(registry, "flights", "run", "uri", "model-9", gates_record("model-8"), CREATED)


def test_a_model_that_was_never_registered_is_not_crowned(registry: Platform) -> None:
    with pytest.raises(CrisplineError, match="not in the registry"):
        crown(registry, "flights", "model-of-nobody")
