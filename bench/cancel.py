"""`cancel_ms`: from the 202 of a cancel to the hang-up at the phone, behind a backlog of commands, beside the same without.

A round: a dialer, calls that talk; half of them are cancelled one by one on a quiet log; then a backlog is written, and the
other half is cancelled while it is being worked off. Counted too: calls that fell without being asked to, and memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import httpx
from aiokafka import AIOKafkaProducer

from bench import bed
from bench.child import Child, running
from bench.latency import percentile
from bench.requests import CAMPAIGN, Command, numbers, place_call
from rehearsal.ports import free_port
from runtime.kafka import idempotent_producer
from schemas.topics import COMMANDS
from schemas.values import PARTITIONS, room_name

TALKING_TIMEOUT_S: Final = 120.0
SPREAD_S: Final = 0.1
"""A cancel every tenth of a second."""
FELL_TIMEOUT_S: Final = 30.0
PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Heap:
    """A small dialer: what it may hold, and what the kernel gives it (RLIMIT_DATA: heap, stacks, private mappings)."""

    open_calls_max: int
    inbox_max: int
    memory_max_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many calls are cancelled, half of them behind so many commands."""

    cancels: int
    backlog: int
    heap: Heap | None = None


FULL: Final = Size(cancels=240, backlog=1_000_000)
QUICK: Final = Size(cancels=60, backlog=60_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One round, in milliseconds."""

    quiet_ms: list[float]
    behind_ms: list[float]
    behind_first: int
    """Commands that were waiting at the first cancel behind the backlog."""
    behind_last: int
    """And at the last."""
    fell: int
    """Calls that were hung up though nobody cancelled them."""
    rss_mib: float
    commit_ms: float
    """From the beginning of a turn to its commit's answer, on average, behind the backlog: a cancel waits for one or two."""

    def p99(self) -> tuple[float, float]:
        """Return p99 behind the backlog, and on the quiet log."""
        return percentile(self.behind_ms, 0.99), percentile(self.quiet_ms, 0.99)


async def cancel(bootstrap: str, size: Size, seed: int, *, fresh: bool = True) -> Found:
    """Run one round."""
    if fresh:
        await bed.fresh_topics(bootstrap)
    port = free_port()
    source = numbers(seed)
    async with (
        running("cancel") as dialer,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client,
    ):
        heap = {} if size.heap is None else asdict(size.heap)
        began = await dialer.ask(bootstrap=bootstrap, port=port, calls=size.cancels, **heap)
        assert began["ready"], "the dialer did not start"
        calls = [await _place(client, next(source), f"live-{seed}-{n}") for n in range(size.cancels)]
        async with asyncio.timeout(TALKING_TIMEOUT_S):
            while len((await dialer.ask())["talking"]) < size.cancels:
                await asyncio.sleep(PAUSE_S)
        quiet, behind = calls[: size.cancels // 2], calls[size.cancels // 2 :]
        before = await dialer.ask()
        quiet_at = await _cancel_all(client, quiet)
        await write_backlog(bootstrap, source, size.backlog, f"backlog-{seed}")
        amid = await dialer.ask()
        behind_at = await _cancel_all(client, behind)
        after = await dialer.ask()
        hung_up = await _all_fallen(dialer, len(calls))
    written = before["taken"] + size.backlog
    rooms = {call: room_name(call, 1) for call in calls}
    took = {
        call: (hung_up[room] - at) * 1000
        for call, at in (quiet_at | behind_at).items()
        if (room := rooms[call]) in hung_up
    }
    fell = {call for call, ms in took.items() if ms < -1000 * SPREAD_S}
    return Found(
        quiet_ms=[took[call] for call in quiet if call in took and call not in fell],
        behind_ms=[took[call] for call in behind if call in took and call not in fell],
        behind_first=written - amid["taken"],
        behind_last=written - after["taken"],
        fell=len(fell),
        rss_mib=after["rss_mib"],
        commit_ms=(after["commits_s"] - amid["commits_s"]) * 1000 / max(1, after["commits"] - amid["commits"]),
    )


async def _place(client: httpx.AsyncClient, number: str, request: str) -> str:
    body = {
        "campaign_id": CAMPAIGN,
        "request_id": request,
        "to": number,
        "variables": {"first_name": "Ann", "store": "Main Street"},
        "priority": 9,
    }
    answer = await client.post("/v1/calls", json=body)
    answer.raise_for_status()
    return str(answer.json()["call_id"])


async def _cancel_all(client: httpx.AsyncClient, calls: Sequence[str]) -> dict[str, float]:
    """Cancel one after the other at a steady pace; return when each was accepted."""
    accepted: dict[str, float] = {}
    began = time.monotonic()

    async def one(call: str) -> None:
        answer = await client.delete(f"/v1/calls/{call}")
        accepted[call] = time.monotonic()
        answer.raise_for_status()

    asked = []
    for number, call in enumerate(calls):
        await asyncio.sleep(max(0.0, began + number * SPREAD_S - time.monotonic()))
        asked.append(asyncio.create_task(one(call)))
    await asyncio.gather(*asked)
    return accepted


async def _all_fallen(dialer: Child, count: int) -> dict[str, float]:
    async with asyncio.timeout(FELL_TIMEOUT_S):
        while len(found := (await dialer.ask())["hung_up"]) < count:
            await asyncio.sleep(PAUSE_S)
    return dict(found)


async def write_backlog(bootstrap: str, source: Iterator[str], count: int, prefix: str) -> None:
    """Write so many commands as fast as the broker takes them, holding no more than a batch a partition."""
    producer = idempotent_producer(bootstrap, "bench-backlog")
    await producer.start()
    try:
        filling: dict[int, Any] = {p: producer.create_batch() for p in range(PARTITIONS)}
        for n in range(count):
            command = place_call(next(source), f"{prefix}-{n:07d}")
            if _append(filling[command.partition], command):
                continue
            await _send(producer, filling[command.partition], command.partition)
            filling[command.partition] = producer.create_batch()
            _append(filling[command.partition], command)
        for partition, batch in filling.items():
            await _send(producer, batch, partition)
    finally:
        await producer.stop()


def _append(batch: Any, command: Command) -> bool:
    return batch.append(timestamp=None, key=command.key, value=command.value) is not None


async def _send(producer: AIOKafkaProducer, batch: Any, partition: int) -> None:
    sent = await producer.send_batch(batch, COMMANDS.name, partition=partition)
    async with asyncio.timeout(bed.CHUNK_TIMEOUT_S):
        await sent
