"""Deadlines of a partition's callees: a heap that forgets lazily, at most one live entry a callee."""

from __future__ import annotations

import heapq
from datetime import datetime


class Timers:
    """Says which callees have come due; a later `set` for the same callee replaces the earlier."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, str]] = []
        self._live: dict[str, datetime] = {}

    def __len__(self) -> int:
        return len(self._live)

    def set(self, callee_key: str, due: datetime | None) -> None:
        """Wake this callee at `due`, or not at all."""
        if due is None:
            self._live.pop(callee_key, None)
        elif self._live.get(callee_key) != due:
            self._live[callee_key] = due
            heapq.heappush(self._heap, (due, callee_key))

    def next_due(self) -> datetime | None:
        """Return the earliest deadline."""
        while self._heap:
            due, key = self._heap[0]
            if self._live.get(key) == due:
                return due
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: datetime, count_max: int) -> list[str]:
        """Return callees that are due, each once, and forget their deadlines; the owner sets new ones."""
        found: list[str] = []
        while len(found) < count_max:
            due = self.next_due()
            if due is None or due > now:
                break
            _, key = heapq.heappop(self._heap)
            del self._live[key]
            found.append(key)
        return found
