"""Stops are read in order, whatever else is assigned; "drained" is claimed only with evidence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import TopicPartition

from dialer.read_to_end import ReadToEnd
from dialer.records import RawRecord
from dialer.stops_reader import OPEN_MAX, RECORDS_MAX, StopsReader
from dialer.topic_setup import create_or_verify
from runtime.clock import SystemClock
from runtime.kafka import assigned_consumer, idempotent_producer, transactional_producer
from schemas.topics import STOPS
from tests.doubles.waiting import WAIT_TIMEOUT_S, until


class Inbox:
    """What was delivered for one partition."""

    def __init__(self) -> None:
        self.records: list[RawRecord] = []

    def take(self, records: Sequence[RawRecord]) -> None:
        self.records.extend(records)

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]


class Stops:
    """A reader on a real broker, and what the tests do around it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.clock = SystemClock()
        self.reader = StopsReader(bootstrap, self.clock)

    async def end(self, partition: int) -> int:
        tp = TopicPartition(STOPS.name, partition)
        consumer = assigned_consumer(self.bootstrap, "test", read_committed=False)
        await consumer.start()
        try:
            return int((await consumer.end_offsets([tp]))[tp])
        finally:
            await consumer.stop()

    async def write(self, partition: int, values: Sequence[bytes]) -> None:
        producer = idempotent_producer(self.bootstrap, "test")
        await producer.start()
        try:
            for value in values[:-1]:
                await producer.send(STOPS.name, value, key=b"k", partition=partition)
            await producer.send_and_wait(STOPS.name, values[-1], key=b"k", partition=partition)
        finally:
            await producer.stop()

    async def drained_after_now(self, partition: int, committed: int | None = None) -> None:
        now = self.clock.monotonic()
        await until(lambda: (self.reader.drained_at(partition, committed) or 0) >= now)


@pytest.fixture
async def stops(kafka_bootstrap: str) -> AsyncIterator[Stops]:
    await create_or_verify(kafka_bootstrap)
    stops = Stops(kafka_bootstrap)
    await stops.reader.start()
    try:
        yield stops
    finally:
        await stops.reader.close()


@pytest.mark.broker
async def test_an_empty_partition_is_drained_soon_and_stays_so(stops: Stops) -> None:
    """Freshness goes on without a single record."""
    inbox = Inbox()
    offset = await stops.end(1)
    assert stops.reader.drained_at(1) is None
    stops.reader.assign(1, offset, inbox.take)
    for _ in range(3):
        await stops.drained_after_now(1)
    read = stops.reader.read_to_end_at(1)
    assert read is not None
    assert read[1] == offset == stops.reader.delivered_to(1)
    assert inbox.values == []


@pytest.mark.broker
async def test_records_come_in_order_while_other_partitions_come_and_go(stops: Stops) -> None:
    """The assign of aiokafka resets every position; ours go on where they were."""
    first, second = Inbox(), Inbox()
    starts = [await stops.end(2), await stops.end(3)]
    values = [b"%d" % n for n in range(3 * RECORDS_MAX)]
    stops.reader.assign(2, starts[0], first.take)
    await stops.write(2, values[:1000])
    stops.reader.assign(3, starts[1], second.take)
    await stops.write(3, [b"x"])
    await until(lambda: len(first.values) >= 500)
    stops.reader.release(3)
    await stops.write(2, values[1000:])
    stops.reader.assign(3, starts[1], second.take)
    await until(lambda: len(first.values) >= len(values) and len(second.values) >= 1)
    assert first.values == values
    assert set(second.values) == {b"x"}
    assert first.records[0].offset == starts[0]
    assert first.records[0].topic == STOPS.name
    assert first.records[0].timestamp_ms > 0
    await stops.drained_after_now(2)


@pytest.mark.broker
async def test_a_released_partition_delivers_nothing_and_is_not_drained(stops: Stops) -> None:
    """Not even the last partition of all."""
    inbox = Inbox()
    stops.reader.assign(4, await stops.end(4), inbox.take)
    await stops.drained_after_now(4)
    stops.reader.release(4)
    await stops.write(4, [b"late"])
    offset = await stops.end(4)
    assert stops.reader.drained_at(4) is None
    assert stops.reader.read_to_end_at(4) is None
    stops.reader.assign(4, offset, inbox.take)
    await stops.drained_after_now(4)
    assert inbox.values == []


