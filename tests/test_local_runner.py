"""The local runner on small pipelines: environments, cache, failure, resumption, and no process left behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp import compiler

from components.contracts.errors import CrisplineError, StepFailed
from pipelines.runners.local import run_pipeline
from pipelines.runners.step_client import StepServers

sys.path.insert(0, str(Path(__file__).parent))
import local_runner_toys as toys

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("compiled")
    names = ("toy", "fragile", "busy", "sharded")
    for name in names:
        compiler.Compiler().compile(getattr(toys, name), str(folder / f"{name}.yaml"))
    return {name: str(folder / f"{name}.yaml") for name in names}


class Watched:
    """Progress that a test can read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, step: str) -> None:
        self.lines.append(f"{step} started")

    def finished(self, step: str, _seconds: float, cached: bool) -> None:
        self.lines.append(f"{step} {'cached' if cached else 'finished'}")

    def failed(self, step: str, _seconds: float) -> None:
        self.lines.append(f"{step} failed")


@pytest.mark.parametrize("warm", [True, False])
def test_each_step_runs_in_the_environment_of_its_image_and_artifacts_pass_between_them(compiled: dict[str, str], tmp_path: Path, warm: bool) -> None:
    result = run_pipeline(compiled["toy"], {"usecase": "flights", "limit": 10.0, "counter": str(tmp_path / "counter")}, tmp_path / "state", "first", warm=warm)
    assert result.outputs == {"write_numbers": "pipeline", "add_up": "monitoring", "decide": "above", "count_up": "1", "decide_2": "above"}
    assert result.artifacts["add_up"]["total"].read_text() == "45"
    assert (result.artifacts["write_numbers"]["numbers"] / "numbers.txt").exists()
    assert str(tmp_path / "state" / "platform.json") in (tmp_path / "state" / "runs" / "first" / "write_numbers.log").read_text()


@pytest.mark.parametrize("warm", [True, False])
def test_steps_of_a_loop_run_side_by_side_with_files_of_their_own(compiled: dict[str, str], tmp_path: Path, warm: bool) -> None:
    result = run_pipeline(compiled["sharded"], {"folder": str(tmp_path), "count": 3}, tmp_path / "state", "run", warm=warm)
    assert {(tmp_path / f"{part}.txt").read_text().rpartition("/")[2] for part in range(3)} == {"write_part", "write_part-2", "write_part-3"}
    logs = [(tmp_path / "state" / "runs" / "run" / f"{step.name}.log").read_text() for step in result.steps if step.name.startswith("write_part")]
    assert sorted(line for log in logs for line in log.splitlines() if line.startswith("part ")) == ["part 0", "part 1", "part 2"]


def test_a_condition_that_does_not_hold_leaves_its_steps_out(compiled: dict[str, str], tmp_path: Path) -> None:
    result = run_pipeline(compiled["toy"], {"usecase": "flights", "limit": 100.0, "counter": str(tmp_path / "counter")}, tmp_path / "state")
    assert result.outputs["decide"] == "below"
    assert "count_up" not in result.outputs
    assert not (tmp_path / "counter").exists()


def test_a_second_run_takes_steps_from_the_cache_except_those_with_effects_outside(compiled: dict[str, str], tmp_path: Path) -> None:
    parameters = {"usecase": "flights", "limit": 10.0, "counter": str(tmp_path / "counter")}
    run_pipeline(compiled["toy"], parameters, tmp_path / "state")
    watched = Watched()
    again = run_pipeline(compiled["toy"], parameters, tmp_path / "state", progress=watched)
    assert [line for line in watched.lines if not line.endswith("started")] == [
        "write_numbers cached",
        "add_up cached",
        "decide cached",
        "count_up finished",
        "decide_2 cached",
    ]
    assert again.outputs["count_up"] == "2"


def test_a_changed_artifact_is_not_taken_for_the_old_one(compiled: dict[str, str], tmp_path: Path) -> None:
    parameters = {"usecase": "flights", "limit": 10.0, "counter": str(tmp_path / "counter")}
    first = run_pipeline(compiled["toy"], parameters, tmp_path / "state")
    (first.artifacts["write_numbers"]["numbers"] / "numbers.txt").write_text("1\n2")
    again = run_pipeline(compiled["toy"], parameters, tmp_path / "state")
    assert again.outputs["decide"] == "below"


def test_changed_code_is_run_again(compiled: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usecase = tmp_path / "usecases" / "flights"
    usecase.mkdir(parents=True)
    (usecase / "features.py").write_text("FEATURES = ()")
    monkeypatch.setenv("CRISPLINE_USECASES", str(tmp_path / "usecases"))
    parameters = {"usecase": "flights", "limit": 100.0, "counter": str(tmp_path / "counter")}
    run_pipeline(compiled["toy"], parameters, tmp_path / "state")
    (usecase / "features.py").write_text("FEATURES = (1,)")
    watched = Watched()
    run_pipeline(compiled["toy"], parameters, tmp_path / "state", progress=watched)
    assert "write_numbers finished" in watched.lines


@pytest.mark.parametrize("warm", [True, False])
def test_a_failing_step_is_named_with_its_own_traceback_and_the_run_resumes(compiled: dict[str, str], tmp_path: Path, warm: bool) -> None:
    parameters = {"counter": str(tmp_path / "counter"), "effects": str(tmp_path / "effects"), "needs": str(tmp_path / "needed")}
    with pytest.raises(StepFailed) as failure:
        run_pipeline(compiled["fragile"], parameters, tmp_path / "state", "run", warm=warm)
    message = str(failure.value)
    assert "step count_up_3 failed" in message
    assert message.endswith(f"FileNotFoundError: {tmp_path / 'needed'} is needed")
    assert "in count_up" in message
    (tmp_path / "needed").touch()
    result = run_pipeline(compiled["fragile"], parameters, tmp_path / "state", "run", warm=warm)
    assert result.outputs == {"count_up": "1", "count_up_2": "2", "count_up_3": "2"}
    assert (tmp_path / "counter").read_text() == "1"


def test_a_wrong_parameter_is_refused_before_a_step_runs(compiled: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(CrisplineError, match=r"unknown parameters: colour; missing parameters: counter, usecase; it takes counter, limit, usecase"):
        run_pipeline(compiled["toy"], {"colour": "red", "limit": 1.0}, tmp_path / "state")
    with pytest.raises(CrisplineError, match="parameter limit: 'much' is no number_double"):
        run_pipeline(compiled["toy"], {"usecase": "flights", "counter": "c", "limit": "much"}, tmp_path / "state")
    with pytest.raises(CrisplineError, match="there is no pipeline 'trainin'"):
        run_pipeline("trainin", {}, tmp_path / "state")


def test_libraries_work_in_steps_forked_after_their_import(compiled: dict[str, str], tmp_path: Path) -> None:
    servers = StepServers(tmp_path / "servers", {})
    with servers:
        for attempt in ("first", "second"):
            result = run_pipeline(compiled["busy"], {"attempt": attempt}, tmp_path / "state", servers=servers)
            assert result.outputs == {"use_libraries": "done", "use_monitoring_libraries": "done"}
        imports = {step.name: step.imports_seconds for step in result.steps}
    assert all(seconds < 0.1 for seconds in imports.values()), f"the second time nothing is left to import: {imports}"


def test_the_step_servers_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pipelines.runners.step_client import StepServers\n"
        "servers = StepServers(Path(sys.argv[1]), {}); servers.expect('pipeline', [])\n"
        "print(servers._processes['pipeline'].pid, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    server = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 10
    while _alive(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(server)


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
