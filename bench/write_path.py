"""`write_path`: commands a second through the write side as deployed, beside a bare transactional loop of the same bytes.

A round: topics anew; a process gives 10,000 callees a state; another takes over; 60,000 commands to 60,000 numbers
become visible at one moment (they lie in one transaction); the clock stops when `$offsets` of every partition cover
them, that is after the last commit's answer. Then the bare loop writes as many records of the
same sizes, some times.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

from bench import bed
from bench.bare import OUT
from bench.child import ask_once, running
from bench.figure import Round
from bench.requests import place_calls
from schemas.topics import CALLEES, EVENTS, KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is written: commands, and how many of their callees have a state before."""

    commands: int
    known: int


BARE_RUNS = 3
"""The bare loop is over in a second, and swings by half with what the broker and the disk are busy with: the median counts."""

FULL = Size(commands=60_000, known=10_000)
QUICK = Size(commands=12_000, known=2_000)


async def write_path(bootstrap: str, size: Size, seed: int) -> tuple[Round, dict[str, Any]]:
    """Run one round; returns it with what else was seen."""
    await bed.fresh_topics(bootstrap)
    chunk = bed.Chunk(bootstrap)
    await chunk.start()
    try:
        async with running("deployed") as dialer:
            await dialer.ask(bootstrap=bootstrap)
            ends = await chunk.write(place_calls(size.known, seed, "before"))
            await chunk.release()
            await dialer.ask(ends=ends)
        before = {topic.name: await bed.sizes(bootstrap, topic.name) for topic in (EVENTS, CALLEES, KEYS)}

        async with running("deployed") as dialer:
            owned = await dialer.ask(bootstrap=bootstrap)
            ends = await chunk.write(place_calls(size.commands, seed, "call"))
            began = time.monotonic()
            await chunk.release()
            done = await dialer.ask(ends=ends)
    finally:
        await chunk.close()
    seconds = done["at"] - began
    records: dict[str, tuple[float, int]] = {}
    for out, topic in zip(OUT, (EVENTS, CALLEES, KEYS), strict=True):
        count, bytes_ = await bed.sizes(bootstrap, topic.name)
        count, bytes_ = count - before[topic.name][0], bytes_ - before[topic.name][1]
        records[out.name] = (count / size.commands, bytes_ // max(count, 1) - 26)
    bare_s = statistics.median([await _bare(bootstrap, size, records) for _ in range(BARE_RUNS)])
    seen = done | {"records": records, "owned_s": owned["owned_s"], "seconds": seconds, "bare_s": bare_s}
    return Round(value=size.commands / seconds, limit=size.commands / bare_s), seen


async def _bare(bootstrap: str, size: Size, records: dict[str, tuple[float, int]]) -> float:
    """Return the seconds that the bare loop takes for as many records of the same sizes, on topics anew."""
    await bed.fresh_topics(bootstrap, OUT)
    found = await ask_once("bare_write", bootstrap=bootstrap, commands=size.commands, batch=2000, records=records)
    return float(found["seconds"])
