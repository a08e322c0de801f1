"""Lets go of callees that nothing is left to remember of: a slow sweep, a few callees at a time.

A callee's memory runs out by time alone, so nothing of the log says it; the sweep hands such a callee to its owner, who
writes the tombstone in a transaction like any other. Source: design §2 (memory has a horizon).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from dialer.callee.state import Callee, is_forgettable
from dialer.records import UndecodableSnapshot, decode_snapshot
from runtime.clock import Clock

SWEEP_EVERY_S: Final = 10.0
SWEPT_MAX: Final = 100
"""Snapshots looked at in one go: about 5 ms of work."""


async def sweep(
    clock: Clock,
    alive: Callable[[], bool],
    idle: Callable[[], Iterable[tuple[str, bytes]]],
    forget: Callable[[str], None],
) -> None:
    """Look at idle callees, round and round, while the ownership lives."""
    while alive():
        waiting = list(idle())
        for start in range(0, max(1, len(waiting)), SWEPT_MAX):
            await clock.sleep(SWEEP_EVERY_S)
            if not alive():
                return
            for callee_key, snapshot in waiting[start : start + SWEPT_MAX]:
                if _is_spent(snapshot, clock):
                    forget(callee_key)


def _is_spent(snapshot: bytes, clock: Clock) -> bool:
    try:
        callee: Callee = decode_snapshot(snapshot)
    except UndecodableSnapshot:
        return False
    return is_forgettable(callee, clock.now())
