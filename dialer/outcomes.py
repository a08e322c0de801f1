"""Delivers the outcome of a dial whose ownership is over: produced to `dialer.observations`, for the next owner."""

from __future__ import annotations

from typing import Final

from dialer.requests import NotAccepted, Requests
from runtime import metrics
from runtime.clock import Clock
from runtime.logs import Log
from schemas import topics
from schemas.envelope import Envelope
from schemas.observations import DialOutcome
from schemas.values import attempt_id, callee_of

BACKOFFS_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)

log = Log("dialer.outcomes")


class Outcomes:
    """Counts what is under way, so that a process that ends can wait for it."""

    def __init__(self, requests: Requests, clock: Clock) -> None:
        self._requests, self._clock = requests, clock
        self.open = 0

    async def publish(self, call_id: str, outcome: DialOutcome) -> None:
        """Produce an outcome under its derived id; delivered twice it means the same."""
        self.open += 1
        attempt = attempt_id(call_id, outcome.attempt)
        envelope = Envelope(
            type=DialOutcome.TYPE,
            source="/dialer",
            id=f"dial/{attempt}",
            subject=call_id,
            time=self._clock.now(),
            data=outcome,
        )
        try:
            for backoff_s in BACKOFFS_S:
                try:
                    await self._requests.send(topics.OBSERVATIONS, callee_of(call_id), envelope)
                except NotAccepted:
                    await self._clock.sleep(backoff_s)
                else:
                    return
            metrics.ALARMS.labels("outcome_undelivered").inc()
            log.alarm("an outcome could not be delivered", call_id=call_id)
        finally:
            self.open -= 1
