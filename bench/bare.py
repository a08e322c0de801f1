"""The limit: aiokafka and nothing else. One producer a partition, overlapping, constant bytes in transactions.

`bare_write` writes as many records of the same size as the dialer did; `bare_echo` answers each record with constant
bytes. Both use the dialer's own client options (`runtime/kafka`) and its commit rules, futures looked at included.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaProducer, TopicPartition

from bench.child import answer, lines
from runtime.kafka import assigned_consumer, transactional_producer
from schemas.topics import CALLEES, EVENTS, KEYS, Topic
from schemas.values import PARTITIONS

IN: Final = Topic(name="bench.in", key="any", purpose="asked", partitions=PARTITIONS, config={})
OUT: Final = tuple(
    Topic(name=f"bench.{topic.name}", key="any", purpose=topic.purpose, partitions=PARTITIONS, config=topic.config)
    for topic in (EVENTS, CALLEES, KEYS)
)
RECORDS_MAX: Final = 2000


async def _producers() -> list[AIOKafkaProducer]:
    return list(await asyncio.gather(*(_producer(partition) for partition in range(PARTITIONS))))


async def _producer(partition: int) -> AIOKafkaProducer:
    producer = transactional_producer(_bootstrap, f"bare-{partition}")
    await producer.start()
    await asyncio.gather(*(producer.partitions_for(topic.name) for topic in OUT))
    return producer


_bootstrap = ""


async def bare_write() -> None:
    """Write `commands` commands' records; a topic's records a command and their size are given by the parent."""
    global _bootstrap  # noqa: PLW0603
    reader = await lines()
    asked: dict[str, Any] = orjson.loads(await reader.readline())
    _bootstrap = asked["bootstrap"]
    producers = await _producers()
    ready = asyncio.Barrier(PARTITIONS)
    began: list[float] = []

    async def fill(partition: int) -> None:
        producer = producers[partition]
        left = asked["commands"] // PARTITIONS + (partition < asked["commands"] % PARTITIONS)
        await ready.wait()
        began.append(time.monotonic())
        while left > 0:
            take = min(left, asked["batch"])
            left -= take
            await producer.begin_transaction()
            sent = []
            for topic, (per_command, size) in asked["records"].items():
                value = b"x" * size
                batch = producer.create_batch()
                for _ in range(round(take * per_command)):
                    if batch.append(timestamp=None, key=b"k" * 26, value=value) is None:
                        sent.append(await producer.send_batch(batch, topic, partition=partition))
                        batch = producer.create_batch()
                        batch.append(timestamp=None, key=b"k" * 26, value=value)
                sent.append(await producer.send_batch(batch, topic, partition=partition))
            await asyncio.gather(*sent)
            await producer.commit_transaction()

    await asyncio.gather(*(fill(partition) for partition in range(PARTITIONS)))
    answer(seconds=time.monotonic() - min(began))
    await asyncio.gather(*(producer.stop() for producer in producers))


async def bare_echo() -> None:
    """Answer every record of `bench.in` with five constant records in one transaction: two events, snapshot, offsets, key."""
    global _bootstrap  # noqa: PLW0603
    reader = await lines()
    asked: dict[str, Any] = orjson.loads(await reader.readline())
    _bootstrap = asked["bootstrap"]
    producers = await _producers()
    consumer = assigned_consumer(_bootstrap, "bench-bare", read_committed=True)
    await consumer.start()
    tps = [TopicPartition(IN.name, partition) for partition in range(PARTITIONS)]
    consumer.assign(tps)
    for tp in tps:
        consumer.seek(tp, 0)

    async def echo(tp: TopicPartition) -> None:
        producer = producers[tp.partition]
        while True:
            records = (await consumer.getmany(tp, timeout_ms=1000, max_records=RECORDS_MAX)).get(tp, ())
            if not records:
                continue
            await producer.begin_transaction()
            sent = []
            for topic, size, count in ((OUT[0].name, 800, 2), (OUT[1].name, 800, 2), (OUT[2].name, 120, 1)):
                batch = producer.create_batch()
                for record in records:
                    for _ in range(count):
                        batch.append(timestamp=None, key=record.key, value=b"x" * size)
                sent.append(await producer.send_batch(batch, topic, partition=tp.partition))
            await asyncio.gather(*sent)
            await producer.commit_transaction()

    tasks = [asyncio.create_task(echo(tp)) for tp in tps]
    answer(ready=True)
    await reader.read()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await consumer.stop()
    await asyncio.gather(*(producer.stop() for producer in producers))
