"""Which calls are in flight, and in which phase, by the log alone: what a kill is counted into."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from rehearsal.accounts import TERMINAL
from rehearsal.reader import Logged

WAITING: Final = "waiting"
_PHASE_AFTER: Final[Mapping[str, str]] = {
    "call_requested": WAITING,
    "attempt_opened": "opening",
    "agent_joined": "ready",
    "dial_started": "dialing",
    "callee_ringing": "ringing",
    "call_answered": "answered",
    "fence_started": "fencing",
    "retry_scheduled": WAITING,
}
"""What a decision makes of its call; the others change nothing here."""
_ON_THE_PHONE: Final = frozenset({"dialing", "ringing", "answered"})
PHASES: Final = ("opening", "ready", "dialing", "ringing", "answered", "fencing")


class Flight:
    """Takes in the log as it is read."""

    def __init__(self) -> None:
        self._phase: dict[str, str] = {}
        self._changed_at: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        """Unix time at which a call's end was read, by call_id."""

    def record(self, record: Logged) -> None:
        """Take in a record."""
        call = record.call_id
        if call is None or not record.is_decision or not record.topic.endswith(".events"):
            return
        if record.name in TERMINAL:
            self._phase.pop(call, None)
            self.ended.setdefault(call, time.time())
        elif record.name in _PHASE_AFTER and call not in self.ended and not self._hears_late(call, record.name):
            self._phase[call] = _PHASE_AFTER[record.name]
        self._changed_at[call] = record.at.timestamp()

    def _hears_late(self, call: str, name: str) -> bool:
        """Tell an answer that is heard of while the room is being taken down: it stays a fence."""
        return name == "call_answered" and self._phase.get(call) == "fencing"

    def phases(self) -> Counter[str]:
        """Count the calls in flight by phase: those with a room, or a room asked for."""
        return Counter(phase for phase in self._phase.values() if phase != WAITING)

    def in_flight(self) -> set[str]:
        """Return the calls in flight."""
        return {call for call, phase in self._phase.items() if phase != WAITING}

    def on_the_phone(self) -> set[str]:
        """Return the calls whose dial may have gone out, and whose attempt is not being taken down yet."""
        return {call for call, phase in self._phase.items() if phase in _ON_THE_PHONE}

    def last_decision_at(self, call_id: str) -> float:
        """Return the Unix time of a call's last decision, 0.0 before its first."""
        return self._changed_at.get(call_id, 0.0)
