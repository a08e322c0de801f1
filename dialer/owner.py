"""The owner of a partition: one ownership after another until it is told to stop.

The take-over order is here: fence, restore, position every input, resume, reconcile. Whatever ends an ownership, the
next one starts from the log and nothing else. Source: design §5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from dialer.forgetting import sweep
from dialer.log import Log, OwnershipLost
from dialer.ownership import Ownership, Parts, PositionLost
from runtime import metrics
from runtime.clock import Clock
from runtime.logs import Log as Logger
from schemas.steps import Step

AGAIN_AFTER_S: Final = 0.2
REFUSED_AGAIN_AFTER_S: Final = 30.0

log = Logger("dialer.owner")


class Feed(Protocol):
    """Where an owner's inputs come from: intake and the stops reader in production."""

    async def resume(self, ownership: Ownership, positions: Mapping[str, int]) -> None:
        """Position every input of the partition and let it flow. Raises: PositionLost, OwnershipLost."""
        ...

    def suspend(self, ownership: Ownership) -> None:
        """Let nothing flow to this ownership any more; what flows to another of its partition flows on."""
        ...


class Owner:
    """Keeps one partition owned."""

    def __init__(self, partition: int, partition_logs: Log, parts: Parts, feed: Feed, clock: Clock) -> None:
        self.partition = partition
        self.current: Ownership | None = None
        """The ownership that takes inputs; None while a take-over is under way."""
        self._logs, self._parts, self._feed, self._clock = partition_logs, parts, feed, clock
        self._stopping = False
        self._latest: Ownership | None = None

    async def run(self) -> None:
        """Own the partition until `stop`; a bug leaves by its exception and ends the process."""
        while not self._stopping:
            wait_s = AGAIN_AFTER_S
            try:
                await self._own()
            except OwnershipLost as lost:
                metrics.OWNERSHIPS_LOST.inc()
                log.warning("ownership lost", partition=self.partition, reason=str(lost))
            except PositionLost as lost:
                wait_s = REFUSED_AGAIN_AFTER_S
                metrics.ALARMS.labels("position_lost").inc()
                log.alarm("partition refused", partition=self.partition, reason=str(lost))
            if not self._stopping:
                await self._clock.sleep(wait_s)

    async def _own(self) -> None:
        began = self._clock.monotonic()
        partition_log = self._logs.open(self.partition)
        ownership = self._latest = Ownership(self.partition, partition_log, self._parts)
        try:
            await ownership.take_over()
            await self._feed.resume(ownership, ownership.positions)
            if self._stopping:
                return
            self.current = ownership
            self._clock.passing(Step.TAKEOVER_RESUMED)
            metrics.OWNED.inc()
            log.info("partition owned", partition=self.partition, took_s=round(self._clock.monotonic() - began, 3))
            ownership.reconcile()
            alive = ownership.is_alive
            self._clock.spawn(
                sweep(self._clock, alive, ownership.callees.idle, ownership.forget), f"sweep-{self.partition}"
            )
            try:
                await ownership.serve()
            finally:
                metrics.OWNED.dec()
        finally:
            self.current = None
            ownership.end()
            self._feed.suspend(ownership)
            await partition_log.close()

    def stop(self) -> None:
        """End the ownership and start no other."""
        self._stopping = True
        if self._latest is not None:
            self._latest.end()
