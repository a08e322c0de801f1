"""Starts the rehearsal's processes in order, restarts what dies, stops them in reverse order.

1. A process counts as started when its readiness predicate says so; the next one starts only then.
2. What dies is restarted with a bounded, growing pause, unless its spec says otherwise; each death is counted.
3. Every process leads a session of its own: Ctrl-C in the terminal reaches the supervisor only. When a process ends,
   what is left of its group is killed with it, as a container's end would.
4. No process outlives the supervisor, also when that one is killed (`orphans.py`). Children are tied to the thread that
   runs the event loop: it must live as long as they shall.

Output goes straight to `<run_dir>/logs/<name>.log` (no pipe in between: nothing is lost when we die), the pid to
`<run_dir>/pids/<name>.pid`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rehearsal import orphans
from rehearsal.process_spec import NotReady, ProcessEvent, ProcessSpec, What, holds, log_tail, open_log

__all__ = ["NotReady", "ProcessEvent", "ProcessSpec", "Supervisor", "What", "log_tail"]

READY_POLL_S: Final = 0.05
BACKOFF_MIN_S: Final = 0.2
BACKOFF_MAX_S: Final = 5.0
STABLE_AFTER_S: Final = 10.0
"""A process that lived this long starts again at the shortest pause."""
UNREADY_STARTS_MAX: Final = 50
"""Restarts in a row that never became ready, after which we give the process up."""
HISTORY_MAX: Final = 1_000
_KILL_TIMEOUT_S: Final = 10.0


class _Supervised:
    """One process over its restarts. Only its own task changes it after the first start."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.process: asyncio.subprocess.Process | None = None
        self.group = 0  # 0 once it is settled: the number may belong to strangers by then
        self.started_at = 0.0
        self.restarts = 0
        self.unready_starts = 0
        self.ready = asyncio.Event()
        self.keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None


