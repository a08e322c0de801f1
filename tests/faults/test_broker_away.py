"""The broker is away: calls go on, nobody is dialed, memory stays bounded; when it is back, what waited is done, once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from bench import bed
from dialer.topic_setup import create_or_verify
from runtime.kafka import idempotent_producer
from runtime.settings import Settings
from schemas.topics import OBSERVATIONS
from tests.doubles.agents import Script
from tests.doubles.telephony import Phone
from tests.doubles.waiting import until
from tests.doubles.world import ANN, World
from tests.shell.test_app import Process, body, settings
from tests.shell.test_intake import Group

__all__ = ["settings"]
AWAY_S = 60.0
BACK_S = 240.0
GROWTH_MAX_MIB = 64.0


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Freeze a process: its sockets stay open, and nothing answers."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def rss_mib() -> float:
    """Return what this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture
async def frozen_broker(settings: Settings, tmp_path: Path) -> AsyncIterator[tuple[Settings, int]]:
    """A broker of the test's own, and its process id."""
    async with bed.broker(tmp_path) as bootstrap:
        await create_or_verify(bootstrap)
        (found,) = (tmp_path / "pids").glob("*.pid")
        yield replace(settings, kafka_bootstrap=bootstrap), int(found.read_text())


@pytest.mark.broker
@pytest.mark.slow
async def test_a_broker_that_is_away_for_a_minute_costs_nobody_a_call(frozen_broker: tuple[Settings, int]) -> None:
    """Talks go on, the gate is closed within a second, requests are answered 503, and afterwards all is made once."""
    settings, pid = frozen_broker
    producer = idempotent_producer(settings.kafka_bootstrap, "agents")
    await producer.start()
    process = Process(settings, producer)
    telephony = process.telephony
    process.agents.default = Script(ready_after_s=0.05, speaks_for_s=AWAY_S + 30)
    await process.ready()
    group = Group(settings.kafka_bootstrap)

    async def place(n: int) -> httpx.Response:
        asked = body(f"{group.mark}-{n}") | {"to": f"+1212555{100 + n:04}"}
        return await process.client.post("/v1/calls", json=asked, timeout=30)

    talking = [(await place(n)).json()["call_id"] for n in range(10)]
    await until(lambda: len(telephony.live_legs) == 10, 30)
    async with asyncio.timeout(30):
        while not all("call_answered" in told for told in (await group.told(talking)).values()):
            await asyncio.sleep(0.2)
    waiting = [(await place(n)).json()["call_id"] for n in range(10, 40)]
    before = rss_mib()
    with stopped(pid):
        gone_at = process.app.clock.now()
        began = process.app.clock.monotonic()
        assert (await place(50)).status_code == 503
        while process.app.clock.monotonic() - began < AWAY_S:
            assert set(talking) <= {room.removeprefix("call-").rpartition("-")[0] for room, _ in telephony.live_legs}
            assert (await process.client.get("/health")).status_code == 200
            await asyncio.sleep(1.0)
        grown = rss_mib() - before
        late = [(i.at - gone_at).total_seconds() for i in telephony.invites if i.at > gone_at]
    print(f"grown by {grown:.1f} MiB; INVITEs after the broker went: {late}")
    assert all(seconds <= 1.5 for seconds in late)
    assert grown <= GROWTH_MAX_MIB
    process.agents.default = Script(ready_after_s=0.05, speaks_for_s=0.3)
    calls = talking + waiting
    told = await group.told(calls)
    deadline = process.app.clock.monotonic() + BACK_S
    while open_calls := {call: names for call, names in told.items() if "call_ended" not in names}:
        assert process.app.clock.monotonic() < deadline, open_calls
        await asyncio.sleep(0.5)
        told = await group.told(calls)
    assert all(names.count("call_ended") == 1 for names in told.values())
    attempts = [i.attempt_id for i in telephony.invites]
    assert len(attempts) == len(set(attempts))
    assert not any("agent_lost" in told[call] for call in talking), "nobody was cut off"
    await process.end()
    await producer.stop()


async def test_a_broker_that_stalls_for_twenty_seconds_cuts_off_no_talk() -> None:
    """Agents say nothing because nothing can be heard: that is no silence of theirs."""
    world = World()
    await world.start(ANN)
    world.telephony.script(ANN, Phone(rings_for_s=1.0))
    world.agents.default = Script(speaks_for_s=60.0)
    call = world.place()
    await world.until_told(call, "call_answered")
    world.feed.delayed.add(OBSERVATIONS.name)
    for _ in range(20):
        world.sight.membership_s += 1.0
        await world.clock.advance(1.0)
    world.sight.membership_s = 0.0
    world.feed.delayed.clear()
    world.feed.nudge()
    await world.clock.advance(90)
    assert "agent_lost" not in world.told(call)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    await world.close()
