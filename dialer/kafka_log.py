"""The log on Kafka: one transactional producer per opening, fenced by `transactional.id = dialer-{partition}`.

What is guarded against, each seen (reference/kafka.md): aiokafka commits a transaction whose batch the broker refused,
so every batch's future is looked at before the commit; an answer that does not come ends the ownership; an opening that
failed once never writes again. Source: design §5; KIP-98.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from dialer.log import OwnershipLost, PartitionLog, Record, Restored
from runtime.clock import Clock
from runtime.kafka import assigned_consumer, transactional_producer
from schemas.steps import Step
from schemas.topics import CALLEES, COMMANDS, EVENTS, KEYS, OFFSETS_KEY, REJECTED, STOPS

ANSWER_TIMEOUT_S: Final = 8.0
"""A transaction without the log's answer for this long has ended the ownership; below the broker's own 10 s."""
FENCE_TIMEOUT_S: Final = 20.0
"""Longer than `transaction.timeout.ms`: the broker may let a former transaction run out before it answers."""
RESTORE_STALL_S: Final = 15.0
"""Longest wait for the next record of a restore, which as a whole is as long as the snapshots are many."""
CLOSE_TIMEOUT_S: Final = 2.0
MARKERS_S: Final = 0.002
"""Rest after a commit before the next: the broker still writes the markers, and aiokafka waits 20 ms when it is told
so (`BACKOFF_OVERRIDE` in its sender)."""
RESTORE_POLL_MS: Final = 10
RESTORE_RECORDS_MAX: Final = 1000
"""Records taken between two yields to other work: about 5 ms."""
RESTORE_FETCH_WAIT_MS: Final = 10
WRITTEN_TOPICS: Final = (EVENTS, CALLEES, KEYS, REJECTED, COMMANDS, STOPS)

_OUTSIDE: Final = (KafkaError, IllegalOperation, TimeoutError, OSError)
"""What the outside can do to us; aiokafka raises IllegalOperation when its sender failed between two sends."""


class KafkaLog:
    """Opens partitions on a Kafka cluster."""

    def __init__(self, bootstrap: str, clock: Clock, *, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._bootstrap = bootstrap
        self._clock = clock
        self._answer_timeout_s = answer_timeout_s

    def open(self, partition: int) -> PartitionLog:
        """Return a new opening, which fences earlier ones when `fence` is called."""
        return KafkaPartitionLog(self._bootstrap, self._clock, partition, self._answer_timeout_s)


class KafkaPartitionLog:
    """One opening of one partition: fence, restore, then commit after commit, one at a time."""

    def __init__(self, bootstrap: str, clock: Clock, partition: int, answer_timeout_s: float) -> None:
        self._bootstrap = bootstrap
        self._clock = clock
        self._partition = partition
        self._answer_timeout_s = answer_timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._lost = False
        self._answered_at = float("-inf")

    async def fence(self) -> None:
        """End every earlier opening and its open transaction. Raises: OwnershipLost."""
        assert self._producer is None, "an opening fences once"
        async with self._or_lost("fence", FENCE_TIMEOUT_S):
            self._producer = transactional_producer(self._bootstrap, f"dialer-{self._partition}")
            await self._producer.start()
            # known before the first commit, which then costs no look-up
            await asyncio.gather(*(self._producer.partitions_for(topic.name) for topic in WRITTEN_TOPICS))

    async def restore(self) -> Restored:
        """Read `dialer.callees` and `dialer.keys` of this partition to their ends. Raises: OwnershipLost.

        The end is the high watermark of a fetch after the fence. The fence was answered when the former transaction's
        markers were written, so everything committed lies below; the position passes over markers and aborted records.
        """
        assert self._producer is not None, "fence first"
        callees, keys = (TopicPartition(topic.name, self._partition) for topic in (CALLEES, KEYS))
        latest: dict[TopicPartition, dict[bytes, bytes]] = {callees: {}, keys: {}}
        consumer = assigned_consumer(
            self._bootstrap,
            f"dialer-restore-{self._partition}",
            read_committed=True,
            fetch_max_wait_ms=RESTORE_FETCH_WAIT_MS,
        )
        try:
            async with self._or_lost("restore", FENCE_TIMEOUT_S):
                await consumer.start()
                starts = await consumer.beginning_offsets([callees, keys])
                consumer.assign([callees, keys])
                for tp, start in starts.items():
                    consumer.seek(tp, start)
            await self._read_to_ends(consumer, latest)
        finally:
            await _stop(consumer)
        offsets = latest[callees].pop(OFFSETS_KEY, None)
        return Restored(snapshots=latest[callees], keys=latest[keys], offsets=offsets)

    async def commit(self, records: Sequence[Record]) -> None:
        """Write all records in one transaction and wait for the answer. Raises: OwnershipLost."""
        if self._lost:
            raise OwnershipLost(f"partition {self._partition}: this opening has ended")
        if not records:
            return
        producer = self._producer
        assert producer is not None, "fence first"
        rest = self._answered_at + MARKERS_S - self._clock.monotonic()
        if rest > 0:
            await self._clock.sleep(rest)
        async with self._or_lost("commit", self._answer_timeout_s):
            await producer.begin_transaction()
            self._clock.passing(Step.COMMIT_SENDING)
            sent = [
                await producer.send_batch(batch, tp.topic, partition=tp.partition)
                for tp, batch in _batches(producer, records)
            ]
            for outcome in await asyncio.gather(*sent, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
            self._clock.passing(Step.COMMIT_SENT)
            await producer.commit_transaction()
        self._answered_at = self._clock.monotonic()
        self._clock.passing(Step.COMMIT_ANSWERED)

    async def close(self) -> None:
        """Let go of the connection. Never raises for a connection that is gone.

        A transaction still open, which only a failed or cancelled commit leaves, is aborted by the next fence, or by
        the broker after `transaction.timeout.ms`.
        """
        self._lost = True
        if self._producer is not None:
            await _stop(self._producer)
            await self._producer.client.close()  # again, for a stop that was cut short: connections are its own

    async def _read_to_ends(self, consumer: AIOKafkaConsumer, latest: dict[TopicPartition, dict[bytes, bytes]]) -> None:
        ends: dict[TopicPartition, int] = {}
        open_ends = set(latest)
        progressed_at = self._clock.monotonic()
        while open_ends:
            async with self._or_lost("restore", RESTORE_STALL_S):
                fetched = await consumer.getmany(timeout_ms=RESTORE_POLL_MS, max_records=RESTORE_RECORDS_MAX)
                for tp, records in fetched.items():
                    _keep_last(latest[tp], records)
                for tp in tuple(open_ends):
                    highwater = consumer.highwater(tp)
                    if highwater is not None and await consumer.position(tp) >= ends.setdefault(tp, highwater):
                        open_ends.discard(tp)
                if fetched:
                    progressed_at = self._clock.monotonic()
                elif self._clock.monotonic() - progressed_at > RESTORE_STALL_S:
                    raise TimeoutError
            await self._clock.sleep(0)

    @contextlib.asynccontextmanager
    async def _or_lost(self, what: str, timeout_s: float) -> AsyncIterator[None]:
        """Do one thing with the log; however it fails, a cancellation included, this opening is over."""
        done = False
        try:
            async with asyncio.timeout(timeout_s):
                yield
            done = True
        except _OUTSIDE as error:
            # the error's class only: aiokafka's texts may hold what a record holds
            raise OwnershipLost(f"partition {self._partition}: {what}: {type(error).__name__}") from error
        finally:
            self._lost = self._lost or not done


def _batches(producer: AIOKafkaProducer, records: Sequence[Record]) -> list[tuple[TopicPartition, BatchBuilder]]:
    """Pack records into batches, in order per partition; a full batch is followed by another of the same partition."""
    filling: dict[TopicPartition, BatchBuilder] = {}
    batches: list[tuple[TopicPartition, BatchBuilder]] = []
    for record in records:
        tp = TopicPartition(record.topic, record.partition)
        batch = filling.get(tp)
        if batch is None or not _append(batch, record):
            batch = filling[tp] = producer.create_batch()
            batches.append((tp, batch))
            taken = _append(batch, record)
            assert taken, "an empty batch takes a record of any size: whether it is too large is the broker's to say"
    return batches


def _append(batch: BatchBuilder, record: Record) -> bool:
    headers = record.headers if type(record.headers) is list else list(record.headers)  # aiokafka's C code wants a list
    added = batch.append(timestamp=None, key=record.key, value=record.value, headers=headers)
    return added is not None


def _keep_last(latest: dict[bytes, bytes], records: Sequence[object]) -> None:
    for record in records:
        key, value = record.key, record.value  # type: ignore[attr-defined]
        if value is None:
            latest.pop(key, None)
        else:
            latest[key] = value


async def _stop(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Stop an aiokafka client within a bounded time, whatever state it is in."""
    with contextlib.suppress(*_OUTSIDE):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.stop()
