"""The broker of a measurement: Kafka at full speed, its data under `run/bench/`, on free ports, topics fresh when asked."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError

from bench.requests import Command
from dialer.topic_setup import create_or_verify
from rehearsal import kafka
from rehearsal.ports import free_ports
from rehearsal.provision import provision
from rehearsal.supervisor import Supervisor
from runtime.kafka import admin, assigned_consumer, transactional_producer
from schemas.topics import COMMANDS, TOPICS, Topic
from schemas.values import PARTITIONS

RUN_DIR: Final = Path("run/bench")
CHUNK_TIMEOUT_S: Final = 60.0
DELETED_TIMEOUT_S: Final = 60.0


@asynccontextmanager
async def broker(run_dir: Path = RUN_DIR, jvm_flags: tuple[str, ...] = kafka.FULL_SPEED) -> AsyncIterator[str]:
    """Run a broker with no data; gives its bootstrap address."""
    shutil.rmtree(run_dir / "kafka", ignore_errors=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    port, controller_port = free_ports(2)
    node = kafka.Broker(
        jars=provision().jars,
        data_dir=(run_dir / "kafka").resolve(),
        port=port,
        controller_port=controller_port,
        jvm_flags=jvm_flags,
    )
    await kafka.prepare(node)
    async with Supervisor(run_dir.resolve()) as supervisor:
        await supervisor.start([kafka.broker_spec(node)])
        yield node.bootstrap
    shutil.rmtree(run_dir / "kafka", ignore_errors=True)


async def fresh_topics(bootstrap: str, topics: Sequence[Topic] = TOPICS) -> None:
    """Delete the topics where they are, and make them anew, empty."""
    client = admin(bootstrap)
    await client.start()
    try:
        there = set(await client.list_topics())
        gone = [topic.name for topic in topics if topic.name in there]
        if gone:
            await client.delete_topics(gone)
            async with asyncio.timeout(DELETED_TIMEOUT_S):
                while set(await client.list_topics()) & set(gone):
                    await asyncio.sleep(0.05)
    finally:
        await client.close()
    await create_or_verify(bootstrap, topics=topics)


class Chunk:
    """Commands written in one transaction: a read_committed consumer is given all of them at one moment."""

    def __init__(self, bootstrap: str) -> None:
        self._producer: AIOKafkaProducer = transactional_producer(bootstrap, "bench-commands")

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def close(self) -> None:
        """Disconnect."""
        await self._producer.stop()

    async def write(self, commands: Sequence[Command], topic: str = COMMANDS.name) -> dict[int, int]:
        """Write everything but the commit; return by partition the position after its last record."""
        await self._producer.begin_transaction()
        ends: dict[int, int] = {}
        by_partition: dict[int, list[Command]] = {p: [] for p in range(PARTITIONS)}
        for command in commands:
            by_partition[command.partition].append(command)
        for partition, theirs in by_partition.items():
            position = 0
            while position < len(theirs):
                batch = self._producer.create_batch()
                count = 0
                for command in theirs[position:]:
                    if batch.append(timestamp=None, key=command.key, value=command.value) is None:
                        break
                    count += 1
                sent = await self._send(batch, topic, partition)
                position += count
                ends[partition] = sent + count
        return ends

    async def _send(self, batch: object, topic: str, partition: int) -> int:
        while True:
            try:
                future = await self._producer.send_batch(batch, topic, partition=partition)
                async with asyncio.timeout(CHUNK_TIMEOUT_S):
                    return int((await future).offset)
            except UnknownTopicOrPartitionError:  # the topic is younger than the producer's picture of it
                await self._producer.client.force_metadata_update()

    async def release(self) -> None:
        """Commit: from now on the dialer is given them."""
        await self._producer.commit_transaction()


async def sizes(bootstrap: str, topic: str) -> tuple[int, int]:
    """Return how many committed records a topic has, and their bytes of key, value and headers."""
    tps = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    consumer = assigned_consumer(bootstrap, "bench-sizes", read_committed=True, fetch_max_wait_ms=10)
    await consumer.start()
    count = size = 0
    try:
        ends = await consumer.end_offsets(tps)
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, 0)
        async with asyncio.timeout(CHUNK_TIMEOUT_S):
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=10, max_records=5000)).values():
                    count += len(records)
                    size += sum(len(r.key or b"") + len(r.value or b"") for r in records)
                    size += sum(len(k) + len(v) for r in records for k, v in r.headers)
    finally:
        await consumer.stop()
    return count, size
