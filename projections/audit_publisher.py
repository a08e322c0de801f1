"""Publishes `dialer.audit`: a loop of its own from the log to the audit topic, in Kafka transactions, without database.

1. Every event of the log has its audit records there exactly once, whatever dies and whenever: `audit-{partition}`
   fences the former publisher and its open transaction, and the place to go on from is read, after that, off the last
   committed record itself. No group offsets: they expire after 7 idle days.
2. An event's records are never split over transactions.
3. The same log gives the same records, ids included.
4. Every send is awaited before the commit (aiokafka commits a transaction whose batch was refused; reference/kafka.md).
5. Whatever goes wrong, a missing answer included, ends this opening: all is dropped, fenced and read anew.

One process publishes all partitions; a second one takes over by the fence, and the first ends at its next record. Two
that start in the same moment may fence each other crosswise and both end: started again, one of them stays.
Source: design §7.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from itertools import groupby
from typing import Final, TypeVar

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, ProducerFenced

from projections.audit_tail import places
from projections.audit_trail import AuditOut, Place, Trail
from projections.closing import let_go
from projections.errors import AuditFenced, KafkaLost
from projections.events_log import LOST_S, EventsLog
from projections.streams import STREAMS, Streams
from runtime.clock import Clock
from runtime.kafka import transactional_producer
from runtime.logs import Log
from runtime.metrics import ALARMS, PROJECTED, PROJECTION_LAG
from schemas.values import Invalid

NAME: Final = "audit"
BATCH_MAX: Final = 2000
"""Events a round takes at most, over all partitions; each partition's part is one transaction."""
WAIT_S: Final = 0.5
LAG_INTERVAL_S: Final = 1.0
FENCE_TIMEOUT_S: Final = 30.0
TRANSACTION_TIMEOUT_S: Final = 15.0
REOPEN_AFTER_S: Final = 1.0

T = TypeVar("T")
log = Log("projections.audit_publisher")


class PartitionAudit:
    """One partition of one opening: its producer, its trail, its place."""

    def __init__(self, bootstrap: str, partition: int, streams: Streams) -> None:
        self._partition = partition
        self._topic = streams.audit
        self._producer: AIOKafkaProducer = transactional_producer(bootstrap, f"{streams.publisher}-{partition}")
        self._trail = Trail()
        self._published = -1

    async def fence(self) -> None:
        """End every earlier publisher of this partition and its open transaction."""
        async with asyncio.timeout(FENCE_TIMEOUT_S):
            await self._producer.start()

    def stand(self, place: Place) -> None:
        """Take the place that was read after the fence: what lies below it is only remembered."""
        self._published = place.published

    async def publish(self, records: Sequence[ConsumerRecord]) -> int:
        """Publish what these events give, in one transaction; return how many records. Raises: KafkaError, TimeoutError."""
        outs = [out for record in records for out in self._outs(record)]
        if outs:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S):
                await self._commit(outs)
        self._published = max(self._published, records[-1].offset)
        return len(outs)

    async def _commit(self, outs: Sequence[AuditOut]) -> None:
        producer = self._producer
        await producer.begin_transaction()
        sent = [
            await producer.send(self._topic, out.value, out.key, self._partition, headers=out.headers) for out in outs
        ]
        await asyncio.gather(*sent)
        await producer.commit_transaction()

    def _outs(self, record: ConsumerRecord) -> list[AuditOut]:
        try:
            outs = self._trail.take(record)
        except Invalid as error:
            ALARMS.labels("unreadable_event").inc()
            log.alarm("an event cannot be audited", partition=record.partition, offset=record.offset, rule=str(error))
            return []
        return outs if record.offset > self._published else []

    async def close(self) -> None:
        """Let go of the connection; an open transaction is left to the next fence."""
        await let_go(self._producer.stop())
        # aiokafka leaves the failed transaction's own future unread, and asyncio would write its trace to the log.
        ended = self._producer._txn_manager.wait_for_transaction_end()
        if ended is not None and ended.done() and not ended.cancelled():
            ended.exception()


class AuditPublisher:
    """All partitions, one opening after the other."""

    def __init__(self, bootstrap: str, clock: Clock, streams: Streams = STREAMS) -> None:
        self.lag: dict[int, int] | None = None
        self._bootstrap = bootstrap
        self._clock = clock
        self._streams = streams
        self._events: EventsLog | None = None
        self._audits: list[PartitionAudit] = []
        self._worked_at = clock.monotonic()
        self._measured_at = float("-inf")

    async def run(self) -> None:
        """Publish until cancelled. Raises: AuditFenced, KafkaLost, LogUnusable."""
        while True:
            try:
                await self.open()
                while True:
                    await self.step()
                    self._worked_at = self._clock.monotonic()
            except (KafkaError, TimeoutError, OSError) as error:
                if self._clock.monotonic() - self._worked_at > LOST_S:
                    raise KafkaLost(f"the audit could not be published for {LOST_S:.0f} s: {error!r}") from error
                log.warning("an opening of the audit ended; opening anew", error=type(error).__name__)
            finally:
                await self.close()
            await self._clock.sleep(REOPEN_AFTER_S)

    async def open(self) -> None:
        """Fence, find the places, stand there. Raises: AuditFenced, KafkaError, TimeoutError, LogUnusable."""
        self._audits = [
            PartitionAudit(self._bootstrap, number, self._streams) for number in range(self._streams.partitions)
        ]
        await _all([audit.fence() for audit in self._audits])
        found = await places(self._bootstrap, self._streams)
        for number, audit in enumerate(self._audits):
            audit.stand(found[number])
        self._events = EventsLog(self._bootstrap, "dialer-audit", self._clock, self._streams)
        await self._events.start({number: place.memory_from for number, place in found.items()})
        log.info("publishing the audit", partitions=self._streams.partitions)

    async def step(self) -> int:
        """Publish one round, or wait a little for one; return how many audit records it made."""
        assert self._events is not None, "open comes first"
        fetched = await self._events.poll(BATCH_MAX, WAIT_S)
        groups = [(number, list(group)) for number, group in groupby(fetched.records, lambda r: int(r.partition))]
        made = sum(await _all([self._audits[number].publish(group) for number, group in groups]))
        if groups:
            PROJECTED.labels(NAME).inc(len(fetched.records))
        await self._measure(self._events)
        return made

    async def _measure(self, events: EventsLog) -> None:
        if self._clock.monotonic() - self._measured_at < LAG_INTERVAL_S:
            return
        lag = await events.lag()
        self._measured_at = self._clock.monotonic()
        if lag is not None:
            self.lag = lag
            PROJECTION_LAG.labels(NAME).set(sum(lag.values()))

    async def close(self) -> None:
        """Let go of everything."""
        if self._events is not None:
            await self._events.stop()
            self._events = None
        await asyncio.gather(*(audit.close() for audit in self._audits))
        self._audits = []


async def _all(works: Sequence[Awaitable[T]]) -> list[T]:
    """Let every partition come to its end, then raise the gravest error: the fence before any other."""
    results = await asyncio.gather(*works, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if any(isinstance(error, ProducerFenced) for error in errors):
        raise AuditFenced(
            "another process publishes the audit now and has fenced this one; run one `dialer projections`, "
            "or start the others with --no-audit"
        )
    if errors:
        raise errors[0]
    return [result for result in results if not isinstance(result, BaseException)]