@pytest.mark.broker
async def test_a_stop_in_an_open_transaction_is_delivered_and_markers_do_not_hold_up_the_end(stops: Stops) -> None:
    """Read_uncommitted; an aborted stop is still a stop; a trailing marker is nothing to fold."""
    inbox = Inbox()
    start = await stops.end(5)
    stops.reader.assign(5, start, inbox.take)
    producer = transactional_producer(stops.bootstrap, "test-stops-5")
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(STOPS.name, b"stop", key=b"k", partition=5)
    await until(lambda: inbox.values == [b"stop"])
    await stops.drained_after_now(5)
    await producer.abort_transaction()
    await producer.stop()
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while await stops.end(5) != start + 2:  # the marker follows the answer
            pass
    await stops.drained_after_now(5, committed=start + 1)
    read = stops.reader.read_to_end_at(5)
    assert read is not None
    assert read[1] == start + 1


@pytest.mark.broker
async def test_delivered_is_not_folded(stops: Stops) -> None:
    """What the owner has not committed is not drained for the gate, though it was handed over."""
    start = await stops.end(6)
    inbox = Inbox()
    stops.reader.assign(6, start, inbox.take)
    await stops.drained_after_now(6, committed=start)
    await stops.write(6, [b"stop"])
    written_at = stops.clock.monotonic()
    await until(lambda: inbox.values == [b"stop"])
    await stops.drained_after_now(6)
    assert (stops.reader.drained_at(6, committed=start) or 0) < written_at
    await stops.drained_after_now(6, committed=start + 1)


@pytest.mark.broker
async def test_a_partition_whose_owner_does_not_fold_waits_alone(stops: Stops) -> None:
    """A full inbox bounds what is handed over, and holds up nobody else."""
    full, other = Inbox(), Inbox()
    count = OPEN_MAX + 3 * RECORDS_MAX
    starts = [await stops.end(7), await stops.end(8)]
    folded = 0
    stops.reader.assign(7, starts[0], full.take, lambda: len(full.values) - folded)
    stops.reader.assign(8, starts[1], other.take)
    await stops.write(7, [b"%d" % n for n in range(count)])
    await stops.write(8, [b"urgent"])
    await until(lambda: other.values == [b"urgent"] and len(full.values) > OPEN_MAX)
    await stops.drained_after_now(8)
    assert len(full.values) <= OPEN_MAX + RECORDS_MAX
    folded = count
    await until(lambda: len(full.values) == count)
    await stops.drained_after_now(7)


@pytest.mark.broker
async def test_an_offset_that_the_log_does_not_have_is_never_drained(stops: Stops) -> None:
    """What was stopped there cannot be known."""
    inbox = Inbox()
    stops.reader.assign(9, await stops.end(9) + 100, inbox.take)
    stops.reader.assign(10, await stops.end(10), inbox.take)
    for _ in range(3):
        await stops.drained_after_now(10)
    assert stops.reader.drained_at(9) is None


def test_an_end_is_proven_only_when_everything_below_it_was_delivered() -> None:
    """And it is dated by the question, not by the delivery."""
    read = ReadToEnd(delivered=10, after_last_record=10)
    read.told(1.0, 12)
    assert read.latest() is None
    read.deliver(11, 11)
    assert read.latest() is None
    read.deliver(12)
    end = read.latest()
    assert end is not None
    assert (end.at, end.position) == (1.0, 11)
    assert read.folded_at(10) is None
    assert read.folded_at(11) == 1.0
    read.told(2.0, 12)
    read.told(3.0, 15)
    assert read.folded_at(11) == 2.0
    read.deliver(20, 20)
    assert read.folded_at(14) == 2.0
    assert read.folded_at(15) == 3.0
    read.forget()
    assert read.latest() is None
