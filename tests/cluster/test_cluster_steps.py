"""Every step of every pipeline, once and in order, as a Job of its image: the command that Kubeflow Pipelines would run, as an arbitrary user,
with a read-only root and no way out of the pod. On some weeks of the real flights, with the example's rhythm made faster. Then the same use case
is served, and rows that are replayed lead to an alert, a decision and a run.

Nothing here executes a pipeline; that is Kubeflow's work where it is installed. The order below is written down by hand.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from ruamel.yaml import YAML

from components.contracts.durations import parse_moment
from components.contracts.events import Alert, Performance
from components.contracts.platform import Platform
from components.deployment.environment_file import Access, EnvironmentFile
from components.environments.names import environment_of_image
from components.monitoring.retrain_trigger.claims import TriggerStore
from components.monitoring.retrain_trigger.stores import open_store
from pipelines.commands.step import COMPONENTS, steps_of
from pipelines.images import IMAGE_LOAD_VARIABLE, build
from pipelines.kubernetes_settings import KubernetesSettings
from pipelines.on_kubeflow import compile_for_kubeflow
from pipelines.runners.environments import ROOT
from pipelines.runners.kubeflow_runs import KubeflowRuns
from pipelines.runners.single_step import prepare_step
from pipelines.usecase_packages import lock
from tests.cluster import recording_kfp_pod
from tests.cluster.access import CONTAINER_SECURITY, POD_SECURITY, Cluster, Ended, building
from tests.cluster.conftest import Images
from tests.cluster.installed_trigger import TRIGGER
from tests.cluster.served_model import PREDICTORS, values_of_test

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]

Event = TypeVar("Event", Alert, Performance)

USECASE = "slice"
DATA = "/data"
EXTRA_PACKAGE = "humanize==4.15.0"  # in no lock of ours
HISTORY_START, TRAINED, LABELLED = "2012-12-18T00:00:00Z", "2013-03-01T00:00:00Z", "2013-03-22T00:00:00Z"
SHARD_ROWS = 1500
SCORED_FROM, SCORED_TO = TRAINED, "2013-03-06T00:00:00Z"
CHANGES = {
    "name": USECASE,
    "monitoring.window": "5d",
    "monitoring.false_alarms": 2,  # to hear of every hint
    "model.test_period": "5d",
    "model.budget_trials": 2,
    "model.maximum_rounds": 60,
    "evaluation.bootstrap_samples": 50,
    "business.success.minimum_rows": 300,
    "business.success.minimum_simple_rule_auc": 0.4,
    "retraining.threshold": 0.99,  # a promise that no model can keep
}
# The gates still judge, but wide enough that five days of evidence pass them.
LIMITS = {
    "ranks_well": 0.4,
    "beats_simple_model": -0.3,
    "no_origin_collapses": 0.3,
    "calibrated": 0.5,
    "survives_missing_inputs": 0.3,
    "fast_enough": 2000.0,
}


def repository_with_another_usecase(folder: Path) -> Path:
    """What a team has that wrote a use case of its own: upstream's files unchanged, one folder more, with a package that no lock of ours names."""
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests"))
    shutil.copy2(ROOT / ".dockerignore", folder)
    usecase = folder / "usecases" / USECASE
    shutil.copytree(ROOT / "usecases" / "flights", usecase, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    file, yaml = usecase / "usecase.yaml", YAML()
    document = yaml.load(file)
    for path, value in CHANGES.items():
        *sections, key = path.split(".")
        section = reduce(lambda found, name: found[name], sections, document)
        assert key in section, path
        section[key] = value
    for gate in document["evaluation"]["gates"]:
        gate["limit"] = LIMITS.get(gate["name"], gate["limit"])
    yaml.dump(document, file)
    source = usecase / "source.py"
    source.write_text(source.read_text().replace("import numpy as np\n", "import humanize  # noqa: F401\nimport numpy as np\n"))
    with (usecase / "requirements" / "pipeline.in").open("a") as requirements:
        requirements.write(f"{EXTRA_PACKAGE}\n")
    lock(usecase)
    return folder


@dataclass
class Installation:
    """A namespace with a volume, a platform of files on it, and what the steps have written so far."""

    kube: Cluster
    namespace: str
    images: Mapping[str, str]
    artifacts: dict[str, Path] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)
    numbers: dict[str, Iterator[int]] = field(default_factory=lambda: defaultdict(count))  # of the Jobs of each step

    def volumes(self) -> dict[str, Any]:
        return {DATA: {"persistentVolumeClaim": {"claimName": "data"}}, "/etc/crispline": {"configMap": {"name": "crispline-platform"}}}

    def step(self, name: str, **parameters: Any) -> Any:
        """Run `<component>.<step>` on the artifacts written last; returns what it returned."""
        component, _, step = name.partition(".")
        called = steps_of(component)[step]
        inputs = called.component_spec.inputs or {}
        given = {each: self.artifacts[each] for each, spec in inputs.items() if spec.type.startswith("system.")}
        label = f"{step}-{next(self.numbers[name])}".replace("_", "-")
        prepared = prepare_step(called, {"usecase": USECASE, **given, **parameters}, Path(DATA) / "artifacts" / label)
        ended = self.kube.run_job(
            self.namespace,
            label,
            self.images[environment_of_image(prepared.image)],
            args=prepared.command[2:],
            command=prepared.command[:2],
            env={"CRISPLINE_PLATFORM": "/etc/crispline/platform.json"},
            volumes=self.volumes(),
            labels={"workflows.argoproj.io/workflow": label},  # as Argo Workflows labels the pods of steps
        )
        self.ended[f"{name}/{label}"] = ended
        assert ended.succeeded, f"{name}:\n{ended.log[-6000:]}"
        outputs = prepared.executor_input.outputs
        self.artifacts |= {key: Path(each.artifacts[0].uri) for key, each in outputs.artifacts.items()}
        written = json.loads(self.kube.run_in(self.namespace, "reader", ["cat", outputs.output_file]) or "{}")
        return written.get("parameterValues", {}).get("Output")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository_with_another_usecase(tmp_path_factory.mktemp("team") / "repository")


