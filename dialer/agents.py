"""Which agents are alive: readiness as it is renewed, kept in memory, so that renewals cost no transaction.

Ages are measured from the broker's time of the renewal, so that a backlog of old renewals makes nobody look alive.
Source: design §5 (gate), §6 (renewed every 2 s, stale after 5 s; a lost machine is noticed within 30 s).
"""

from __future__ import annotations

from typing import Final

from runtime.clock import Clock

SILENT_AFTER_S: Final = 15.0
"""An agent that has not renewed for so long is lost: the worker's parent tells of a dead job at once, so this is for a
dead machine, and must be above a busy machine's worst pause."""
_FAR: Final = 1e9


class Agents:
    """Readiness of the agents of one ownership's attempts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, int], float] = {}
        self._heard: dict[tuple[str, int], float] = {}
        """The same, without the benefit of the doubt that a watched agent has for silence: what the gate asks."""
        self._watched: set[tuple[str, int]] = set()
        self.skew_s = 0.0
        """How far the broker's clock is ahead of ours, as last seen; a lag in reading is not a skew."""

    def renewed(self, call_id: str, attempt: int, broker_time_ms: int, *, ready: bool = True) -> None:
        """Note a sign of life that the broker took at that time; only one that says `ready` opens the gate."""
        age_s = self._clock.now().timestamp() - broker_time_ms / 1000
        self.skew_s = max(0.0, -age_s)
        seen = self._clock.monotonic() - max(0.0, age_s)
        key = (call_id, attempt)
        if ready:
            self._heard[key] = max(seen, self._heard.get(key, -_FAR))
        if seen > self._seen.get(key, -_FAR):
            self._seen[key] = seen

    def watch(self, call_id: str, attempt: int, *, taken_over: bool = False) -> None:
        """Watch an agent; one that was taken over counts as heard of just now."""
        key = (call_id, attempt)
        self._watched.add(key)
        if taken_over or key not in self._seen:
            self._seen[key] = self._clock.monotonic()

    def forget(self, call_id: str, attempt: int) -> None:
        """Watch no longer."""
        self._watched.discard((call_id, attempt))
        self._seen.pop((call_id, attempt), None)
        self._heard.pop((call_id, attempt), None)

    def age_s(self, call_id: str, attempt: int) -> float:
        """Return how long ago the agent was heard of, in seconds; very long when never."""
        seen = self._seen.get((call_id, attempt))
        return _FAR if seen is None else self._clock.monotonic() - seen

    def readiness_age_s(self, call_id: str, attempt: int) -> float:
        """Return how old the last readiness is that this ownership itself has read, in seconds; very long when none."""
        heard = self._heard.get((call_id, attempt))
        return _FAR if heard is None else self._clock.monotonic() - heard

    def silent(self) -> list[tuple[str, int]]:
        """Return the watched agents that have fallen silent."""
        return [key for key in self._watched if self.age_s(*key) > SILENT_AFTER_S]
