"""A partition's callees as they were last committed: decoded while they have open calls, as their snapshots otherwise.

Nothing is decoded before it is asked for: a take-over reads all, and pays for the live ones only. Source: design §5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from dialer.callee.state import Callee, first_sequence
from dialer.records import UndecodableSnapshot, decode_snapshot, has_open_calls
from runtime import metrics
from runtime.logs import Log

log = Log("dialer.committed")


class Committed:
    """What an ownership remembers between its turns."""

    def __init__(self) -> None:
        self._held: dict[str, Callee | bytes] = {}
        self.open_calls = 0
        self._parked: set[str] = set()

    def __contains__(self, callee_key: str) -> bool:
        """Tell whether anything is remembered of a callee."""
        return callee_key in self._held

    def restore(self, snapshots: Mapping[bytes, bytes]) -> None:
        """Take what a restore read, and decode what has open calls."""
        for key, value in snapshots.items():
            callee_key = key.decode()
            self._held[callee_key] = value
            if has_open_calls(value):
                self._decode(callee_key, value)

    def find(self, callee_key: str, now: datetime) -> Callee | None:
        """Return a callee, a new one where nothing is remembered; None for one that is parked."""
        held = self._held.get(callee_key)
        if isinstance(held, Callee):
            return held
        if held is None:
            return Callee(callee_key=callee_key, sequence=first_sequence(now))
        return None if callee_key in self._parked else self._decode(callee_key, held)

    def open(self, callee_key: str) -> Callee | None:
        """Return a callee that has open calls."""
        held = self._held.get(callee_key)
        return held if isinstance(held, Callee) else None

    def all_open(self) -> Iterator[Callee]:
        """Return all that have open calls."""
        return (held for held in self._held.values() if isinstance(held, Callee))

    def idle(self) -> list[tuple[str, bytes]]:
        """Return those without open calls, as their snapshots."""
        return [(key, held) for key, held in self._held.items() if isinstance(held, bytes)]

    def keep(self, callee: Callee, snapshot: bytes) -> None:
        """Take a callee as it was committed; an empty snapshot was a tombstone."""
        held = self._held.get(callee.callee_key)
        self.open_calls += len(callee.calls) - (len(held.calls) if isinstance(held, Callee) else 0)
        if callee.calls:
            self._held[callee.callee_key] = callee
        elif snapshot:
            self._held[callee.callee_key] = snapshot
        else:
            self._held.pop(callee.callee_key, None)

    def _decode(self, callee_key: str, snapshot: bytes) -> Callee | None:
        try:
            decoded = decode_snapshot(snapshot)
        except UndecodableSnapshot:
            self._parked.add(callee_key)
            metrics.ALARMS.labels("snapshot_undecodable").inc()
            log.alarm("a snapshot cannot be decoded; the callee is parked", callee_key=callee_key)
            return None
        if decoded.calls:
            self._held[callee_key] = decoded
            self.open_calls += len(decoded.calls)
        return decoded
