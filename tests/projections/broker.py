"""A log and an audit topic of a test's own on the shared broker: made, written as owners write, read back."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete

from projections.streams import Streams
from runtime.kafka import admin, assigned_consumer, transactional_producer
from schemas.topics import AUDIT, EVENTS
from tests.projections.records import Record

PARTITIONS = 4


async def make_streams(bootstrap: str) -> Streams:
    """Make the two topics, configured as the contract's, under names of their own."""
    mark = uuid.uuid4().hex[:8]
    streams = Streams(
        events=f"{EVENTS.name}-{mark}", audit=f"{AUDIT.name}-{mark}", partitions=PARTITIONS, publisher=f"audit-{mark}"
    )
    client = admin(bootstrap)
    await client.start()
    try:
        await client.create_topics(
            [
                NewTopic(streams.events, PARTITIONS, 1, topic_configs=EVENTS.config),
                NewTopic(streams.audit, PARTITIONS, 1, topic_configs=AUDIT.config),
            ]
        )
    finally:
        await client.close()
    return streams


async def write_log(bootstrap: str, streams: Streams, records: Sequence[Record], per_transaction: int = 50) -> None:
    """Write records in transactions, with an aborted one between any two."""
    producer = transactional_producer(bootstrap, f"owner-{streams.events}")
    await producer.start()
    try:
        for start in range(0, len(records), per_transaction):
            part = records[start : start + per_transaction]
            for commit in (False, True):
                await producer.begin_transaction()
                for record in part:
                    future = await producer.send(
                        streams.events, record.value, record.key, record.partition, headers=list(record.headers)
                    )
                    if record is part[-1]:
                        await future
                await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()


async def cut_log(bootstrap: str, streams: Streams, partition: int, before: int) -> None:
    """Delete the records of a partition below an offset."""
    client = admin(bootstrap)
    await client.start()
    try:
        await client.delete_records({TopicPartition(streams.events, partition): RecordsToDelete(before)})
    finally:
        await client.close()


async def read_topic(bootstrap: str, topic: str, *, read_committed: bool = True) -> dict[int, list[ConsumerRecord]]:
    """Read a topic from its start to its end, per partition."""
    consumer = assigned_consumer(bootstrap, "test-reader", read_committed=read_committed)
    await consumer.start()
    try:
        tps = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        ends = await consumer.end_offsets(tps)
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, 0)
        found: dict[int, list[ConsumerRecord]] = {number: [] for number in range(PARTITIONS)}
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, records in (await consumer.getmany(timeout_ms=50)).items():
                found[tp.partition] += records
        return found
    finally:
        await consumer.stop()


@asynccontextmanager
async def running(thing: Any, start: str = "start", stop: str = "stop") -> AsyncIterator[Any]:
    """Start something and stop it whatever happens."""
    try:
        await getattr(thing, start)()
        yield thing
    finally:
        await getattr(thing, stop)()


async def until(done: Callable[[], Awaitable[bool]], work: Callable[[], Awaitable[Any]], rounds_max: int = 400) -> None:
    """Do rounds of work until the fact is there; each round waits for records itself."""
    for _ in range(rounds_max):
        if await done():
            return
        await work()
    raise AssertionError("the fact did not come")
