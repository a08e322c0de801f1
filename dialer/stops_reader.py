"""Reads `dialer.stops` for the partitions this process owns: assigned, never subscribed, so that no backlog starves it.

Read_uncommitted: read_committed would hide an accepted stop behind any open forwarding transaction; a stop of an aborted
transaction is still a stop, deduplicated by id. aiokafka's `assign` replaces everything, so positions are kept here and
sought again. Source: design §3; reference/kafka.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from dialer.read_to_end import ReadToEnd
from dialer.records import RawRecord
from runtime.clock import Clock
from runtime.kafka import assigned_consumer
from runtime.logs import Log
from runtime.metrics import ALARMS
from schemas.topics import STOPS

ASK_EVERY_S: Final = 0.1
ASK_TIMEOUT_S: Final = 5.0
POLL_MS: Final = 100
RECORDS_MAX: Final = 500
"""Records handed over at once, at most."""
OPEN_MAX: Final = 5_000
"""Records handed over and not folded yet, beyond which a partition waits."""
OPEN_WAIT_S: Final = 0.01
AGAIN_AFTER_S: Final = 1.0
"""A read that failed is tried again after so long; the partition dials nobody meanwhile."""

Deliver = Callable[[Sequence[RawRecord]], None]
"""Takes a partition's next records, in order."""

_log = Log(__name__)


@dataclass(slots=True)
class _Reading:
    tp: TopicPartition
    position: int
    deliver: Deliver
    open_count: Callable[[], int]
    evidence: ReadToEnd
    task: asyncio.Task[None] | None = None
    waiting: bool = False
    """Whether all that was fetched so far has been delivered."""
    failed: bool = False


class StopsReader:
    """One consumer, one delivering task a partition, one task that asks for the ends."""

    def __init__(self, bootstrap: str, clock: Clock) -> None:
        self._bootstrap = bootstrap
        self._clock = clock
        self._consumer: AIOKafkaConsumer | None = None
        self._readings: dict[int, _Reading] = {}
        self._asking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect. Raises: KafkaError."""
        self._consumer = assigned_consumer(self._bootstrap, "dialer-stops", read_committed=False)
        await self._consumer.start()
        self._asking = self._clock.spawn(self._ask_for_ends(), "stops-ends")

    async def close(self) -> None:
        """Stop reading everything."""
        for partition in tuple(self._readings):
            self.release(partition)
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        if self._consumer is not None:
            await self._consumer.stop()

    def assign(self, partition: int, offset: int, deliver: Deliver, open_count: Callable[[], int] = lambda: 0) -> None:
        """Read a partition from `offset` on, anew where it is read already.

        `open_count` tells how many delivered records are not folded yet: above `OPEN_MAX` the partition waits, alone.
        An offset outside the log is alarmed and never drained: what was stopped there cannot be known.
        """
        self._forget(partition)
        tp = TopicPartition(STOPS.name, partition)
        evidence = ReadToEnd(delivered=offset, after_last_record=offset)
        reading = _Reading(tp, offset, deliver, open_count, evidence)
        self._readings[partition] = reading
        self._assign_all()
        reading.task = self._clock.spawn(self._read(reading), f"stops-{partition}")

    def release(self, partition: int) -> None:
        """Read a partition no more; nothing of it is delivered after the return."""
        if self._forget(partition):
            self._assign_all()

    def delivered_to(self, partition: int) -> int:
        """Return the position after the last record that was delivered, or where reading began."""
        return self._readings[partition].evidence.after_last_record

    def read_to_end_at(self, partition: int) -> tuple[float, int] | None:
        """Return (clock.monotonic, position) of the latest end up to which everything was delivered.

        Everything accepted before that moment lies below that position. Trailing transaction markers are left out, so
        that `committed >= position` is the question to ask of what was folded and committed.
        """
        reading = self._readings.get(partition)
        end = reading.evidence.latest() if reading is not None else None
        return (end.at, end.position) if end is not None else None

    def drained_at(self, partition: int, committed: int | None = None) -> float | None:
        """Return the latest moment before which every accepted stop was delivered, or lies below `committed`.

        None: not known, which the gate takes as a no.
        """
        reading = self._readings.get(partition)
        if reading is None:
            return None
        if committed is not None:
            return reading.evidence.folded_at(committed)
        end = reading.evidence.latest()
        return end.at if end is not None else None

    def _started(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "start first"
        return self._consumer

    def _forget(self, partition: int) -> bool:
        """Cancel a partition's task: it waits somewhere, and delivers nothing from there on."""
        reading = self._readings.pop(partition, None)
        if reading is not None and reading.task is not None:
            reading.task.cancel()
        return reading is not None

    def _assign_all(self) -> None:
        """Assign what is read now, and seek before anything is awaited: there is no offset to fall back to."""
        consumer = self._started()
        if not self._readings:
            consumer.unsubscribe()
            return
        consumer.assign([reading.tp for reading in self._readings.values()])
        for reading in self._readings.values():
            consumer.seek(reading.tp, reading.position)

    async def _read(self, reading: _Reading) -> None:
        consumer = self._started()
        while True:
            while reading.open_count() > OPEN_MAX:
                await self._clock.sleep(OPEN_WAIT_S)
            reading.waiting = True
            try:
                fetched = await consumer.getmany(reading.tp, timeout_ms=POLL_MS, max_records=RECORDS_MAX)
            except KafkaError as error:
                ALARMS.labels("stops_unreadable").inc()
                _log.alarm("stops cannot be read", partition=reading.tp.partition, error=type(error).__name__)
                reading.waiting, reading.failed = False, True
                reading.evidence.forget()
                if isinstance(error, OffsetOutOfRangeError):
                    return  # never again: the log may grow over the position, and what was stopped there stay unknown
                await self._clock.sleep(AGAIN_AFTER_S)
                continue
            reading.waiting = reading.failed = False
            records = fetched.get(reading.tp, ())
            if records:
                reading.position = records[-1].offset + 1
                reading.deliver([raw_record(record) for record in records])
                reading.evidence.deliver(reading.position, reading.position)

    async def _pass_markers(self, reading: _Reading) -> None:
        """Count transaction markers as delivered: the consumer's position passes them without a record."""
        consumer = self._started()
        if reading.waiting and reading.tp in consumer.assignment():
            reading.position = await consumer.position(reading.tp)
            reading.evidence.deliver(reading.position)

    async def _ask_for_ends(self) -> None:
        """Ask the broker where the partitions end, ten times a second; without an answer evidence grows old."""
        while True:
            readings = dict(self._readings)
            if readings:
                at = self._clock.monotonic()
                try:
                    async with asyncio.timeout(ASK_TIMEOUT_S):
                        ends = await self._started().end_offsets([reading.tp for reading in readings.values()])
                except (KafkaError, TimeoutError, OSError) as error:
                    _log.warning("ends of stops not known", error=type(error).__name__)
                    ends = {}
                for partition, reading in readings.items():
                    if reading.tp in ends and not reading.failed and self._readings.get(partition) is reading:
                        try:
                            await self._pass_markers(reading)
                        except KafkaError as error:
                            _log.warning("position in stops not known", error=type(error).__name__)
                        reading.evidence.told(at, ends[reading.tp])
            await self._clock.sleep(ASK_EVERY_S)


def raw_record(record: ConsumerRecord) -> RawRecord:
    """Take over what we need of a fetched record."""
    return RawRecord(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )
