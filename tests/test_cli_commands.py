"""The command line as a person meets it: help with examples, exit codes, refusals without stack traces, output for pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.contracts.platform import Platform
from pipelines.runners.runs import RunStore

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "validate",
    "step",
    "status",
    "serve",
    "doctor",
    "ui",
    "promote",
    "rollback",
    "submit",
    "schedule",
    "check-releases",
    "replay",
    "init",
    "run data",
    "run training",
    "run retraining",
    "run batch-scoring",
    "run monitoring",
)


def crispline(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments], capture_output=True, text=True, cwd=folder, env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_has_an_example(command: str) -> None:
    said = crispline(*command.split(), "--help")
    assert said.returncode == 0
    assert f"crispline {command}" in said.stdout.split("Example", 1)[1]


def test_the_example_is_valid_and_said_so_on_stdout_in_under_two_cpu_seconds() -> None:
    before = os.times()
    said = crispline("validate", "usecases/flights")
    after = os.times()
    assert said.returncode == 0
    assert said.stdout.startswith("✓ flights: ")
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2


def test_a_breach_is_told_with_file_line_key_and_remedy_and_exit_code_2(tmp_path: Path) -> None:
    folder = tmp_path / "flights"
    folder.mkdir()
    for name in ("usecase.yaml", "features.py"):
        (folder / name).write_text((ROOT / "usecases" / "flights" / name).read_text())
    file = folder / "usecase.yaml"
    lines = file.read_text().splitlines()
    number = next(index for index, line in enumerate(lines) if line.startswith("model:"))
    file.write_text("\n".join(lines).replace("\nmodel:", "\nmodle:"))
    said = crispline("validate", str(folder))
    assert said.returncode == 2
    assert said.stdout == ""
    assert f"{file}:{number + 1}: modle: the key is unknown" in said.stderr
    assert "remedy: did you mean `model`?" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "training", "--as-of", "yesterday"), "'yesterday' is no moment; write 2013-04-01 or"),
        (("run", "training", "--as-of", "2013-04-01T00:00:00"), "has no time zone"),
        (("run", "training", "--as-of", "2013-04-01", "--usecase", "trains"), "there is no use case 'trains'"),
        (("step", "understanding.profile", "-p", "colour"), "'colour' is no <name>=<value>"),
        (("promote", "--from", "staging"), "--from one environment --to another"),
        (("promote", "--from", "dev", "--to", "staging", "--env", "prod"), "--from one environment --to another"),
        (("promote", "--env", "dev"), "name what is promoted"),
        (("promote", "--release", "4f1c", "--canary", "--as-of", "2013-07-01"), "belong to a promotion --from"),
        (("promote", "--release", "4f1c"), "--as-of is missing"),
        (("rollback", "--reason", "why"), "--as-of is missing"),
        (("init",), "say what to set"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_exit_code_2_and_no_stack_trace(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    said = crispline(*arguments, folder=tmp_path)
    assert said.returncode == 2
    assert message in said.stderr
    assert "Traceback" not in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_status_of_no_state_folder_says_what_to_do(tmp_path: Path) -> None:
    said = crispline("status", "--state", str(tmp_path))
    assert said.returncode == 1
    assert "name one with --state" in said.stderr


def test_status_tells_runs_for_a_person_and_as_json(tmp_path: Path) -> None:
    (tmp_path / "platform.json").write_text(Platform.embedded(tmp_path).model_dump_json())
    run = RunStore(tmp_path).add("retrain-abc", "retraining", {"usecase": "flights"}, "abc")
    told = crispline("status", "--state", str(tmp_path))
    assert told.returncode == 0
    assert run.id in told.stdout
    assert "no release yet" in told.stdout
    plain = json.loads(crispline("status", "--state", str(tmp_path), "--json").stdout)
    assert plain["runs"][0]["state"] == "pending"
    assert plain["champions"] == {}


def test_doctor_says_what_it_found() -> None:
    said = crispline("doctor")
    assert "Python" in said.stdout
    assert "environment pipeline" in said.stdout
    assert said.returncode == (1 if "✗" in said.stdout else 0)


def test_step_without_a_name_lists_the_steps_of_its_component(tmp_path: Path) -> None:
    said = crispline("step", "understanding", folder=tmp_path)
    assert said.returncode == 2
    assert "understanding.profile" in said.stderr


def test_step_says_which_artifacts_it_still_needs(tmp_path: Path) -> None:
    said = crispline("step", "understanding.profile", "-i", "dataset=there.parquet", folder=tmp_path)
    assert said.returncode == 2
    assert "still needs -i manifest=<path>" in said.stderr


@pytest.mark.ml_test("infrastructure-5")
def test_a_failed_run_ends_with_exit_code_5_the_steps_traceback_and_nothing_of_ours(tmp_path: Path) -> None:
    said = crispline("run", "training", "--as-of", "2013-04-01", folder=tmp_path)
    assert said.returncode == 5
    assert "step resolve_data_version failed; log: " in said.stderr
    assert said.stderr.count("Traceback") == 1
    assert "kfp/local" not in said.stderr
    assert [each.run.state for each in RunStore(tmp_path / ".crispline" / "default").list()] == ["failed"]


def test_ctrl_c_ends_a_run_its_steps_and_its_servers(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "run", "data", "--start", "2013-01-01", "--end", "2013-01-03", "--state", str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell's background job ignores it, and so would this process, started there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    while "ingest: started" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in said
    deadline = time.monotonic() + 60
    while _processes_on(tmp_path / "state") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _processes_on(tmp_path / "state") == []
    assert [each.error for each in RunStore(tmp_path / "state").list()] == ["interrupted"]


def _processes_on(state: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(state).encode() in words:
            found.append(process.name)
    return found
