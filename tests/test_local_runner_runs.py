"""The run store and its host: a run survives its submitter, a crash is taken up again, an owned host ends with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp import compiler

from components.contracts.errors import CrisplineError
from pipelines.runners.environments import interpreter
from pipelines.runners.run_host import owned_host
from pipelines.runners.runs import MOST_ATTEMPTS, RunStore, host_lock, local_runs

sys.path.insert(0, str(Path(__file__).parent))
import local_runner_toys as toys

pytestmark = pytest.mark.pipeline


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    _end_hosts(tmp_path / "state")


def _hosts(state: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"pipelines.runners.run_host" in command and str(state.resolve()).encode() in command:
            found.append(int(process.name))
    return found


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def _end_hosts(state: Path) -> None:
    for pid in _hosts(state):
        os.kill(pid, signal.SIGKILL)


def _wait_until(happened: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():  # type: ignore[operator]
            return
        time.sleep(0.05)
    pytest.fail(f"did not happen within {seconds} s")


def _compiled(name: str, folder: Path) -> str:
    compiler.Compiler().compile(getattr(toys, name), str(folder / f"{name}.yaml"))
    return str(folder / f"{name}.yaml")


def test_a_submitted_run_is_durable_and_found_by_name_before_it_has_done_anything(state: Path) -> None:
    store = RunStore(state)
    run = store.add("retrain-abc", "retraining", {"usecase": "flights"}, "abc")
    assert run.state == "pending"
    again = RunStore(state)
    assert again.find("retrain-abc") == run
    assert again.find("retrain-xyz") is None
    assert [each.run for each in again.list(cause="abc")] == [run]
    assert again.list(pipeline="training") == []
    with pytest.raises(CrisplineError, match="there is no run nothing"):
        again.details("nothing")


def test_of_two_runs_of_one_name_the_first_is_found(state: Path) -> None:
    store = RunStore(state)
    first = store.add("retrain-abc", "retraining", {}, "abc")
    second = store.add("retrain-abc", "retraining", {}, "abc")
    assert first.id != second.id
    assert store.find("retrain-abc") == first


def test_a_run_that_keeps_killing_its_host_is_given_up(state: Path) -> None:
    store = RunStore(state)
    run = store.add("broken", "training", {}, "cause")
    for _ in range(MOST_ATTEMPTS):
        assert store.take() is not None
        store.take_up()
    assert store.take() is None
    assert store.details(run.id).run.state == "failed"


def test_a_run_survives_the_death_of_its_submitter_which_need_not_know_kfp(tmp_path: Path, state: Path) -> None:
    pipeline = _compiled("toy", tmp_path)
    code = (
        "import sys; from pathlib import Path; from pipelines.runners.runs import local_runs\n"
        "run = local_runs(Path(sys.argv[1])).submit('toy-1', sys.argv[2], {'usecase': 'flights', 'limit': '10', 'counter': sys.argv[3]}, 'cause')\n"
        "print(run.id, run.state, 'kfp' in sys.modules)"
    )
    said = subprocess.run(
        [str(interpreter("monitoring")), "-c", code, str(state), pipeline, str(tmp_path / "counter")], capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[1:] == ["pending", "False"]
    ended = local_runs(state).wait(said[0], timeout=60)
    assert ended.run.state == "succeeded", ended.error
    assert ended.result["outputs"]["count_up"] == "1"


def test_a_failed_run_tells_the_steps_traceback(tmp_path: Path, state: Path) -> None:
    with owned_host(state):
        runs = local_runs(state)
        run = runs.submit(
            "fragile", _compiled("fragile", tmp_path), {"counter": str(tmp_path / "c"), "effects": str(tmp_path / "e"), "needs": "/nowhere"}, "cause"
        )
        ended = runs.wait(run.id, timeout=60)
    assert ended.run.state == "failed"
    assert ended.error.endswith("FileNotFoundError: /nowhere is needed")


def test_a_run_whose_host_was_killed_is_taken_up_by_the_next_one(tmp_path: Path, state: Path) -> None:
    runs = local_runs(state)
    run = runs.submit("slow", _compiled("slow", tmp_path), {"counter": str(tmp_path / "counter"), "gate": str(tmp_path / "gate")}, "cause")
    _wait_until(lambda: (tmp_path / "gate.waiting").exists())
    _end_hosts(state)
    _wait_until(lambda: not _hosts(state))
    (tmp_path / "gate").touch()
    ended = runs.wait(run.id, timeout=60)
    assert ended.run.state == "succeeded", ended.error
    assert ended.attempts == 2
    assert (tmp_path / "counter").read_text() == "1", "the first step came from the cache"


def test_an_owned_host_ends_with_its_block_and_leaves_nothing_running(tmp_path: Path, state: Path) -> None:
    with owned_host(state):
        runs = local_runs(state)
        runs.submit("slow", _compiled("slow", tmp_path), {"counter": str(tmp_path / "counter"), "gate": str(tmp_path / "gate")}, "cause")
        _wait_until(lambda: (tmp_path / "gate.waiting").exists())
        step = int((tmp_path / "gate.waiting").read_text())
    assert _hosts(state) == []
    _wait_until(lambda: not _alive(step), 10)
    lock = host_lock(state)
    assert lock is not None
    os.close(lock)
