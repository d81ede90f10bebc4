"""One loop, one folder: locked against a second loop, and a folder that is somebody else's is left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError
from pipelines.demo.state_folder import MARKER, Progress, empty, load, owned, save

PROGRESS = Progress(settings={"start": "2013-04-01T00:00:00Z"}, next_day="2013-04-09T00:00:00Z", first_release="r1", requests=8, rows=800, seconds=12.5)


def test_a_second_loop_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with owned(state), pytest.raises(CrisplineError, match=r"another loop runs in .*name another folder with --state"), owned(state):
        pass
    with owned(state):
        pass


def test_a_second_process_is_refused_too(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from pipelines.demo.state_folder import owned\nwith owned(Path(sys.argv[1])): pass"
    with owned(tmp_path / "state") as state:
        other = subprocess.run([sys.executable, "-c", code, str(state)], capture_output=True, text=True)
        assert other.returncode != 0 and "another loop runs in" in other.stderr
    assert subprocess.run([sys.executable, "-c", code, str(state)], capture_output=True, text=True).returncode == 0


def test_a_folder_with_something_else_in_it_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CrisplineError, match="was not made by crispline"), owned(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_starting_over_removes_all_but_the_marker_and_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    with owned(tmp_path / "state") as state:
        (state / "lake" / "table").mkdir(parents=True)
        (state / "report.html").write_text("")
        (state / "link").symlink_to(outside)
        empty(state)
        assert [path.name for path in state.iterdir()] == [MARKER]
    assert (outside / "kept").exists()


def test_progress_is_read_as_it_was_saved(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    save(tmp_path, PROGRESS)
    assert load(tmp_path) == PROGRESS
