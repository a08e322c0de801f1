"""`live_call_bytes`: what a live call keeps in memory: 2,000 answered calls with a message of 1,000 characters.

Everything an ownership holds counts: state, data keys (wrapped and opened), timers, readiness of agents. The log takes
what it is given at once; what it was given is not kept.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from bench.child import answer, lines
from bench.deployed import NoEffects, parts
from bench.requests import CAMPAIGN, Command, place_calls
from dialer.callee import inputs as i
from dialer.callee.state import Callee, Phase
from dialer.campaigns import open_campaigns
from dialer.log import Record, Restored
from dialer.ownership import Ownership
from dialer.records import RawRecord
from runtime.clock import SystemClock
from runtime.settings import Settings
from schemas.facts import AgentReady
from schemas.observations import DialOutcome
from schemas.topics import COMMANDS

MESSAGE_LENGTH: Final = 1000
PARTITION: Final = 0
WARM_UP: Final = 16
"""Calls before those that count: what is loaded or made once, time zones for example, belongs to no call."""
WAIT_S: Final = 60.0


class _TakesAll:
    """A partition's log that answers at once and keeps nothing."""

    async def fence(self) -> None:
        """End nobody."""

    async def restore(self) -> Restored:
        """Begin with nothing."""
        return Restored()

    async def commit(self, records: Sequence[Record]) -> None:
        """Take everything."""

    async def close(self) -> None:
        """Hold nothing."""


class _Grants(NoEffects):
    """Effects whose slots are never given back."""

    def holds_slot(self, call_id: str) -> bool:
        """Tell that the slot is held."""
        del call_id
        return True


async def _published(campaign_hash: str, definition: bytes) -> None:
    """Take a definition."""


async def _until(ownership: Ownership, commands: Sequence[Command], phase: Phase) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            callees = [ownership.committed(command.key.decode()) for command in commands]
            if all(c is not None and next(iter(c.calls.values())).phase is phase for c in callees):
                return
            await asyncio.sleep(0.01)


def _call_of(callee: Callee | None) -> str:
    assert callee is not None
    return next(iter(callee.calls))


async def measure(calls: int) -> float:
    """Return bytes a live call."""
    needed = calls + WARM_UP
    ours = [c for c in place_calls(needed * 26, 7, "live") if c.partition == PARTITION]
    assert len(ours) >= needed, "the numbers are spread evenly enough"
    first, chosen = ours[:WARM_UP], ours[WARM_UP:needed]
    with tempfile.TemporaryDirectory() as directory:
        text = "Hello {first_name}. " + "x" * (MESSAGE_LENGTH - len("Hello Ann. "))
        campaign = {"id": CAMPAIGN, "type": "one_way", "message": text, "trunk": "t", "countries_allowed": ["US"]}
        (Path(directory) / "refill.yaml").write_text(yaml.safe_dump(campaign))
        clock = SystemClock()
        settings = Settings(campaigns_dir=directory)
        campaigns = open_campaigns(settings, _published, clock)
        await campaigns.warm()
    shared = replace(parts(clock, campaigns, settings), effects=lambda _: _Grants())
    ownership = Ownership(PARTITION, _TakesAll(), shared)
    await ownership.take_over()
    serving = asyncio.create_task(ownership.serve())
    await _through(ownership, clock, first, 0)
    gc.collect()
    tracemalloc.start()
    began = tracemalloc.get_traced_memory()[0]
    await _through(ownership, clock, chosen, WARM_UP)
    await asyncio.sleep(0.1)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - began
    tracemalloc.stop()
    ownership.end()
    await serving
    return used / calls


async def _through(ownership: Ownership, clock: SystemClock, commands: Sequence[Command], first: int) -> None:
    """Take each command's call from its record to its talk."""
    now_ms = int(time.time() * 1000)
    for offset, command in enumerate(commands, first):
        raw = RawRecord(
            topic=COMMANDS.name,
            partition=PARTITION,
            offset=offset,
            timestamp_ms=now_ms,
            key=command.key,
            value=command.value,
        )
        ownership.offer_records([raw])
    await _until(ownership, commands, Phase.WAITING)
    for command in commands:
        _answer(ownership, clock, command.key.decode())
    await _until(ownership, commands, Phase.ANSWERED)


def _answer(ownership: Ownership, clock: SystemClock, key: str) -> None:
    """Take a call to its talk, by the inputs that take it there."""
    call, now = _call_of(ownership.committed(key)), clock.now()
    job = f"AJ_{key[:12]}"
    base: dict[str, Any] = {"at": now, "call_id": call}
    ready = AgentReady(attempt=1, job_id=job, number=1)
    outcome = DialOutcome(attempt=1, result="answered")
    room: dict[str, Any] = {
        "ok": True,
        "room": f"call-{call}-1",
        "room_sid": f"RM_{key[:12]}",
        "agent_name": "outbound-dialer",
    }
    turn: dict[str, Any] = {"trunk": "t", "caller_id": "c", "control": "none"}
    for given in (
        i.SlotGranted(id=f"slot/{call}", **base),
        i.RoomAnswered(id=f"room/{call}-1", attempt=1, **base, **room),
        i.FactSeen(id=f"{call}-1/{job}/1", attempt=1, fact=ready, source=f"/agent/1/{job}", **base),
        i.TurnGranted(id=f"turn/{call}-1", attempt=1, **base, **turn),
        i.Dialled(id=f"dial/{call}-1", attempt=1, outcome=outcome, **base),
    ):
        assert ownership.offer(key, given)


async def live_calls() -> None:
    """Answer one parent's question."""
    asked = orjson.loads(await (await lines()).readline())
    answer(bytes=await measure(asked["calls"]))