@pytest.fixture(scope="module")
def own_images(images: Images, repository: Path) -> dict[str, str]:
    """The images of that use case; all but their last layer are those of the example."""
    import os

    for name in ("pipeline", "monitoring"):
        assert images[name]
    with building():
        return {name: build(name, USECASE, images.registry(), os.environ[IMAGE_LOAD_VARIABLE], root=repository) for name in ("pipeline", "monitoring")}


@pytest.fixture(scope="module")
def installation(kube: Cluster, own_images: dict[str, str], namespace: Callable[..., str]) -> Iterator[Installation]:
    name = namespace("steps")
    platform = Platform.embedded(Path(DATA))
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "crispline-platform"}, "data": {"platform.json": platform.model_dump_json()}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "deny-all"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        },
        namespace=name,
    )
    made = Installation(kube, name, own_images)
    kube.run_pod(name, "reader", own_images["pipeline"], ["http.server", "--directory", DATA, "8000"], volumes=made.volumes())
    yield made


@pytest.fixture(scope="module")
def finished(installation: Installation) -> Installation:
    """All steps, each after those whose outputs it takes; two at a time where none waits for the other."""
    step, out = installation.step, installation.outputs
    with ThreadPoolExecutor(2) as pool:

        def both(*names: tuple[str, dict[str, Any]]) -> list[Any]:
            return [each.result() for each in [pool.submit(step, name, **parameters) for name, parameters in names]]

        # what Kubeflow Pipelines puts before and after each pipeline
        created = {"pipeline": "training", "created": LABELLED}
        step("data_engineering.resolve_request", **created, as_of="now/d")
        ended = {"state": "COMPLETE", "pipelineJobResourceName": "run", "pipelineTaskName": "run", "error": {}}
        out["notified"] = step("monitoring.notify", **created, run="run-3", as_of="now/d", cause="", status=ended)
        # data
        period = {"start": HISTORY_START, "end": TRAINED}
        out["before"], _ = both(("deployment.current_champion", {"environment": "dev"}), ("data_engineering.ingest", period))
        out["validated"] = step("data_engineering.validate", **period)
        # retraining and training
        out["claimed"], out["resolved"] = both(
            ("deployment.claim", {"cause": "cause-1", "run": "run-1"}), ("data_engineering.resolve_data_version", {"as_of": TRAINED})
        )
        step("data_engineering.load_data_version", id=out["resolved"])
        out["claimed again"], _ = both(
            ("deployment.claim", {"cause": "cause-1", "run": "run-2"}),
            ("data_engineering.build_features", {"training_start": "2013-01-01T00:00:00Z"}),
        )
        out["feasible"], _ = both(("understanding.assess_feasibility", {}), ("understanding.profile", {}))
        both(("model_engineering.tune", {"trials": 2}), ("understanding.summarise_feedback", {"as_of": TRAINED}))
        step("model_engineering.train")
        both(("model_engineering.track", {"cause": "cause-1"}), ("evaluation.evaluate", {"champion": ""}))
        out["judged"], _ = both(("evaluation.judge", {"cause": "cause-1"}), ("monitoring.fit_detectors", {}))
        out["registered"], out["bundle"] = both(("deployment.register", {"as_of": TRAINED}), ("deployment.bundle", {"cause": "cause-1", "as_of": TRAINED}))
        out["commit"], _ = both(
            ("deployment.promote", {"environment": "dev", "release": out["bundle"], "cause": "cause-1", "as_of": TRAINED}),
            ("data_engineering.materialise", {"start": "2013-02-28T00:00:00Z", "end": TRAINED}),
        )
        # batch scoring and monitoring, once the labels are in
        later = {"start": TRAINED, "end": LABELLED}
        out["after"], _ = both(("deployment.current_champion", {"environment": "dev"}), ("data_engineering.ingest", later))
        step("data_engineering.validate", **later)
        step("data_engineering.resolve_data_version", as_of=LABELLED)
        out["entities"] = step("data_engineering.entities_to_score", start=SCORED_FROM, end=SCORED_TO, release=out["after"])
        installation.artifacts["dataset"] = installation.artifacts["entities"]
        out["shards"] = step("deployment.list_shards", shard_rows=SHARD_ROWS)
        shards = [{"environment": "dev", "release": out["after"], "first_row": first, "shard_rows": SHARD_ROWS} for first in out["shards"]]
        both(*(("deployment.score_batch", shard) for shard in shards))
        out["performance"], out["skew"] = both(
            ("monitoring.assess_performance", {"window_start": SCORED_FROM, "window_end": SCORED_TO, "as_of": LABELLED}),
            ("evaluation.check_serving_skew", {"release": out["after"]}),
        )
        out["emitted"], out["withdrawn"] = both(("monitoring.emit", {}), ("data_engineering.withdraw", {}))
    return installation


