"""A supervisor that outlives the terminal: `make up` starts it once, `make down` stops it and nothing else.

A pid alone may belong to a stranger after a crash or a reboot, so `<run_dir>/supervisor.json` keeps the moment of birth
with it (kernel start time and boot id), and both are compared before anything is signalled. Source: proc(5), stat 22.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rehearsal.process_spec import NotReady, log_tail, open_log

STOP_TIMEOUT_S: Final = 60.0
_KILL_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05
_PROGRESS_S: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached:
    """A detached process: its pid and what tells it from a later process of the same pid."""

    pid: int
    birth: str


def start_detached(
    run_dir: Path, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[Detached, bool]:
    """Start `argv` as the run directory's supervisor, in a session of its own; return it, and whether it is new.

    Its output goes to `<run_dir>/logs/supervisor.log`. When one runs already, that one is returned.
    """
    with _locked(run_dir):
        there = running(run_dir)
        if there is not None:
            return there, False
        _ready_file(run_dir).unlink(missing_ok=True)
        with open_log(supervisor_log(run_dir)) as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=cwd, start_new_session=True
            )
        process.returncode = 0  # it is not ours to wait for: no ResourceWarning when this object goes
        started = Detached(pid=process.pid, birth=_birth(process.pid) or "")
        partial = _state_file(run_dir).with_suffix(".partial")
        partial.write_text(json.dumps(asdict(started)))
        partial.replace(_state_file(run_dir))
        return started, True


def stop_detached(run_dir: Path, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Ask the run directory's supervisor to stop (SIGTERM) and wait, kill it after `timeout_s`; False if none ran."""
    with _locked(run_dir):
        there = running(run_dir)
        if there is not None:
            _signal(there, signal.SIGTERM)
            if not _gone_within(there, timeout_s):
                _signal(there, signal.SIGKILL)  # its watcher ends the children (orphans.py)
                _gone_within(there, _KILL_TIMEOUT_S)
        _state_file(run_dir).unlink(missing_ok=True)
        _ready_file(run_dir).unlink(missing_ok=True)
        return there is not None


def is_running(run_dir: Path) -> bool:
    """Tell whether the run directory's supervisor runs."""
    return running(run_dir) is not None


def running(run_dir: Path) -> Detached | None:
    """Return the run directory's supervisor if it runs and is the very process that we started."""
    try:
        found = Detached(**json.loads(_state_file(run_dir).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if _alive(found) else None


def announce_ready(run_dir: Path) -> None:
    """Say, from within the detached supervisor, that everything is up."""
    _ready_file(run_dir).touch()


def await_ready(run_dir: Path, timeout_s: float, on_progress: Callable[[str], None]) -> None:
    """Wait until the detached supervisor has announced itself, with a line at least every 5 s.

    Raises: NotReady when it ends before, or takes longer; with the tail of its log.
    """
    log = supervisor_log(run_dir)
    began = told = time.monotonic()
    while not _ready_file(run_dir).exists():
        now = time.monotonic()
        if not is_running(run_dir):
            raise NotReady(f"the supervisor ended; the end of {log}:\n{log_tail(log)}")
        if now - began > timeout_s:
            raise NotReady(f"not everything is up after {timeout_s:g} s; the end of {log}:\n{log_tail(log)}")
        if now - told >= _PROGRESS_S:
            told = now
            on_progress(f"[{now - began:3.0f} s] {log_tail(log, 1).strip()}")
        time.sleep(_POLL_S)


def supervisor_log(run_dir: Path) -> Path:
    """Return where a detached supervisor writes."""
    return run_dir / "logs" / "supervisor.log"


def _state_file(run_dir: Path) -> Path:
    return run_dir / "supervisor.json"


def _ready_file(run_dir: Path) -> Path:
    return run_dir / "ready"


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Let only one `up` or `down` of this directory act at a time; the kernel frees the lock when we die."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "supervisor.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _birth(pid: int) -> str | None:
    """Return what no two processes share: boot id and start time; None when there is no such living process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _birth_by_ps(pid)
    fields = stat[stat.rindex(")") + 2 :].split()  # the command's name may hold spaces and brackets
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def _birth_by_ps(pid: int) -> str | None:
    """Return the start time where there is no /proc (macOS)."""
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None


def _alive(process: Detached) -> bool:
    # Reaps it when it is our own child: a zombie holds its pid and start time.
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return process.birth != "" and _birth(process.pid) == process.birth


def _signal(process: Detached, number: signal.Signals) -> None:
    if _alive(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _gone_within(process: Detached, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while _alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