class Supervisor:
    """Owns the processes of one run directory. Use it as an async context manager, or call `stop` in a `finally`."""

    def __init__(self, run_dir: Path, on_event: Callable[[ProcessEvent], None] = lambda _: None) -> None:
        self.run_dir = run_dir
        self.history: deque[ProcessEvent] = deque(maxlen=HISTORY_MAX)
        self._on_event = on_event
        self._processes: dict[str, _Supervised] = {}
        self._watcher: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._stop_lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, specs: Sequence[ProcessSpec]) -> None:
        """Start the processes one after the other, each once the one before is ready. May be called again for more.

        Raises: NotReady, with the log's tail; what runs by then is left to `stop`.
        """
        for spec in specs:
            await self._start_one(spec)

    async def stop(self) -> None:
        """Stop everything in reverse order and wait for it. Once done, calling it again does nothing."""
        self._stopping = True
        async with self._stop_lock:
            for entry in reversed(list(self._processes.values())):
                await self._stop_one(entry)
            self._processes.clear()
            if self._watcher is not None:
                assert self._watcher.stdin is not None
                self._watcher.stdin.close()
                await self._watcher.wait()
                self._watcher = None

    def pid(self, name: str) -> int:
        """Return the pid of the running process, 0 between two lives."""
        entry = self._processes[name]
        return entry.pid if entry.running else 0

    def restarts(self, name: str) -> int:
        """Return how often the process was restarted."""
        return self._processes[name].restarts

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the process itself, and return its pid. Raises: ProcessLookupError when it is not running."""
        pid = self.pid(name)
        if not pid:
            raise ProcessLookupError(f"{name} is not running")
        os.kill(pid, number)
        return pid

    async def wait_ready(self, name: str, *, not_pid: int = 0, timeout_s: float = 30.0) -> int:
        """Wait until a process is ready, as another than `not_pid` if given; return its pid. Raises: TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                entry = self._processes[name]
                await entry.ready.wait()
                if entry.running and entry.pid != not_pid:
                    return entry.pid
                await asyncio.sleep(READY_POLL_S)

    async def wait_exit(self, name: str) -> int:
        """Wait for a process that is not restarted to end, and return its return code."""
        entry = self._processes[name]
        assert not entry.spec.restart, f"{name} is restarted: it never ends"
        if entry.keeper is not None:
            await asyncio.wait({entry.keeper})
        assert entry.process is not None
        assert entry.process.returncode is not None
        return entry.process.returncode

    def log_path(self, name: str) -> Path:
        """Return where a process's output goes."""
        return self.run_dir / "logs" / f"{name}.log"

    def _pid_file(self, name: str) -> Path:
        return self.run_dir / "pids" / f"{name}.pid"

    async def _start_one(self, spec: ProcessSpec) -> None:
        if self._stopping:
            raise NotReady(f"{spec.name} was not started: the supervisor is stopping")
        assert spec.name not in self._processes, f"{spec.name} is there already"
        entry = self._processes[spec.name] = _Supervised(spec)
        await self._spawn(entry)
        if not await self._becomes_ready(entry):
            raise NotReady(self._why_not_ready(entry))
        entry.keeper = asyncio.create_task(self._keep(entry), name=f"keep {spec.name}")

    def _why_not_ready(self, entry: _Supervised) -> str:
        spec = entry.spec
        code = entry.process.returncode if entry.process else None
        how = f"is not ready after {spec.ready_timeout_s:g} s" if code is None else f"ended with {code}"
        log = self.log_path(spec.name)
        return f"{spec.name} {how}; the end of {log}:\n{log_tail(log)}"

    async def _spawn(self, entry: _Supervised) -> None:
        spec = entry.spec
        watcher = await self._watching()
        entry.ready.clear()
        entry.started_at = time.monotonic()
        with open_log(self.log_path(spec.name)) as log:
            entry.process = await asyncio.create_subprocess_exec(
                *orphans.exec_argv(os.getpid(), spec.niceness, list(spec.argv)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(spec.env),
                cwd=spec.cwd,
                start_new_session=True,
            )
        entry.group = entry.pid
        watcher.write(f"+{entry.group}\n".encode())
        if self._stopping:
            self._kill_group(entry)
            raise NotReady(f"{spec.name} was not started: the supervisor is stopping")
        pid_file = self._pid_file(spec.name)
        pid_file.parent.mkdir(parents=True, exist_ok=True)
        pid_file.write_text(f"{entry.pid}\n")
        self._tell(entry, What.STARTING)

    async def _watching(self) -> asyncio.StreamWriter:
        if self._watcher is None:
            self._watcher = await asyncio.create_subprocess_exec(
                *orphans.watch_argv(), stdin=asyncio.subprocess.PIPE, start_new_session=True
            )
        assert self._watcher.stdin is not None
        return self._watcher.stdin

    async def _becomes_ready(self, entry: _Supervised) -> bool:
        assert entry.process is not None
        deadline = entry.started_at + entry.spec.ready_timeout_s
        while entry.process.returncode is None:
            if entry.spec.ready is None or await holds(entry.spec.ready):
                entry.ready.set()
                entry.unready_starts = 0
                self._tell(entry, What.READY)
                return True
            if time.monotonic() > deadline:
                self._tell(entry, What.UNREADY)
                return False
            await asyncio.sleep(READY_POLL_S)
        self._ended(entry)
        return False

    async def _keep(self, entry: _Supervised) -> None:
        """Wait for the end of a process that was ready, start it again, and so on until we stop or give up."""
        pause_s = BACKOFF_MIN_S
        while True:
            assert entry.process is not None
            await entry.process.wait()
            if entry.ready.is_set():
                self._ended(entry)
            if self._stopping or not entry.spec.restart:
                return
            if entry.unready_starts >= UNREADY_STARTS_MAX:
                self._tell(entry, What.GAVE_UP)
                return
            lived_s = time.monotonic() - entry.started_at
            pause_s = BACKOFF_MIN_S if lived_s >= STABLE_AFTER_S else pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(BACKOFF_MAX_S, pause_s * 2)
            if self._stopping:
                return
            entry.restarts += 1
            entry.unready_starts += 1
            self._tell(entry, What.RESTARTING)
            await self._spawn(entry)
            if not await self._becomes_ready(entry) and entry.running:
                self._kill_group(entry)
                await entry.process.wait()
                self._ended(entry)

    def _ended(self, entry: _Supervised) -> None:
        """Settle a death once, and tell it."""
        self._settle(entry)
        self._tell(entry, What.EXITED)

    def _settle(self, entry: _Supervised) -> None:
        """End what is left of a dead process's group, and take it from the watcher's list."""
        entry.ready.clear()
        if entry.group:
            self._kill_group(entry)
            if self._watcher is not None and self._watcher.stdin is not None:
                self._watcher.stdin.write(f"-{entry.group}\n".encode())
            entry.group = 0
        self._pid_file(entry.spec.name).unlink(missing_ok=True)

    async def _stop_one(self, entry: _Supervised) -> None:
        asked_at = time.monotonic()
        if entry.keeper is not None:
            entry.keeper.cancel()  # first, so that nothing is started again behind our back
            await asyncio.wait({entry.keeper})
        process = entry.process
        if process is not None and process.returncode is None:
            self._tell(entry, What.STOPPING)
            with suppress(ProcessLookupError):
                process.send_signal(entry.spec.stop_signal)
            if not await _ends_within(process, entry.spec.stop_timeout_s):
                self._kill_group(entry)
                await _ends_within(process, _KILL_TIMEOUT_S)
        self._settle(entry)
        self._tell(entry, What.STOPPED, since=asked_at)

    def _kill_group(self, entry: _Supervised) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(entry.group, signal.SIGKILL)

    def _tell(self, entry: _Supervised, what: What, since: float | None = None) -> None:
        now = time.monotonic()
        event = ProcessEvent(
            name=entry.spec.name,
            what=what,
            at=time.time(),
            pid=entry.pid,
            restarts=entry.restarts,
            took_s=now - (entry.started_at if since is None else since),
            returncode=entry.process.returncode if entry.process else None,
        )
        self.history.append(event)
        self._on_event(event)


async def _ends_within(process: asyncio.subprocess.Process, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError:
        return False
    return True
