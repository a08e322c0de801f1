"""The audit publisher against a real broker: each event's records once, whatever dies and whenever."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

import pytest
from aiokafka import ConsumerRecord

from projections.audit_publisher import AuditPublisher
from projections.audit_trail import Trail
from projections.errors import AuditFenced
from projections.streams import Streams
from runtime.clock import SystemClock
from runtime.kafka import transactional_producer
from tests.projections.broker import PARTITIONS, read_topic, running, until, write_log
from tests.projections.records import mixed_log
from tests.projections.test_runner import die_at

pytestmark = pytest.mark.broker
Lines = dict[int, list[tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]]]


def publisher_of(bootstrap: str, streams: Streams) -> AuditPublisher:
    return AuditPublisher(bootstrap, SystemClock(), streams)


def opening(bootstrap: str, streams: Streams):
    return running(publisher_of(bootstrap, streams), "open", "close")


async def expected(bootstrap: str, streams: Streams) -> Lines:
    """Make the audit of the whole log by one trail a partition."""
    lines: Lines = {}
    for partition, records in (await read_topic(bootstrap, streams.events)).items():
        trail = Trail()
        outs = [out for record in records for out in trail.take(record)]
        lines[partition] = [(out.key, out.value, tuple(out.headers)) for out in outs]
    return lines


async def published(bootstrap: str, streams: Streams) -> Lines:
    def line(record: ConsumerRecord):
        return record.key, record.value, tuple(record.headers)

    found = await read_topic(bootstrap, streams.audit)
    return {partition: [line(record) for record in records] for partition, records in found.items()}


async def settle(publisher: AuditPublisher, bootstrap: str, streams: Streams) -> None:
    """Publish until the audit is whole, then one round more that must add nothing."""
    want = await expected(bootstrap, streams)

    count = sum(map(len, want.values()))

    async def enough() -> bool:
        return sum(map(len, (await published(bootstrap, streams)).values())) >= count

    await until(enough, publisher.step)
    await publisher.step()
    assert await published(bootstrap, streams) == want


async def test_the_audit_is_the_trail_of_the_log_over_restarts(kafka_bootstrap: str, streams: Streams) -> None:
    """Record for record, byte for byte, in the partition of its event; each restart goes on where the last ended."""
    records = mixed_log(24, PARTITIONS)
    step = len(records) // 4 + 1
    for start in range(0, len(records), step):
        await write_log(kafka_bootstrap, streams, records[start : start + step])
        async with opening(kafka_bootstrap, streams) as publisher:
            await settle(publisher, kafka_bootstrap, streams)
    async with opening(kafka_bootstrap, streams) as publisher:
        await settle(publisher, kafka_bootstrap, streams)


async def test_each_record_says_which_of_its_events_records_it_is(kafka_bootstrap: str, streams: Streams) -> None:
    """Header `source_index`, from 0: in this version no event has more than one."""
    await write_log(kafka_bootstrap, streams, mixed_log(12, PARTITIONS))
    async with opening(kafka_bootstrap, streams) as publisher:
        await settle(publisher, kafka_bootstrap, streams)
    for records in (await read_topic(kafka_bootstrap, streams.audit)).values():
        indexes = [dict(record.headers)["source_index"] for record in records]
        assert all(index == b"0" for index in indexes)


@pytest.mark.parametrize(("where", "left"), [("before_commit", False), ("after_commit", True)])
async def test_killed_at_the_commit_nothing_is_published_twice_and_nothing_is_lost(
    kafka_bootstrap: str, streams: Streams, where: str, left: bool
) -> None:
    """Acknowledged but not committed is not there; committed but not noted is not published again."""
    await write_log(kafka_bootstrap, streams, mixed_log(24, PARTITIONS))
    assert await die_at(where, kafka_bootstrap, streams, "-") == -signal.SIGKILL
    raw = await read_topic(kafka_bootstrap, streams.audit, read_committed=False)
    assert any(raw.values()), "the child died with records on the topic"
    async with opening(kafka_bootstrap, streams) as publisher:
        committed = await published(kafka_bootstrap, streams)
        assert any(committed.values()) is left
        await settle(publisher, kafka_bootstrap, streams)


async def test_a_zombie_is_fenced_and_says_so(kafka_bootstrap: str, streams: Streams) -> None:
    """The first publisher finds out at its next transaction; what it made meanwhile is nowhere."""
    records = mixed_log(24, PARTITIONS)
    half = len(records) // 2
    await write_log(kafka_bootstrap, streams, records[:half])
    async with opening(kafka_bootstrap, streams) as zombie:
        await settle(zombie, kafka_bootstrap, streams)
        async with opening(kafka_bootstrap, streams) as heir:
            await write_log(kafka_bootstrap, streams, records[half:])
            with pytest.raises(AuditFenced, match="another process publishes the audit"):
                await until(_never, zombie.step)
            await settle(heir, kafka_bootstrap, streams)


async def test_a_zombie_with_an_open_transaction_is_aborted_by_the_fence(
    kafka_bootstrap: str, streams: Streams
) -> None:
    """The place is read after the fence, so that what the zombie had in flight counts as not there."""
    await write_log(kafka_bootstrap, streams, mixed_log(24, PARTITIONS))
    partition, lines = next((p, found) for p, found in (await expected(kafka_bootstrap, streams)).items() if found)
    zombie = transactional_producer(kafka_bootstrap, f"{streams.publisher}-{partition}")
    async with running(zombie):
        await zombie.begin_transaction()
        await _send(zombie, streams, partition, lines)
        async with opening(kafka_bootstrap, streams) as publisher:
            await settle(publisher, kafka_bootstrap, streams)


async def test_a_tail_of_aborted_records_and_markers_does_not_hide_the_place(
    kafka_bootstrap: str, streams: Streams
) -> None:
    """The look back grows until it meets a committed record."""
    await write_log(kafka_bootstrap, streams, mixed_log(24, PARTITIONS))
    async with opening(kafka_bootstrap, streams) as publisher:
        await settle(publisher, kafka_bootstrap, streams)
    partition, lines = next((p, found) for p, found in (await expected(kafka_bootstrap, streams)).items() if found)
    aborting = transactional_producer(kafka_bootstrap, f"aborting-{streams.publisher}")
    async with running(aborting):
        for _ in range(20):
            await aborting.begin_transaction()
            await _send(aborting, streams, partition, lines[:3])
            await aborting.abort_transaction()
    async with opening(kafka_bootstrap, streams) as publisher:
        await settle(publisher, kafka_bootstrap, streams)


async def test_two_publishers_that_run_side_by_side_publish_once(kafka_bootstrap: str, streams: Streams) -> None:
    """At least one ends by the fence while the log is still being written; both, where their fences crossed."""
    records = mixed_log(40, PARTITIONS)
    first = asyncio.create_task(publisher_of(kafka_bootstrap, streams).run())
    second = asyncio.create_task(publisher_of(kafka_bootstrap, streams).run())
    try:
        await write_log(kafka_bootstrap, streams, records, per_transaction=5)
        async with asyncio.timeout(30):
            done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        assert {type(task.exception()) for task in done} == {AuditFenced}
    finally:
        for task in (first, second):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
    async with opening(kafka_bootstrap, streams) as publisher:
        await settle(publisher, kafka_bootstrap, streams)


async def _never() -> bool:
    return False


async def _send(producer, streams: Streams, partition: int, lines: Sequence[tuple]) -> None:
    futures = [
        await producer.send(streams.audit, value, key, partition, headers=list(headers))
        for key, value, headers in lines
    ]
    await asyncio.gather(*futures)
