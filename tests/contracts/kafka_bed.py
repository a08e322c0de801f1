"""A real broker whose second listener is reached through a proxy, so that an answer can truly be swallowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import TopicPartition

from dialer.topic_setup import create_or_verify
from rehearsal import kafka
from rehearsal.ports import LOOPBACK, free_ports
from rehearsal.supervisor import ProcessSpec
from runtime.kafka import assigned_consumer

PARTITION_READ_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxiedBroker:
    """Where it is: `bootstrap` direct, `proxied` through whatever passes `proxy_port` on to `target_port`."""

    spec: ProcessSpec
    bootstrap: str
    proxied: str
    proxy_port: int
    target_port: int


async def prepare(jars: Path, data_dir: Path) -> ProxiedBroker:
    """Lay out a broker with two listeners; the second tells its clients to come by the proxy's port."""
    port, controller_port, target_port, proxy_port = free_ports(4)
    broker = kafka.Broker(jars=jars, data_dir=data_dir, port=port, controller_port=controller_port)
    await kafka.prepare(broker)
    lines = {
        "listeners": f"PLAINTEXT://{broker.bootstrap},PROXIED://{LOOPBACK}:{target_port},"
        f"CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{broker.bootstrap},PROXIED://{LOOPBACK}:{proxy_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
    }
    kept = [line for line in broker.properties_file.read_text().splitlines() if line.split("=")[0] not in lines]
    broker.properties_file.write_text("\n".join([*kept, *(f"{k}={v}" for k, v in lines.items())]) + "\n")
    return ProxiedBroker(
        spec=kafka.broker_spec(broker),
        bootstrap=broker.bootstrap,
        proxied=f"{LOOPBACK}:{proxy_port}",
        proxy_port=proxy_port,
        target_port=target_port,
    )


async def make_topics(bootstrap: str) -> None:
    """Make all topics of the dialer."""
    await create_or_verify(bootstrap)


@asynccontextmanager
async def reader(bootstrap: str, topic: str, partition: int) -> AsyncIterator[list[tuple[bytes, bytes | None]]]:
    """Give all (key, value) that a read_committed reader sees up to the high watermark as of now.

    An open transaction would hold it up: it waits for its end, within a bounded time.
    """
    tp = TopicPartition(topic, partition)
    seen: list[tuple[bytes, bytes | None]] = []
    raw = assigned_consumer(bootstrap, "contract-end", read_committed=False)
    committed = assigned_consumer(bootstrap, "contract", read_committed=True, fetch_max_wait_ms=10)
    await raw.start()
    await committed.start()
    try:
        async with asyncio.timeout(PARTITION_READ_TIMEOUT_S):
            end = (await raw.end_offsets([tp]))[tp]
            committed.assign([tp])
            committed.seek(tp, 0)
            while await committed.position(tp) < end:
                fetched = await committed.getmany(tp, timeout_ms=10)
                seen.extend((record.key, record.value) for record in fetched.get(tp, ()))
        yield seen
    finally:
        await raw.stop()
        await committed.stop()
