"""The threads that carry sound are found among all, and scheduled in real time where that is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal import real_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have a scheduler of their own on Linux only")

SPEAKING = """
import ctypes, threading, time
def speak():
    ctypes.CDLL(None).prctl(15, b"AudioEncoderQueue", 0, 0, 0)  # PR_SET_NAME, as libwebrtc does
    print(threading.get_native_id(), flush=True)
    time.sleep(60)
threading.Thread(target=speak, daemon=True).start()
time.sleep(60)
"""


@pytest.fixture
def speaking(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A process in a session of its own, one of whose two threads carries sound: (pid, thread)."""
    command = [sys.executable, "-c", textwrap.dedent(SPEAKING)]
    (tmp_path / "pids").mkdir()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    yield process.pid, int(process.stdout.readline())
    process.kill()
    process.communicate()


def _named(run_dir: Path, name: str, pid: int) -> None:
    (run_dir / "pids" / f"{name}.pid").write_text(f"{pid}\n")


def test_of_a_carrier_only_the_threads_that_carry_sound_are_named(tmp_path: Path, speaking: tuple[int, int]) -> None:
    """Python's own thread works in bursts and waits its turn; a process without a pid file is nobody's."""
    pid, thread = speaking
    assert list(real_time.threads(tmp_path)) == []
    _named(tmp_path, "carrier", pid)
    assert list(real_time.threads(tmp_path)) == [(thread, real_time.SOUND_PRIORITY)]


def test_of_the_relay_every_thread_is_named(tmp_path: Path, speaking: tuple[int, int]) -> None:
    """livekit-server does nothing else, and its bursts stand behind the threads that have deadlines."""
    _named(tmp_path, "livekit", speaking[0])
    assert sorted(real_time.threads(tmp_path)) == [(thread, real_time.RELAY_PRIORITY) for thread in sorted(speaking)]


def test_sound_is_scheduled_in_real_time_or_refused_by_the_kernel(tmp_path: Path, speaking: tuple[int, int]) -> None:
    """The main thread stays as it is."""
    pid, thread = speaking
    _named(tmp_path, "agent", pid)
    try:
        real_time.hasten(tmp_path)
    except PermissionError:
        assert os.sched_getscheduler(thread) == os.SCHED_OTHER
    else:
        assert os.sched_getscheduler(thread) == os.SCHED_RR
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
