"""The clock that dies on order: precisely at its step, once, and never beside real phones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.clock import SystemClock
from runtime.crash_points import DONE, VARIABLE, CrashClock, clock_of
from runtime.settings import Settings, SettingsError, read_settings
from schemas.steps import Step

TIMEOUT_S = 20.0
PROGRAM = """
import sys
from pathlib import Path
from runtime.crash_points import CrashClock
from schemas.steps import Step
clock = CrashClock(Path(sys.argv[1]))
for step in (Step.COMMIT_SENDING, Step.COMMIT_SENT, Step.COMMIT_ANSWERED):
    clock.passing(step)
    print(step.value, flush=True)
"""


def started(orders: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(orders)], stdout=subprocess.PIPE, text=True)


def test_a_process_dies_precisely_at_the_step_it_was_ordered_to(tmp_path: Path) -> None:
    """What comes before was done, nothing behind it; the order is taken, with the pid of who took it."""
    (tmp_path / Step.COMMIT_SENT).write_text("kill")
    process = started(tmp_path)
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, said.split()) == (-signal.SIGKILL, ["commit_sending"])
    assert not (tmp_path / Step.COMMIT_SENT).exists()
    assert [path.name.split("-")[:2] for path in (tmp_path / DONE).iterdir()] == [["commit_sent", str(process.pid)]]


def test_an_order_is_carried_out_once(tmp_path: Path) -> None:
    """The next process that passes the step goes on."""
    (tmp_path / Step.COMMIT_SENT).write_text("kill")
    started(tmp_path).communicate(timeout=TIMEOUT_S)
    after = started(tmp_path)
    said, _ = after.communicate(timeout=TIMEOUT_S)
    assert (after.returncode, len(said.split())) == (0, 3)


def test_a_paused_process_goes_on_behind_its_step_when_it_is_woken(tmp_path: Path) -> None:
    """SIGSTOP at the step, SIGCONT from outside: a zombie."""
    (tmp_path / Step.COMMIT_SENT).write_text("stop")
    process = started(tmp_path)
    deadline = time.monotonic() + TIMEOUT_S
    while os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline, "it did not stop"
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, said.split()) == (0, ["commit_sending", "commit_sent", "commit_answered"])


def test_production_has_no_such_clock() -> None:
    """Without the variable it is the plain one."""
    assert type(clock_of({}, Settings())) is SystemClock


def test_it_is_refused_beside_real_phones(tmp_path: Path) -> None:
    """The process does not start with it; on loopback it does."""
    settings = read_settings({VARIABLE: str(tmp_path)})
    assert type(clock_of({VARIABLE: str(tmp_path)}, settings)) is CrashClock
    with pytest.raises(SettingsError, match=VARIABLE):
        clock_of({VARIABLE: str(tmp_path)}, replace(settings, dial_real_phones="yes"))
