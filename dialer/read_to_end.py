"""When was an input last known to be read to its end? Evidence for the gate, which fails closed without it.

Evidence is an end that the broker told, dated by the moment *before* it was asked: everything accepted before that
moment lies below that end. The moment an answer is looked at would prove nothing: a process frozen for a minute finds
a minute-old answer in its socket. An end is proven once everything below it was delivered. Source: design §5, the gate.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

EVIDENCE_MAX: Final = 64
"""Ends kept per partition, asked ten times a second: older than six seconds they are of no use to the gate."""


@dataclass(frozen=True, slots=True)
class End:
    """An end of a partition as of a moment."""

    at: float
    """clock.monotonic before the broker was asked."""
    position: int
    """What must have been folded: offset after the last record, transaction markers behind it left out."""


@dataclass(slots=True)
class ReadToEnd:
    """The evidence for one partition."""

    delivered: int
    """Position up to which everything was delivered, markers counted."""
    after_last_record: int
    """Position after the last record that was delivered, or where reading began."""
    _told: deque[End] = field(default_factory=lambda: deque(maxlen=EVIDENCE_MAX))
    _proven: deque[End] = field(default_factory=lambda: deque(maxlen=EVIDENCE_MAX))

    def told(self, at: float, high_watermark: int) -> None:
        """Take an end that the broker told to a question asked at `at`."""
        self._told.append(End(at, high_watermark))
        self._prove()

    def deliver(self, position: int, after_last_record: int | None = None) -> None:
        """Take that everything below `position` was delivered."""
        self.delivered = position
        if after_last_record is not None:
            self.after_last_record = after_last_record
        self._prove()

    def forget(self) -> None:
        """Drop all evidence: reading has failed, and nothing may be concluded any more."""
        self._told.clear()
        self._proven.clear()

    def latest(self) -> End | None:
        """Return the latest end up to which everything was delivered."""
        return self._proven[-1] if self._proven else None

    def folded_at(self, position: int) -> float | None:
        """Return the latest moment whose end lies at or below `position`, what the caller folded and committed."""
        return next((end.at for end in reversed(self._proven) if end.position <= position), None)

    def _prove(self) -> None:
        while self._told and self._told[0].position <= self.delivered:
            end = self._told.popleft()
            self._proven.append(End(end.at, min(end.position, self.after_last_record)))
