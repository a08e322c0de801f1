"""Forked workers: each does one thing in a copy of this process and says one word; none outlives its time."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

MEMORY_MAX_BYTES: Final = 4 << 30
"""A mutant that fills a list for ever ends here, and not the machine."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker does; what it returns goes back as JSON."""

    name: str
    timeout_s: float
    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Done:
    """How it ended: an answer, or None and why there is none."""

    name: str
    answer: Any
    ended: str
    """`answered`, `died` or `timeout`."""


def run(jobs: Iterable[Job], at_once: int) -> Iterator[Done]:
    """Run jobs in forked workers, so many at once; jobs are taken one by one, as late as possible."""
    waiting = iter(jobs)
    running: dict[int, tuple[Job, int, float]] = {}
    while True:
        while len(running) < at_once and (job := next(waiting, None)) is not None:
            pid, pipe = _fork(job)
            running[pipe] = (job, pid, time.monotonic() + job.timeout_s)
        if not running:
            return
        first = min(deadline for _, _, deadline in running.values())
        ready = select.select(list(running), [], [], max(0.0, first - time.monotonic()))[0]
        late = [pipe for pipe, (_, _, deadline) in running.items() if deadline <= time.monotonic()]
        for pipe in {*ready, *late}:
            job, pid, _ = running.pop(pipe)
            yield _gather(job, pid, pipe, timed_out=pipe not in ready)


def _fork(job: Job) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.close(reading)
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.write(writing, json.dumps(job.work()).encode())
        code = 0
    finally:
        os._exit(code)


def _gather(job: Job, pid: int, pipe: int, *, timed_out: bool) -> Done:
    if timed_out:
        os.kill(pid, signal.SIGKILL)
    said = b""
    while chunk := os.read(pipe, 1 << 16):
        said += chunk
    os.close(pipe)
    os.waitpid(pid, 0)
    if timed_out:
        return Done(job.name, None, "timeout")
    return Done(job.name, json.loads(said), "answered") if said else Done(job.name, None, "died")
