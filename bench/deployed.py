"""The write side as `dialer serve` composes it, with effects that reach nobody: owner, intake and log are the real ones.

It runs in a process of its own (`bench.child`). Composition follows `dialer/app.py`.
"""

from __future__ import annotations

import asyncio
import resource
import time
from datetime import timedelta
from typing import Any, Final

import orjson

from bench.child import answer, lines
from bench.requests import MASTER, PEPPER
from bench.stalls import Stalls
from dialer.callee.owed import Effect
from dialer.callee.state import Callee
from dialer.campaigns import Campaigns, open_campaigns
from dialer.intake import Intake
from dialer.kafka_log import KafkaLog
from dialer.owner import Owner
from dialer.ownership import Ownership, Parts
from dialer.requests import Requests
from runtime import collector
from runtime.clock import SystemClock
from runtime.seal import MasterKey
from runtime.settings import Settings
from schemas.observations import DialOutcome
from schemas.topics import COMMANDS
from schemas.values import PARTITIONS

POLL_S: Final = 0.005


class NoEffects:
    """A port that answers nothing."""

    def align(self, callee: Callee, wanted: frozenset[Effect], decided_at: float) -> None:
        """Start nothing."""

    def holds_slot(self, call_id: str) -> bool:
        """Grant nothing."""
        del call_id
        return False

    def close(self) -> None:
        """Nothing was started."""

    def leg_joined(self, callee_key: str, call_id: str, attempt: int) -> None:
        """Nothing was dialed."""

    def orphaned(self, call_id: str, outcome: DialOutcome) -> None:
        """Nothing was dialed."""


def parts(clock: SystemClock, campaigns: Campaigns, settings: Settings) -> Parts:
    """Return what all ownerships share, at the settings' defaults."""
    return Parts(
        clock=clock,
        pepper=PEPPER,
        master=MasterKey(MASTER),
        memory=timedelta(days=settings.request_memory_d),
        campaigns=campaigns,
        batch_max=settings.batch_max,
        inbox_max=settings.inbox_max,
        effects=lambda _: NoEffects(),
    )


class Deployed:
    """One dialer process without telephony."""

    def __init__(self, bootstrap: str, campaigns_dir: str = "") -> None:
        settings = Settings(kafka_bootstrap=bootstrap, campaigns_dir=campaigns_dir)
        self.clock = SystemClock()
        self.requests = Requests(bootstrap)
        self.campaigns = open_campaigns(settings, self.requests.send_campaign, self.clock)
        shared = parts(self.clock, self.campaigns, settings)
        logs = KafkaLog(bootstrap, self.clock)
        self.intake = Intake(
            bootstrap,
            settings.group_id,
            settings.session_timeout_s,
            lambda partition: Owner(partition, logs, shared, self.intake, self.clock),
            lambda _: None,
            self.clock,
        )

    async def start(self) -> None:
        """Join the group and wait until every partition is owned."""
        await self.requests.start()
        await self.campaigns.warm()
        await self.intake.start()
        while len(self.owned()) < PARTITIONS:
            await asyncio.sleep(POLL_S)

    def owned(self) -> dict[int, Ownership]:
        """Return the ownerships that take inputs."""
        return {p: o.current for p, o in self.intake.owners.items() if o.current is not None}

    def has_reached(self, ends: dict[int, int], topic: str) -> bool:
        """Tell whether the committed positions of a topic cover these ends."""
        owned = self.owned()
        return all(p in owned and owned[p].positions.get(topic, 0) >= end for p, end in ends.items())

    async def stop(self) -> None:
        """Leave the group."""
        await self.intake.stop()
        await self.requests.close()


async def deployed() -> None:
    """Serve a parent: own everything; then for each line, wait until its positions are committed and say when."""
    reader = await lines()
    first = orjson.loads(await reader.readline())
    began = time.monotonic()
    process = Deployed(first["bootstrap"])
    collector.tune()
    failed = asyncio.create_task(process.clock.failed())
    await process.start()
    answer(owned_s=time.monotonic() - began)
    while (line := await reader.readline()) and not failed.done():
        asked: dict[str, Any] = orjson.loads(line)
        ends = {int(p): end for p, end in asked["ends"].items()}
        cpu = _cpu_s()
        with Stalls() as stalls:
            while not process.has_reached(ends, asked.get("topic", COMMANDS.name)) and not failed.done():
                assert not reader.at_eof(), "the parent is gone"
                await asyncio.sleep(POLL_S)
            at = time.monotonic()
        if failed.done():
            raise failed.result()
        answer(at=at, cpu_s=_cpu_s() - cpu, **stalls.found())
    failed.cancel()
    await process.stop()


async def takeover() -> None:
    """Own everything and decide what waits; tell the time from the first assignment to the last of these decisions."""
    reader = await lines()
    asked: dict[str, Any] = orjson.loads(await reader.readline())
    ends = {int(p): end for p, end in asked["ends"].items()}
    process = Deployed(asked["bootstrap"])
    collector.tune()
    await process.requests.start()
    await process.campaigns.warm()
    await process.intake.start()
    while not process.intake.owners:
        await asyncio.sleep(0)
    assigned_at = time.monotonic()
    while not process.has_reached(ends, COMMANDS.name):
        await asyncio.sleep(POLL_S)
    answer(seconds=time.monotonic() - assigned_at)
    await process.stop()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
