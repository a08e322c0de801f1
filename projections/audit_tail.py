"""Finds where each partition's audit stands: the last committed record of its own partition of `dialer.audit`.

To be asked after the fence, when no earlier publisher can add to it. The end is taken read_uncommitted and reading goes
up to it read_committed, so that a transaction still open there is waited for and not overlooked. Source: design §7.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from projections.audit_trail import START, Place, place_of
from projections.closing import let_go
from projections.errors import LogUnusable
from projections.streams import Streams
from runtime.kafka import assigned_consumer

TAIL_TIMEOUT_S: Final = 30.0
WINDOW_FIRST: Final = 16
WINDOW_GROWTH: Final = 16
"""A tail may be all markers and aborted records, so the look back grows until it meets a record or the start."""


async def places(bootstrap: str, streams: Streams) -> dict[int, Place]:
    """Return each partition's place, `START` for one without records. Raises: KafkaError, TimeoutError, LogUnusable."""
    assignment = [TopicPartition(streams.audit, number) for number in range(streams.partitions)]
    committed = assigned_consumer(bootstrap, "dialer-audit-tail", read_committed=True)
    uncommitted = assigned_consumer(bootstrap, "dialer-audit-end", read_committed=False)
    try:
        async with asyncio.timeout(TAIL_TIMEOUT_S):
            await committed.start()
            await uncommitted.start()
            starts: dict[TopicPartition, int] = await uncommitted.beginning_offsets(assignment)
            ends: dict[TopicPartition, int] = await uncommitted.end_offsets(assignment)
            found = await _last_headers(committed, starts, ends)
    finally:
        await asyncio.gather(let_go(committed.stop()), let_go(uncommitted.stop()))
    return {tp.partition: _place(tp, found.get(tp)) for tp in assignment}


def _place(tp: TopicPartition, headers: tuple[tuple[str, bytes], ...] | None) -> Place:
    if headers is None:
        return START
    place = place_of(headers)
    if place is None:
        raise LogUnusable(f"the last record of {tp.topic} partition {tp.partition} was not written by this program")
    return place


async def _last_headers(
    consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, tuple[tuple[str, bytes], ...]]:
    last: dict[TopicPartition, tuple[tuple[str, bytes], ...]] = {}
    pending = {tp for tp in ends if ends[tp] > starts[tp]}
    window = WINDOW_FIRST
    while pending:
        consumer.assign(sorted(pending))
        begins = {tp: max(starts[tp], ends[tp] - window) for tp in pending}
        for tp, offset in begins.items():
            consumer.seek(tp, offset)
        unread = set(pending)
        while unread:
            batch = await consumer.getmany(timeout_ms=50)
            last.update({tp: tuple(records[-1].headers) for tp, records in batch.items()})
            unread = {tp for tp in unread if await consumer.position(tp) < ends[tp]}
        pending = {tp for tp in pending if tp not in last and begins[tp] > starts[tp]}
        window *= WINDOW_GROWTH
    return last
