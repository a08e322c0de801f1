"""`takeover_growth`: how the time from assignment to the first decision grows with the log's length.

Two stages on the same topics: 10,000 events, then many more, written by the dialer itself, about the same remembered
callees, 1,000 calls live. Compaction of `dialer.callees` is left to the topic's settings and waited for. A take-over is
that of all partitions by one fresh process; a command waits in each partition, and the clock stops when the last of
them is decided and committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from bench import bed
from bench.child import Child, running
from bench.requests import Command, numbers, place_call, place_calls, stop
from schemas.topics import CALLEES, EVENTS, STOPS
from schemas.values import PARTITIONS, call_id, request_hash

CALLEES_MAX: Final = 2_500
LIVE: Final = 1_000
CHUNK: Final = 20_000
MORE_REMEMBERED: Final = 25_000
"""Callees added at the end: what they add to a take-over is what remembering costs."""
SETTLED_POLL_S: Final = 20.0
ROLL_AFTER_S: Final = 620.0
"""`segment.ms` of `dialer.callees`, and a little: an append after it rolls the segment, which may then be cleaned."""
SETTLED_TIMEOUT_S: Final = 1_500.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """What one stage came to."""

    events: int
    snapshots: int
    """Records that a take-over reads from `dialer.callees`, compacted as far as the broker has come."""
    remembered: int
    """Callees without an open call."""
    seconds: tuple[float, ...]


class _Writer:
    """Has the dialer write events, and knows how many there are."""

    def __init__(self, chunk: bed.Chunk, dialer: Child) -> None:
        self._chunk, self.dialer = chunk, dialer
        self._callees = place_calls(CALLEES_MAX, 11, "first")
        self._cycles = self._suppressions()

    async def begin(self) -> int:
        """Give every callee a call; all but `LIVE` of them are cancelled, their callees remembered. Returns events."""
        await self._write(self._callees, None)
        await self._cancel(self._callees[LIVE:], "first", LIVE)
        return CALLEES_MAX * 2 + (CALLEES_MAX - LIVE) * 2

    async def remember(self, count: int) -> None:
        """Add callees whose one call is cancelled."""
        more = place_calls(count, 12, "more")
        await self._write(more, None)
        await self._cancel(more, "more", 0)

    async def _cancel(self, placed: list[Command], prefix: str, first: int) -> None:
        stops = [
            stop("cancel_call", c.key.decode(), f"cancel-{prefix}-{n}", call_id=_call_id(c, f"{prefix}-{n:06d}"))
            for n, c in enumerate(placed, first)
        ]
        await self._write(stops, STOPS.name)

    async def grow(self, events: int) -> None:
        """Write so many more: each stop is one event."""
        for begun in range(0, events, CHUNK):
            await self._write(list(islice(self._cycles, min(CHUNK, events - begun))), STOPS.name)

    def _suppressions(self) -> Iterator[Command]:
        """Suppress every remembered callee and lift it again, over and over: all of one, then all of the other."""
        idle = self._callees[LIVE:]
        for turn, kind in enumerate(cycle(("suppress_callee", "lift_suppression"))):
            for number, command in enumerate(idle):
                callee = command.key.decode()
                yield stop(kind, callee, f"{kind}-{turn}-{number}", callee_key=callee)

    async def _write(self, commands: list[Command], topic: str | None) -> None:
        where = {} if topic is None else {"topic": topic}
        ends = await self._chunk.write(commands, **where)
        await self._chunk.release()
        await self.dialer.ask(ends=ends, **where)


def _call_id(command: Command, request: str) -> str:
    return call_id(command.key.decode(), request_hash("rx-refill", request))


async def takeover_growth(bootstrap: str, few: int, many: int, rounds: int, say: Say) -> tuple[Takeover, ...]:
    """Run both stages, and a third with more callees to remember."""
    await bed.fresh_topics(bootstrap)
    chunk = bed.Chunk(bootstrap)
    await chunk.start()
    try:
        async with running("deployed") as dialer:
            await dialer.ask(bootstrap=bootstrap)
            writer = _Writer(chunk, dialer)
            begun = await writer.begin()
            await writer.grow(few - begun)
        say(f"takeover_growth: {few:,} events written")
        remembered = CALLEES_MAX - LIVE
        first = await _measure(bootstrap, chunk, rounds, 0, remembered)
        began = time.monotonic()
        async with running("deployed") as dialer:
            await dialer.ask(bootstrap=bootstrap)
            writer.dialer = dialer
            await writer.grow(many - few)
            say(f"takeover_growth: {many:,} events written in {time.monotonic() - began:.0f} s")
            if many > few:
                await _compacted(bootstrap, writer, say)
        second = await _measure(bootstrap, chunk, rounds, 1, remembered)
        async with running("deployed") as dialer:
            await dialer.ask(bootstrap=bootstrap)
            writer.dialer = dialer
            await writer.remember(MORE_REMEMBERED)
        third = await _measure(bootstrap, chunk, rounds, 2, remembered + MORE_REMEMBERED)
    finally:
        await chunk.close()
    return first, second, third


async def _compacted(bootstrap: str, writer: _Writer, say: Say) -> None:
    """Wait until the broker has rolled and cleaned `dialer.callees` and no longer does; nothing is asked of it."""
    began = time.monotonic()
    await asyncio.sleep(ROLL_AFTER_S)
    await writer.grow(CALLEES_MAX - LIVE)
    before = -1
    while time.monotonic() - began < SETTLED_TIMEOUT_S:
        count, _ = await bed.sizes(bootstrap, CALLEES.name)
        say(f"takeover_growth: {count:,} snapshots after {time.monotonic() - began:.0f} s")
        if count == before:
            return
        before = count
        await asyncio.sleep(SETTLED_POLL_S)


async def _measure(bootstrap: str, chunk: bed.Chunk, rounds: int, stage: int, remembered: int) -> Takeover:
    """Take everything over, several times; the commands that wait are few and to new numbers."""
    source = numbers(500 + stage)
    took = []
    for number in range(rounds):
        waiting: dict[int, Command] = {}
        while len(waiting) < PARTITIONS:
            command = place_call(next(source), f"wait-{stage}-{number}")
            waiting.setdefault(command.partition, command)
        ends = await chunk.write(list(waiting.values()))
        await chunk.release()
        async with running("takeover") as dialer:
            took.append((await dialer.ask(bootstrap=bootstrap, ends=ends))["seconds"])
    events, _ = await bed.sizes(bootstrap, EVENTS.name)
    snapshots, _ = await bed.sizes(bootstrap, CALLEES.name)
    return Takeover(events=events, snapshots=snapshots, remembered=remembered, seconds=tuple(took))
