"""`commit_latency_ms`: one command at 50 a second, from `send` to its first event in a read_committed consumer's hands.

Beside it the bare loop, fed and read in the same way by the same process, one round after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition

from bench import bed
from bench.bare import IN, OUT
from bench.child import running
from bench.requests import Command, place_calls
from runtime.kafka import assigned_consumer, idempotent_producer
from schemas.topics import COMMANDS, EVENTS
from schemas.values import PARTITIONS

PER_SECOND: Final = 50
WARM_UP: Final = 2_000
WARM_UP_PER_SECOND: Final = 200
"""First commands that are not counted: a broker that has just made its topics compiles its own code and writes out pages,
and each of the 24 producers meets its coordinator for the first time.
"""
LAST_ANSWER_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Both percentiles of one round, in milliseconds."""

    p50_ms: float
    p99_ms: float


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of all lies at or below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, int(len(ordered) * share + 0.999999) - 1))]


async def round_trips(bootstrap: str, commands: Sequence[Command], asked: str, answered: str) -> Latency:
    """Send at a steady pace and take the time of each key's first record."""
    producer = idempotent_producer(bootstrap, "bench-latency")
    consumer = assigned_consumer(bootstrap, "bench-latency", read_committed=True, fetch_max_wait_ms=500)
    await producer.start()
    await consumer.start()
    sent_at: dict[bytes, float] = {}
    took: dict[bytes, float] = {}
    try:
        tps = [TopicPartition(answered, partition) for partition in range(PARTITIONS)]
        ends = await consumer.end_offsets(tps)
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, ends[tp])

        async def read() -> None:
            while len(took) < len(commands):
                fetched = await consumer.getmany(timeout_ms=1000)
                at = time.monotonic()
                for records in fetched.values():
                    for record in records:
                        if record.key in sent_at and record.key not in took:
                            took[record.key] = at - sent_at[record.key]

        reading = asyncio.create_task(read())
        began = time.monotonic()
        for number, command in enumerate(commands):
            await asyncio.sleep(max(0.0, began + _due_s(number) - time.monotonic()))
            sent_at[command.key] = time.monotonic()
            await producer.send(asked, value=command.value, key=command.key, partition=command.partition)
        async with asyncio.timeout(LAST_ANSWER_S):
            await reading
    finally:
        await producer.stop()
        await consumer.stop()
    counted = [took[command.key] * 1000 for command in commands[WARM_UP:]]
    return Latency(p50_ms=percentile(counted, 0.5), p99_ms=percentile(counted, 0.99))


def _due_s(number: int) -> float:
    """Return when a command is sent: the warm-up quickly, then at a steady pace."""
    return min(number, WARM_UP) / WARM_UP_PER_SECOND + max(0, number - WARM_UP) / PER_SECOND


async def latency(bootstrap: str, count: int, seed: int) -> tuple[Latency, Latency]:
    """Run one round; returns the dialer's figures and the bare loop's."""
    commands = place_calls(count + WARM_UP, 1000 + seed, f"latency-{seed}")
    await bed.fresh_topics(bootstrap)
    async with running("deployed") as dialer:
        await dialer.ask(bootstrap=bootstrap)
        ours = await round_trips(bootstrap, commands, COMMANDS.name, EVENTS.name)
    await bed.fresh_topics(bootstrap, (IN, *OUT))
    async with running("bare_echo") as bare:
        await bare.ask(bootstrap=bootstrap)
        limit = await round_trips(bootstrap, commands, IN.name, OUT[0].name)
    return ours, limit
