"""What processes cost, as the kernel counts it: processor time and memory of a worker and its jobs, read from /proc.

Processor time is utime + stime of the whole process, all its threads, dead ones too; memory is Pss, which splits a page
among those who share it. Source: proc(5).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from bisect import bisect_right
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

EVERY_S: Final = 0.1
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Seen:
    """One process at one moment."""

    pid: int
    parent: int
    cpu_s: float


def group(leader: int) -> list[Seen]:
    """Return the processes of a process group."""
    found = []
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            row = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(row[2]) == leader:
                found.append(Seen(int(folder.name), int(row[1]), (int(row[11]) + int(row[12])) / _TICKS_PER_S))
    return found


def pss_mb(pid: int) -> float | None:
    """Return a process's share of memory in MB (2**20); None where it is gone."""
    try:
        rows = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return sum(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024


@dataclass(slots=True)
class Worker:
    """A worker's processes over time: the parent and its fork server, and the jobs, which the fork server made."""

    pid: int
    _times: dict[int, list[float]] = field(default_factory=dict)
    _cpu: dict[int, list[float]] = field(default_factory=dict)
    jobs: set[int] = field(default_factory=set)
    """All job processes that were ever seen."""

    def look(self) -> None:
        """Take one sample; times are those of the wall clock, as the witness has them."""
        now, seen = time.time(), group(self.pid)
        children = {one.pid for one in seen if one.parent == self.pid}
        for one in seen:
            if one.parent in children:
                self.jobs.add(one.pid)
            self._times.setdefault(one.pid, []).append(now)
            self._cpu.setdefault(one.pid, []).append(one.cpu_s)

    def cpu_s(self, pid: int, at: float) -> float:
        """Return what a process had used by a moment; what it used last where it is gone."""
        place = bisect_right(self._times.get(pid, []), at)
        return self._cpu[pid][place - 1] if place else 0.0

    def used_s(self, pid: int, begin: float, end: float) -> float:
        """Return what a process used between two moments."""
        return self.cpu_s(pid, end) - self.cpu_s(pid, begin)

    def shared_s(self, begin: float, end: float) -> float:
        """Return what all that is no job used between two moments."""
        return sum(self.used_s(pid, begin, end) for pid in self._times if pid not in self.jobs)

    def living(self) -> list[int]:
        """Return the job processes that there are now."""
        return [one.pid for one in group(self.pid) if one.pid in self.jobs]


@contextlib.asynccontextmanager
async def watched(pid: int) -> AsyncIterator[Worker]:
    """Look at a worker all the time."""
    worker = Worker(pid)

    async def watch() -> None:
        while True:
            worker.look()
            await asyncio.sleep(EVERY_S)

    watching = asyncio.create_task(watch())
    try:
        yield worker
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