def test_every_step_of_the_components_ran(finished: Installation) -> None:
    ran = {name.split("/")[0] for name in finished.ended}
    every = {f"{component}.{step}" for component in COMPONENTS for step in steps_of(component)}
    assert every - ran == {"deployment.rollback"}, "a rollback needs two releases: see the promotion tests"
    assert all(ended.succeeded for ended in finished.ended.values())
    for name, ended in finished.ended.items():
        print(f"{name}: {ended.seconds:.0f} s, started after {ended.started:.0f} s")


def test_what_the_steps_returned_is_what_a_pipeline_branches_on(finished: Installation) -> None:
    out = finished.outputs
    assert out["before"] in ("", None)
    assert (out["validated"], out["claimed"], out["claimed again"]) == ("passed", "effective", "duplicate")
    assert (out["feasible"], out["judged"]) == ("go", "passed")
    assert out["notified"] == "succeeded" and len(out["shards"]) > 1
    assert out["after"] == out["bundle"] and len(out["commit"]) == 40
    assert out["entities"] > 500 and out["performance"] == "below"
    assert out["skew"] == "not_judged", "nothing was looked up for a batch"
    assert out["emitted"] == "0" and out["withdrawn"] == LABELLED


def test_the_answers_are_in_the_prediction_log_and_the_decisions_in_the_records(finished: Installation) -> None:
    program = (
        "from datetime import datetime, UTC; from components.contracts.platform import Platform; from components.contracts.storage import names_in, storage_path;"
        "from components.monitoring.prediction_log import PredictionLog; p = Platform.load();"
        f"rows = len(PredictionLog(p.prediction_log_uri).read('{USECASE}', datetime(2013, 3, 1, tzinfo=UTC), datetime(2013, 3, 6, tzinfo=UTC)));"
        "print(rows, *names_in(storage_path(p.records_uri)))"
    )
    said = finished.kube.run_in(finished.namespace, "reader", ["env", "CRISPLINE_PLATFORM=/etc/crispline/platform.json", "python", "-c", program]).split()
    assert int(said[0]) == finished.outputs["entities"]
    assert {"data_version", "dataset", "check", "gates", "promotion", "performance"} <= set(said[1:])


