"""The spool on a real disk."""

from concurrent.futures import wait
from pathlib import Path

import pytest

from components.monitoring.spool import Spool, SpooledEvent

pytestmark = pytest.mark.monitoring


def event(number: int) -> SpooledEvent:
    return SpooledEvent(id=str(number), type="response", time="", request_id="r", predictor="default", body=b"\x00\xff\n" + str(number).encode())


def test_events_are_on_disk_when_the_future_is_done(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    wait([spool.append(event(number)) for number in range(200)])
    assert spool.pending == 200
    (segment,) = spool.seal()
    assert list(spool.read(segment)) == [event(number) for number in range(200)]
    spool.remove(segment)
    assert spool.pending == 0
    spool.close()


def test_what_an_ended_process_left_is_found_and_a_torn_line_is_not(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.append(event(1)).result()
    first.close()
    (segment,) = tmp_path.glob("segment-*")
    segment.write_bytes(segment.read_bytes() + event(2).line()[:30])
    second = Spool(tmp_path)
    assert second.pending == 1
    second.append(event(3)).result()
    assert [event.id for segment in second.seal() for event in second.read(segment)] == ["1", "3"]
    second.close()


def test_a_disk_that_refuses_acknowledges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    spool = Spool(tmp_path)
    spool.append(event(1)).result()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            spool.append(event(2)).result()
    spool.append(event(3)).result()
    (segment,) = spool.seal()
    assert [event.id for event in spool.read(segment)] == ["1", "3"]
    spool.close()
