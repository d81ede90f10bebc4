"""The Kubernetes store at the moments that its conformance does not reach: between two calls, beside another use case, when the API refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.monitoring.retrain_trigger import check_service
from components.monitoring.retrain_trigger.claims import StoreUnavailable
from components.monitoring.retrain_trigger.effective_run import claim_effective
from components.monitoring.retrain_trigger.kubernetes_objects import connect
from components.monitoring.retrain_trigger.kubernetes_store import MOST_EVENT_BYTES, KubernetesStore
from components.monitoring.retrain_trigger.stores import open_store
from components.monitoring.tests.fake_kubernetes_api import FakeKubernetesApi
from components.monitoring.tests.test_retrain_trigger_service import Service, free_port
from components.monitoring.tests.test_retrain_trigger_service import performance as payload
from components.monitoring.tests.trigger_on_kubernetes_conformance import TriggerOnKubernetesConformance, retraining_pipeline
from components.monitoring.tests.trigger_store_conformance import DAY, START, alert, decision, intent, performance, refuse
from tests.kfp_recording_server import RecordingKfp

pytestmark = pytest.mark.pipeline

URI = "kubernetes:///crispline/claims"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetesApi]:
    with FakeKubernetesApi() as fake:
        monkeypatch.setenv("KUBECONFIG", str(fake.kubeconfig(tmp_path)))
        yield fake


def store(usecase: str = "flights", **options: Any) -> KubernetesStore:
    return KubernetesStore(connect(), "crispline", "claims", usecase, **options)


def once_at(api: FakeKubernetesApi, method: str, plural: str, act: Callable[[], Any]) -> None:
    """Do something right before the next request of that kind is answered."""

    def look(asked: str, place: str, body: Any) -> None:
        if asked == method and place.split("/")[1] == plural:
            api.before = None
            act()

    api.before = look


def test_a_decision_that_another_one_overtook_is_made_again_with_it(api: FakeKubernetesApi) -> None:
    slow, quick = store(), store()
    once_at(api, "PUT", "retrainledgers", lambda: quick.decide_once("b", lambda _: decision("b")))
    histories: list[list[str]] = []

    def decide(history: list[Any]) -> Any:
        histories.append([one.cause for one in history])
        return decision("a", outcome="nothing" if history else "retrain", run=not history)

    assert slow.decide_once("a", decide).outcome == "nothing"
    assert histories == [[], ["b"]]
    assert quick.count() == {"events": 0, "unhandled": 0, "unfinished_claims": 0, "decision_nothing": 1, "decision_retrain": 1}


def test_a_decision_whose_maker_died_before_it_was_copied_counts(api: FakeKubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    dying, other = store(), store()
    dying.receive(performance("a"), START)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(dying, "_copy", die)
        dying.decide_once("a", lambda _: decision("a"))
    assert other.decision("a") is None  # it stands in the ledger alone
    seen: list[str] = []
    other.decide_once("b", lambda history: seen.extend(one.cause for one in history) or decision("b", outcome="nothing", run=False))  # type: ignore[func-returns-value]
    assert seen == ["a"]
    assert other.decide_once("a", refuse) == decision("a")


def test_a_change_in_between_is_not_lost(api: FakeKubernetesApi) -> None:
    """A run binds itself while the replica that started it renews its lease."""
    one, two = store(), store()
    one.claim(intent(), "a")
    once_at(api, "PUT", "retraincauses", lambda: two.bind("cause", "run-1", "flights"))
    claim, mine = one.claim(intent(), "a")
    assert (claim.run_id, claim.state, mine) == ("run-1", "submitted", False)
    assert one.get("cause") == claim


def test_an_event_that_two_replicas_get_is_there_when_either_acknowledges(api: FakeKubernetesApi) -> None:
    one, two = store(), store()
    once_at(api, "POST", "retraincauses", lambda: two.receive(alert("a"), START))
    assert one.receive(alert("a"), START) is False
    assert [event.id for event in one.unhandled()] == ["a"]


def test_use_cases_and_prefixes_do_not_see_each_other(api: FakeKubernetesApi) -> None:
    flights, taxis, elsewhere = store(), store("taxis"), KubernetesStore(connect(), "crispline", "other", "flights")
    flights.receive(alert("a"), START)
    flights.decide_once("a", lambda _: decision("a"))
    flights.bind("manual-1", "run-1", "flights")
    for other in (taxis, elsewhere):
        assert other.events() == other.unfinished() == []
        assert other.decision("a") is None
        assert other.bind("manual-1", "run-2", other.usecase).run_id == "run-2"
    with pytest.raises(CrisplineError, match="'taxis'"):
        flights.bind("manual-2", "run", "taxis")


def test_measured_performance_is_kept_however_old(api: FakeKubernetesApi) -> None:
    """A decision counts all windows that were ever measured."""
    kept = store(kept_events=1, forget_every=4)
    for number in range(4):
        event = performance(f"p{number}")
        kept.receive(event if number % 2 else event.model_copy(update={"kind": "estimated"}), START + number * DAY)
        kept.decide_once(f"p{number}", lambda _, number=number: decision(f"p{number}", START + number * DAY, "nothing", False))  # type: ignore[misc]
        kept.handled(f"p{number}")
    assert [one.id for one in kept.events()] == ["p1", "p2", "p3"]  # of the estimates p0 and p2 the newer one
    assert kept.receive(performance("p0").model_copy(update={"kind": "estimated"}), START) is False
    assert kept.receive(performance("p9"), START) is True


def test_the_newest_events_and_every_retraining_are_kept_and_what_was_deleted_is_not_decided_again(api: FakeKubernetesApi) -> None:
    kept = store(kept_events=3, forget_every=8)
    for day in range(8):
        kept.receive(alert(f"a{day}"), START + day * DAY)
        outcome = "retrain" if day == 1 else "nothing"
        kept.decide_once(f"a{day}", lambda _, day=day, outcome=outcome: decision(f"a{day}", START + day * DAY, outcome, False))  # type: ignore[misc]
        if day != 2:
            kept.handled(f"a{day}")
    kept.receive(performance("p"), START)
    assert [one.id for one in kept.events() if one.id != "p"] == ["a1", "a2", "a4", "a5", "a6", "a7"]  # a7 was not yet handled when the surplus went
    assert kept.receive(alert("a0"), START) is False  # deleted
    assert kept.receive(alert("a3"), START + 3 * DAY) is False
    assert [one.id for one in kept.unhandled()] == ["p", "a2"]  # the horizon is the alerts' own
    assert kept.receive(alert("new"), START + 3 * DAY + timedelta(seconds=1)) is True


def test_lists_are_read_page_by_page(api: FakeKubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.monitoring.retrain_trigger.kubernetes_objects._PAGE", 2)
    many = store()
    for number in range(5):
        many.receive(alert(f"a{number}"), START)
    assert len(many.events()) == 5
    assert many.count()["events"] == 5


def test_a_run_asks_the_store_that_its_platform_names(api: FakeKubernetesApi, tmp_path: Path) -> None:
    platform = Platform.embedded(tmp_path).model_copy(update={"claims_uri": URI})
    store().claim(intent(), "a")
    assert claim_effective(platform, "cause", "run-2", "flights") == "effective"
    assert claim_effective(platform, "cause", "run-1", "flights") == "duplicate"
    assert claim_effective(platform, "cause", "run-2", "flights") == "effective"
    (record,) = RecordStore(platform.records_uri).list("run")
    assert (record.lineage.run, record.usecase, record.event_time) == ("run-1", "flights", START)


@pytest.mark.parametrize(
    ("uri", "usecase", "message"),
    [
        ("kubernetes:///claims", "flights", "write kubernetes:///<namespace>/<prefix>"),
        ("kubernetes:///crispline/Claims", "flights", "lower-case"),
        ("kubernetes:///crispline/a/b", "flights", "write kubernetes:///<namespace>/<prefix>"),
        (URI, "", "no name of one"),
        (URI, "a" * 64, "63 characters"),
        ("kubernetes:////claims", "flights", "this is no pod"),
    ],
)
def test_a_uri_that_names_no_store_is_refused(api: FakeKubernetesApi, uri: str, usecase: str, message: str) -> None:
    with pytest.raises(CrisplineError, match=message):
        open_store(uri, usecase)


def test_no_cluster_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(CrisplineError, match="no access to a Kubernetes API"):
        open_store(URI, "flights")


def test_an_api_that_cannot_keep_an_event_now_is_told_apart_from_an_event_that_cannot_be_kept(api: FakeKubernetesApi) -> None:
    kept = store()
    for status, remedy in ((500, "500"), (429, "429"), (401, "token"), (403, "Role of charts/retrain-trigger")):
        api.failures = [status]
        with pytest.raises(StoreUnavailable, match=remedy):
            kept.receive(alert("a"), START)
    with pytest.raises(CrisplineError, match=str(MOST_EVENT_BYTES)) as refused:
        kept.receive(alert("a", effect="x" * MOST_EVENT_BYTES), START)
    assert not isinstance(refused.value, StoreUnavailable)
    assert kept.events() == []


def test_a_cluster_without_the_kinds_is_told_apart_from_an_object_that_is_not_there(api: FakeKubernetesApi) -> None:
    api.failures = [404]
    with pytest.raises(StoreUnavailable, match="retrain-trigger/crds"):
        store().get("cause")
    assert store().get("cause") is None


def test_an_api_that_is_away_is_said(api: FakeKubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(file.read_text().replace(f":{api._server.server_address[1]}", ":9"))
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store().count()


def test_what_is_stored_tells_a_person(api: FakeKubernetesApi) -> None:
    kept = store()
    kept.receive(alert("a"), START)
    kept.decide_once("a", lambda _: decision("a"))
    kept.claim(intent("a"), "trigger-0")
    (cause,) = [one for (_, plural, _), one in api.objects.items() if plural == "retraincauses"]
    assert cause["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "crispline",
        "crispline.io/claims": "claims",
        "crispline.io/usecase": "flights",
        "crispline.io/event": "Alert",
        "crispline.io/handled": "false",
        "crispline.io/decision": "retrain",
        "crispline.io/claim": "claimed",
    }
    assert (cause["spec"]["decision"]["reason"], cause["spec"]["claim"]["owner"]) == ("Why a.", "trigger-0")
    assert json.loads(cause["spec"]["event"]["body"])["effect"] == alert("a").effect


class TestReplicas(TriggerOnKubernetesConformance):
    """On the fake API; tests/cluster has the real one."""

    @pytest.fixture
    def claims_uri(self, api: FakeKubernetesApi) -> str:  # noqa: ARG002  KUBECONFIG leads to it
        return URI


@pytest.fixture
def kfp() -> Iterator[RecordingKfp]:
    with RecordingKfp() as server:
        server.add_version("flights-dev-retraining", retraining_pipeline())
        yield server


@pytest.fixture
def serve(api: FakeKubernetesApi, kfp: RecordingKfp, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """The command as the chart starts it: no state folder, claims in Kubernetes, runs in Kubeflow Pipelines."""
    platform = Platform.embedded(tmp_path).model_copy(update={"claims_uri": URI, "pipelines_url": kfp.url})
    (tmp_path / "platform.json").write_text(platform.model_dump_json())
    started: list[Service] = []

    def begin(*arguments: str) -> Service:
        port = free_port()
        command = ["-m", "components.monitoring.retrain_trigger", "--usecase", "flights", "--port", str(port), "--poll-seconds", "0.1", *arguments]
        started.append(Service(command, port, {"CRISPLINE_PLATFORM": str(tmp_path / "platform.json")}))
        return started[-1]

    yield begin
    for service in started:
        service.stop()


def events(service: Service, *values: float) -> list[int]:
    return [service.post(payload(week, value)).status_code for week, value in enumerate(values)]


def test_the_command_starts_runs_in_kubeflow_pipelines_and_needs_no_state_folder(serve: Callable[..., Service], kfp: RecordingKfp) -> None:
    service = serve("--replica", "trigger-0")
    assert events(service, 0.72, 0.72, 0.5) == [202] * 3
    assert service.decision("week-2")["outcome"] == "retrain"
    service.until(lambda: service.client.get("/healthz").json()["unhandled"] == 0)
    run = kfp.run("retraining-week-2")
    assert run["runtime_config"]["parameters"] == {
        "usecase": "flights",
        "as_of": "2013-06-16T00:00:00Z",
        "training_start": "2013-03-18T00:00:00Z",
        "environment": "dev",
        "cause": "week-2",
        "data_version": "",
        "champion": "",
    }
    assert not kfp.violations
    metrics = service.client.get("/metrics").text
    assert "crispline_trigger_decision_page 0\n" in metrics
    assert "crispline_trigger_unfinished_claims 1\n" in metrics


def test_a_suspended_trigger_keeps_events_and_an_awake_one_makes_up_for_it(serve: Callable[..., Service], kfp: RecordingKfp) -> None:
    suspended = serve("--suspend")
    assert events(suspended, 0.72, 0.72, 0.5) == [202] * 3
    health = suspended.client.get("/healthz").json()
    assert (health["status"], health["unhandled"]) == ("suspended", 3)
    assert "crispline_trigger_suspended 1\n" in suspended.client.get("/metrics").text
    suspended.stop()
    awake = serve("--run-mode", "dry_run")
    awake.until(lambda: awake.client.get("/healthz").json()["unhandled"] == 0)
    assert awake.decision("week-2")["run"] is False
    assert kfp.store.runs == []


def test_an_event_that_cannot_be_kept_now_is_not_acknowledged(serve: Callable[..., Service], api: FakeKubernetesApi) -> None:
    service = serve("--suspend", "--poll-seconds", "60")
    api.failures = [500]
    refused = service.post(payload(0, 0.72))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "cannot get retrainledgers" in refused.json()["error"]
    assert service.post(payload(0, 0.72)).json() == {"id": "week-0", "duplicate": False}
    api.failures = [403] * 5  # the worker asks, too
    assert service.client.get("/healthz").status_code == 503
    api.failures = [500]
    assert service.client.get("/livez").status_code == 200  # says nothing of others
    api.failures = []
    too_long = service.post(payload(0, 0.72) | {"id": "x" * 200})
    assert too_long.status_code == 422
    assert "takes 1 to" in too_long.json()["error"]


def test_the_check_of_a_service_passes_and_says_what_is_wrong(serve: Callable[..., Service], capsys: pytest.CaptureFixture[str]) -> None:
    service = serve()
    url = str(service.client.base_url)
    assert check_service.main(["--url", url, "--usecase", "flights", "--id", "check-1"]) == 0
    assert "refuses a bad event" in capsys.readouterr().out
    assert service.decision("check-1")["outcome"] == "nothing"
    assert check_service.main(["--url", url, "--usecase", "taxis", "--id", "check-2"]) == 1
    assert "decides for taxis" in capsys.readouterr().err
    assert check_service.main(["--url", "http://127.0.0.1:9", "--usecase", "flights", "--id", "check-3"]) == 1


def test_the_command_says_at_its_start_what_it_misses(api: FakeKubernetesApi, tmp_path: Path) -> None:
    def ended(platform: Platform, **failing: int) -> str:
        api.failures = list(failing.values())
        (tmp_path / "platform.json").write_text(platform.model_dump_json())
        command = [sys.executable, "-m", "components.monitoring.retrain_trigger", "--usecase", "flights", "--port", "1"]
        environment = {**os.environ, "CRISPLINE_PLATFORM": str(tmp_path / "platform.json")}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == 1, done.stderr
        return done.stderr

    platform = Platform.embedded(tmp_path).model_copy(update={"claims_uri": URI, "pipelines_url": "http://127.0.0.1:9"})
    assert "retrain-trigger/crds" in ended(platform, kinds=404)
    assert "Role of charts/retrain-trigger" in ended(platform, role=403)
    assert "no place for runs" in ended(platform.model_copy(update={"pipelines_url": ""}))
