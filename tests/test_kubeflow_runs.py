"""Runs on Kubeflow Pipelines against the recording server: found by name, submitted once, typed, described, followed through failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from pipelines.kubernetes_settings import KubernetesSettings
from pipelines.on_kubeflow import compile_for_kubeflow
from pipelines.runners.kubeflow_api import PipelinesRefused, PipelinesSilent
from pipelines.runners.kubeflow_runs import KubeflowRuns, tasks_of
from tests.kfp_recording_server import RecordingKfp, Request

pytestmark = pytest.mark.pipeline

GOLDEN = Path(__file__).parent / "contract" / "golden"
PARAMETERS = {"usecase": "flights", "as_of": "2013-05-01T00:00:00Z", "environment": "dev", "cause": "alert-1"}


@pytest.fixture
def kfp() -> Iterator[RecordingKfp]:
    with RecordingKfp() as server:
        server.add_version("flights-dev-training", (GOLDEN / "training.yaml").read_text())
        yield server
        assert not server.violations


def compiled_retraining() -> str:
    return compile_for_kubeflow("retraining", "flights-dev-retraining", KubernetesSettings(), {})


def runs_of(kfp: RecordingKfp, tmp_path: Path, namespace: str = "", timeout: int = 5) -> KubeflowRuns:
    platform = Platform.embedded(tmp_path).model_copy(update={"pipelines_url": kfp.url, "pipelines_namespace": namespace})
    return KubeflowRuns(platform, timeout)


def test_a_run_carries_its_cause_in_name_parameters_and_description(kfp: RecordingKfp, tmp_path: Path) -> None:
    run = runs_of(kfp, tmp_path).submit("training-alert-1", "training", PARAMETERS, "alert-1")
    assert (run.name, run.pipeline, run.cause, run.state) == ("training-alert-1", "training", "alert-1", "pending")
    posted = kfp.run("training-alert-1")
    assert posted["description"] == "Training of flights; cause: alert-1; as of: 2013-05-01T00:00:00Z"
    assert posted["runtime_config"]["parameters"]["cause"] == "alert-1"
    assert posted["pipeline_version_reference"]["pipeline_version_id"] == kfp.store.versions[0]["pipeline_version_id"]


def test_the_version_uploaded_last_is_submitted(kfp: RecordingKfp, tmp_path: Path) -> None:
    newest = kfp.add_version("flights-dev-training", (GOLDEN / "training.yaml").read_text())
    runs_of(kfp, tmp_path).submit("training-alert-1", "training", PARAMETERS, "alert-1")
    assert kfp.run("training-alert-1")["pipeline_version_reference"]["pipeline_version_id"] == newest["pipeline_version_id"]


def test_text_becomes_what_the_pipeline_declares(kfp: RecordingKfp, tmp_path: Path) -> None:
    run = runs_of(kfp, tmp_path).submit("training-alert-1", "training", {**PARAMETERS, "trials": "3"}, "alert-1")
    assert kfp.run("training-alert-1")["runtime_config"]["parameters"]["trials"] == 3
    assert run.parameters["trials"] == "3"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({**PARAMETERS, "trials": "many"}, "'many' is no number_integer"),
        ({**PARAMETERS, "colour": "red"}, "unknown parameters: colour"),
        ({"usecase": "flights"}, "missing parameters: as_of, cause, environment"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_before_anything_is_posted(kfp: RecordingKfp, tmp_path: Path, parameters: dict[str, str], said: str) -> None:
    with pytest.raises(CrisplineError, match=said):
        runs_of(kfp, tmp_path).submit("training-alert-1", "training", parameters, "alert-1")
    assert not kfp.posted("/runs")


def test_a_pipeline_that_was_never_uploaded_names_the_command_that_uploads_it(kfp: RecordingKfp, tmp_path: Path) -> None:
    with pytest.raises(CrisplineError, match="has no pipeline 'flights-dev-retraining'; upload it: crispline submit retraining --env dev"):
        runs_of(kfp, tmp_path).submit("retraining-1", "retraining", PARAMETERS, "alert-1")


def test_of_runs_with_one_name_the_first_is_found(kfp: RecordingKfp, tmp_path: Path) -> None:
    runs = runs_of(kfp, tmp_path)
    assert runs.find("training-alert-1") is None
    first = runs.submit("training-alert-1", "training", PARAMETERS, "alert-1")
    runs.submit("training-alert-1", "training", PARAMETERS, "alert-1")
    found = runs.find("training-alert-1")
    assert found is not None
    assert found.id == first.id


def test_a_name_with_every_awkward_character_is_found(kfp: RecordingKfp, tmp_path: Path) -> None:
    runs = runs_of(kfp, tmp_path)
    name = 'training of "a+b" 50% & c/d'
    submitted = runs.submit(name, "training", PARAMETERS, "x")
    found = runs.find(name)
    assert found is not None
    assert found.id == submitted.id


def test_runs_are_listed_in_order_over_many_pages_and_narrowed(kfp: RecordingKfp, tmp_path: Path) -> None:
    runs = runs_of(kfp, tmp_path)
    assert runs.list() == []
    runs.submit("run-000", "training", {**PARAMETERS, "cause": "cause-0"}, "cause-0")
    first = kfp.run("run-000")
    for number in range(1, 205):
        config = {"parameters": {**PARAMETERS, "cause": f"cause-{number % 2}"}}
        kfp.create_run(Request("POST", "/runs", {}, {**first, "display_name": f"run-{number:03}", "runtime_config": config}))
    assert [run.name for run in runs.list()] == [f"run-{number:03}" for number in range(205)]
    assert len(runs.list("training", "cause-0")) == 103
    assert runs.list("monitoring") == []


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("PENDING", "pending"), ("RUNNING", "running"), ("CANCELING", "running"), ("SUCCEEDED", "succeeded"), ("FAILED", "failed"), ("CANCELED", "failed")],
)
def test_states_are_translated(kfp: RecordingKfp, tmp_path: Path, theirs: str, ours: str) -> None:
    runs = runs_of(kfp, tmp_path)
    run = runs.submit("training-alert-1", "training", PARAMETERS, "alert-1")
    kfp.end_run(run.id, theirs)
    assert runs.get(run.id).state == ours


def test_a_retraining_that_did_not_enter_its_effective_branch_is_a_duplicate(kfp: RecordingKfp, tmp_path: Path) -> None:
    runs = runs_of(kfp, tmp_path)
    kfp.add_version("flights-dev-retraining", compiled_retraining())
    run = runs.submit("retraining-1", "retraining", PARAMETERS, "alert-1")
    branches = {name: key for key, name in tasks_of(next(yaml.safe_load_all(compiled_retraining()))).items()}
    kfp.end_run(run.id, "SUCCEEDED", {"claim": "SUCCEEDED", branches["effective"]: "SKIPPED"})
    assert runs.get(run.id).state == "duplicate"
    kfp.set_tasks(run.id, {"claim": "SUCCEEDED", branches["effective"]: "SUCCEEDED", branches["passed"]: "SKIPPED"})  # refused by its gates
    assert runs.get(run.id).state == "succeeded"


def test_an_unknown_run_is_said_to_be_unknown(kfp: RecordingKfp, tmp_path: Path) -> None:
    with pytest.raises(CrisplineError, match="there is no run 0000 in Kubeflow Pipelines"):
        runs_of(kfp, tmp_path).get("0000")


def test_a_post_that_took_effect_without_an_answer_is_sent_once_and_its_run_is_found(kfp: RecordingKfp, tmp_path: Path) -> None:
    runs = runs_of(kfp, tmp_path)
    kfp.fail("POST", "/runs$", "after")
    with pytest.raises(PipelinesSilent):
        runs.submit("training-alert-1", "training", PARAMETERS, "alert-1")
    assert len(kfp.posted("/runs$")) == 1
    found = runs.find("training-alert-1")
    assert found is not None
    assert found.id == kfp.run("training-alert-1")["run_id"]


def test_a_post_that_never_arrived_leaves_nothing_to_find(kfp: RecordingKfp, tmp_path: Path) -> None:
    runs = runs_of(kfp, tmp_path)
    kfp.fail("POST", "/runs$", "before")
    with pytest.raises(PipelinesSilent, match="gave no answer"):
        runs.submit("training-alert-1", "training", PARAMETERS, "alert-1")
    assert runs.find("training-alert-1") is None


def test_an_answer_after_the_time_out_is_a_silence_and_its_run_is_found(kfp: RecordingKfp, tmp_path: Path) -> None:
    runs = runs_of(kfp, tmp_path, timeout=1)
    kfp.fail("POST", "/runs$", "late", seconds=2)
    with pytest.raises(PipelinesSilent):
        runs.submit("training-alert-1", "training", PARAMETERS, "alert-1")
    assert runs.find("training-alert-1") is not None


def test_a_server_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    platform = Platform.embedded(tmp_path).model_copy(update={"pipelines_url": "http://127.0.0.1:9"})
    with pytest.raises(PipelinesSilent, match=r"http://127\.0\.0\.1:9 gave no answer .*; check pipelines_url"):
        KubeflowRuns(platform).find("x")


def test_a_platform_without_pipelines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CrisplineError, match="set pipelines_url"):
        KubeflowRuns(Platform.embedded(tmp_path))


def test_a_multi_user_installation_gets_token_and_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    monkeypatch.setenv("CRISPLINE_KFP_TOKEN_FILE", str(token))
    with RecordingKfp(token="first", multi_user=True) as kfp:
        kfp.add_version("flights-dev-training", (GOLDEN / "training.yaml").read_text())
        kfp.store.pipelines[0]["namespace"] = "team-a"
        runs = runs_of(kfp, tmp_path, namespace="team-a")
        run = runs.submit("training-alert-1", "training", PARAMETERS, "alert-1")
        assert kfp.store.experiments[0]["namespace"] == "team-a"
        assert [each.id for each in runs.list()] == [run.id]
        kfp.token = "renewed"
        with pytest.raises(PipelinesRefused, match="CRISPLINE_KFP_TOKEN_FILE"):
            runs.get(run.id)
        token.write_text("renewed")  # as the kubelet does
        assert runs.get(run.id).id == run.id
        assert not kfp.violations


def test_a_tokens_file_that_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRISPLINE_KFP_TOKEN_FILE", str(tmp_path / "absent"))
    platform = Platform.embedded(tmp_path).model_copy(update={"pipelines_url": "http://127.0.0.1:9"})
    with pytest.raises(CrisplineError, match="absent, which does not exist; mount a projected token"):
        KubeflowRuns(platform)


def test_the_server_sees_what_breaks_the_clients_models(tmp_path: Path) -> None:
    """The recording server itself: a test against it is worth what it notices."""
    import urllib.error
    import urllib.request

    def post(kfp: RecordingKfp, path: str, body: str) -> int:
        request = urllib.request.Request(kfp.url + "/apis/v2beta1" + path, body.encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    with RecordingKfp() as kfp:
        for path, body, problem in (
            ("/runs", '{"name": "x"}', "POST /runs.name is no field of V2beta1Run"),
            ("/runs", '{"display_name": 3}', "3 is no str"),
            ("/runs", '{"display_name": "x", "state": "DONE"}', "'DONE' is none of"),
            ("/runs?dry=1", '{"display_name": "x"}', "takes no dry"),
            ("/launches", "{}", "is no operation of kfp_server_api"),
        ):
            assert post(kfp, path, body) == 400
            assert problem in kfp.violations[-1]