def test_the_team_needed_a_package_more_and_no_file_of_upstreams_changed(finished: Installation, repository: Path, images: Images) -> None:
    from pipelines.images import image_files

    upstream = {name for name in image_files("pipeline", USECASE, repository) if not name.startswith("usecases/")}
    assert all((repository / name).read_bytes() == (ROOT / name).read_bytes() for name in upstream)
    listed = "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"
    theirs = set(finished.kube.run_in(finished.namespace, "reader", ["python", "-c", listed]).split())
    ours = finished.kube.run_job(finished.namespace, "ours", images["pipeline"], ["-c", listed], command=["python"]).log.split()
    assert theirs - set(ours) == {EXTRA_PACKAGE} and set(ours) <= theirs


# --- from replayed rows to a run: nothing is posted but predictions

REPLAYED_TO = "2013-03-06T12:00:00Z"  # the morning that closes the window from SCORED_FROM to SCORED_TO


@dataclass(frozen=True)
class Served:
    """The use case in service beside its steps' volume: model server, retrain trigger, and the recording KFP server in another namespace."""

    installation: Installation
    store: TriggerStore
    runs: KubeflowRuns

    @property
    def release(self) -> str:
        return str(self.installation.outputs["after"])

    def replay(self) -> int:
        """`crispline replay` from inside the cluster; the rows that it asked about."""
        made = self.installation
        request = {"environment": "dev", "usecase": USECASE, "start": SCORED_FROM, "end": REPLAYED_TO, "share": 0.1, "rows": 50}
        ended = made.kube.run_job(
            made.namespace,
            "replay",
            made.images["pipeline"],
            ["pipelines.commands.replay", json.dumps(request)],
            volumes={**made.volumes(), "/opt/crispline/manifests/environments/dev": {"configMap": {"name": "environment"}}},
        )
        assert ended.succeeded, ended.log[-6000:]
        (answer,) = (json.loads(line) for line in ended.log.splitlines() if line.startswith("{"))
        return int(answer["rows"])

    def decided(self, kind: type[Event]) -> list[Event]:
        """The events of a kind that the trigger got, once it has decided on them."""
        found = self.installation.kube.wait_for(f"{kind.__name__} at the trigger", lambda: [each for each in self.store.events() if isinstance(each, kind)])
        self.installation.kube.wait_for("the decisions", lambda: not self.store.unhandled())
        return found


