"""The words of the supervisor: a process as it shall run, what can be told of it, and why it did not become ready."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

PREDICATE_TIMEOUT_S: Final = 5.0
LOG_BYTES_MAX: Final = 32 * 1024 * 1024
TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 16_384

REAL_TIME: Final = -10
"""Niceness of what carries sound: a packet that waits 100 ms for a processor is a hole in a word."""
RELAY: Final = -15
"""Niceness of what sound goes through: everybody's packets wait for it, and it has little to do for each."""
BACKGROUND: Final = 5
"""Niceness of what nobody waits for."""

Predicate = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process: how it starts, when it is ready, how it ends. `env` is the whole environment, not an addition.

    `niceness`: as nice(1) has it; one below 0 counts where we may set it.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    ready: Predicate | None = None
    ready_timeout_s: float = 30.0
    restart: bool = True
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    niceness: int = 0


class What(StrEnum):
    """What can be told of a process."""

    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    EXITED = "exited"
    RESTARTING = "restarting"
    GAVE_UP = "gave_up"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEvent:
    """One change of one process. `took_s`: since it was started or asked to stop. `returncode`: negative for a signal."""

    name: str
    what: What
    at: float
    pid: int
    restarts: int
    took_s: float = 0.0
    returncode: int | None = None


class NotReady(Exception):
    """A process did not become ready; the text has the tail of its log."""


def log_tail(path: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log, indented; a note when there are none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except OSError:
        text = ""
    tail = text.splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in tail) or "    (it wrote nothing)"


def open_log(path: Path) -> IO[bytes]:
    """Open a log to append to; one that has grown too long is put aside first (`.log.1`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


async def holds(predicate: Predicate) -> bool:
    """Ask a predicate, which may hang on a half-open port: no answer in time is a no."""
    try:
        async with asyncio.timeout(PREDICATE_TIMEOUT_S):
            return await predicate()
    except TimeoutError:
        return False