@pytest.fixture(scope="module")
def served(finished: Installation, helm: Callable[..., str], images: Images, namespace: Callable[..., str]) -> Iterator[Served]:
    kube, place, pipelines = finished.kube, finished.namespace, namespace("pipelines")
    retraining = compile_for_kubeflow("retraining", f"{USECASE}-dev-retraining", KubernetesSettings(), {})
    kube.apply(*recording_kfp_pod.objects(images["pipeline"], retraining, POD_SECURITY, CONTAINER_SECURITY), namespace=pipelines)
    # The batch of the steps is in a log and in records of its own, so that what is judged here are the replayed rows.
    platform = Platform.embedded(
        Path(DATA), trigger_url=f"http://{TRIGGER}.{place}.svc:8080/events", pipelines_url=f"http://ml-pipeline.{pipelines}.svc:8888"
    ).model_copy(
        update={"claims_uri": f"kubernetes:///{place}/claims", "records_uri": f"{DATA}/live/records", "prediction_log_uri": f"{DATA}/live/prediction_log"}
    )
    environment = EnvironmentFile(platform=platform, access=Access(namespace=place, registry=images.registry()))
    jobs = {"matchExpressions": [{"key": "job", "operator": "Exists"}]}
    names = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    ways = [{"to": [{"podSelector": {}}]}, {"to": [names], "ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]}]
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "crispline-platform"}, "data": {"platform.json": platform.model_dump_json()}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "environment"}, "data": {"platform.yaml": environment.model_dump_json(by_alias=True)}},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "jobs"},
            "spec": {"podSelector": jobs, "policyTypes": ["Egress"], "egress": ways},
        },
        namespace=place,
    )
    model = values_of_test({"serving": images["serving"], "monitoring": finished.images["monitoring"]})
    registry, _, pipeline = finished.images["pipeline"].rpartition("/")
    # The volume is the steps' own, and so is the user that may write there.
    shared = {"environment": "dev", "usecase": USECASE, "replicas": 1, "sharedVolume": {"existingClaim": "data", "mountPath": DATA}}
    shared["podSecurityContext"] = POD_SECURITY
    model |= shared | {"release": finished.outputs["after"], "sidecar": {**model["sidecar"], "triggerUrl": None}}
    repository, _, tag = pipeline.partition(":")
    trigger = shared | {
        "pollSeconds": 1,
        "images": {"registry": registry, "pipeline": {"repository": repository, "tag": tag}},
        "pipelineRunner": {"serviceAccounts": [{"namespace": place, "name": "default"}]},
        "networkPolicy": {"pipelines": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": pipelines}}}], "gitPorts": []},
    }
    for name, chart, values in ((TRIGGER, "retrain-trigger", trigger), (USECASE, "model-server", model)):
        helm("install", name, str(ROOT / "charts" / chart), "-n", place, "-f", "-", input=json.dumps(values))
    finished.step("data_engineering.ingest", start=TRAINED, end=REPLAYED_TO)
    finished.step("data_engineering.ingest", start=REPLAYED_TO, end=LABELLED)
    kube.ready(pipelines, "app=ml-pipeline")
    kube.ready(place, "app.kubernetes.io/component=trigger")
    kube.ready(place, PREDICTORS)
    with kube.forward(pipelines, "service/ml-pipeline", 8888) as url:
        yield Served(finished, open_store(platform.claims_uri, USECASE), KubeflowRuns(platform.model_copy(update={"pipelines_url": url})))
        for name in (USECASE, TRIGGER):
            helm("uninstall", name, "-n", place)


def test_replayed_rows_lead_to_an_alert_and_to_a_decision_on_it(served: Served) -> None:
    assert served.replay() > 300
    alerts = served.decided(Alert)
    assert {(each.window_start, each.window_end, each.release) for each in alerts} == {(parse_moment(SCORED_FROM), parse_moment(SCORED_TO), served.release)}
    for each in alerts:
        decision = served.store.decision(each.id)
        assert decision is not None and decision.outcome == "wait_for_labels" and not decision.run, decision
        assert "drift is evidence, not a verdict" in decision.reason
        assert served.store.get(each.id) is None, "no claim on a run"
    assert served.runs.list() == []


def test_the_measured_performance_of_those_rows_starts_one_run(served: Served) -> None:
    """The labels come late, the monitoring pipeline's own steps measure and send, and the promise is broken."""
    step = served.installation.step
    assert step("monitoring.assess_performance", window_start=SCORED_FROM, window_end=SCORED_TO, as_of=LABELLED) == "below"
    assert step("monitoring.emit") == "1"
    (measured,) = served.decided(Performance)
    assert measured.kind == "measured" and measured.window_end == parse_moment(SCORED_TO) and measured.rows > 300
    decision = served.store.decision(measured.id)
    assert decision is not None and decision.outcome == "retrain" and decision.run, decision
    claim = served.store.get(measured.id)
    assert claim is not None and claim.state == "submitted"
    (run,) = served.runs.list()
    assert (run.id, run.name, run.cause) == (claim.run_id, f"retraining-{measured.id}", measured.id)
    given = {"usecase": USECASE, "environment": "dev", "cause": measured.id, "as_of": LABELLED, "champion": served.release}
    assert dict(run.parameters).items() >= given.items()


def test_every_decision_of_the_trigger_is_a_record(served: Served) -> None:
    program = (
        "import json; from components.contracts.records import RecordStore;"
        f"print(json.dumps({{r.lineage.cause: r.outcome for r in RecordStore('{DATA}/live/records').list('retrain_decision')}}))"
    )
    made = served.installation
    said = made.kube.run_in(made.namespace, "reader", ["python", "-c", program])
    decided = {each.id: served.store.decision(each.id) for each in served.store.events()}
    assert json.loads(said) == {id: decision.outcome for id, decision in decided.items() if decision is not None}
    assert all(decided.values()) and set(json.loads(said).values()) == {"wait_for_labels", "retrain"}
