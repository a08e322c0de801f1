"""The kill switch on three dialers at once, on a real broker, by the command line: no dial later than a second after it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from rehearsal.ports import free_port
from runtime.kafka import assigned_consumer
from runtime.settings import Settings
from schemas.topics import CONTROL
from schemas.values import PARTITIONS
from tests.doubles.agents import Script
from tests.doubles.telephony import TelephonyDouble
from tests.doubles.waiting import until
from tests.shell.test_app import Process, body, deployed, settings
from tests.shell.test_intake import Group

__all__ = ["deployed", "settings"]
pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.flaky(reruns=2),
]  # three dialers in real time, on two cores
CALLS = 90
LATE_MAX_S = 1.0


class Fleet:
    """Three dialers of one group, one telephone network."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer) -> None:
        self.settings, self.producer = settings, producer
        self.group = Group(settings.kafka_bootstrap)
        self.telephony: TelephonyDouble | None = None
        self.processes: list[Process] = []

    def add(self) -> Process:
        process = Process(replace(self.settings, port=free_port()), self.producer, self.telephony)
        if self.telephony is not None:
            process.agents.rooms = self.processes[0].agents.rooms
        process.agents.default = Script(ready_after_s=0.05, speaks_for_s=0.3)
        self.telephony = process.telephony
        self.processes.append(process)
        return process

    async def ready(self) -> None:
        """Return when all partitions are owned, by all of them: each that joins moves the others' first."""

        def settled() -> bool:
            for process in self.processes:
                if process.task.done():
                    process.task.result()
            owners = [process.app._intake.owners for process in self.processes]
            return sum(map(len, owners)) == PARTITIONS and not any(p.app.not_ready() for p in self.processes)

        await until(settled, 90)

    async def say(self, *words: str) -> tuple[int, str, str]:
        """Type it, at the last dialer."""
        environment = os.environ | {
            "DIALER_URL": f"http://127.0.0.1:{self.processes[-1].app.settings.port}",
            "KAFKA_BOOTSTRAP_SERVERS": self.settings.kafka_bootstrap,
            "DIALER_GROUP_ID": self.settings.group_id,
        }
        typed = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dialer", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        out, err = await asyncio.wait_for(typed.communicate(), 90)
        assert typed.returncode is not None
        return typed.returncode, out.decode(), err.decode()

    async def said_at(self, offset: int) -> datetime:
        """Return the broker's time of a word: the moment it was accepted."""
        tp = TopicPartition(CONTROL.name, 0)
        consumer = assigned_consumer(self.settings.kafka_bootstrap, "test", read_committed=False)
        await consumer.start()
        try:
            consumer.assign([tp])
            consumer.seek(tp, offset)
            record = await asyncio.wait_for(consumer.getone(tp), 20)
            assert record.offset == offset
            return datetime.fromtimestamp(record.timestamp / 1000, UTC)
        finally:
            await consumer.stop()

    async def place(self, count: int, campaign: str = "rx-refill") -> list[str]:
        async def one(number: int) -> str:
            request = body(f"{self.group.mark}-{campaign}-{number}")
            asked = request | {"to": f"+1212555{100 + number:04}", "campaign_id": campaign}
            answer = await self.processes[number % len(self.processes)].client.post("/v1/calls", json=asked)
            return str(answer.json()["call_id"])

        return await asyncio.gather(*(one(number) for number in range(count)))

    def invites(self, calls: list[str]) -> list[datetime]:
        assert self.telephony is not None
        return [i.at for i in self.telephony.invites if i.attempt_id.rpartition("-")[0] in calls]

    async def end(self) -> None:
        await asyncio.gather(*(process.end() for process in self.processes))


@pytest.fixture
async def fleet(deployed: tuple[Settings, AIOKafkaProducer]) -> AsyncIterator[Fleet]:
    fleet = Fleet(*deployed)
    for _ in range(3):
        fleet.add()
    await fleet.ready()
    try:
        yield fleet
    finally:
        await fleet.say("resume", "--all", "--kafka", "--timeout-s", "0")
        await fleet.end()


def accepted_as(told: str) -> int:
    return int(told.partition("accepted as ")[2].partition(";")[0].partition(",")[0])


async def test_the_kill_switch_stops_three_dialers_survives_a_restart_and_lets_them_go_on(fleet: Fleet) -> None:
    """Accepted, confirmed by all three, not an INVITE a second later; a fourth obeys from its start; then each is made."""
    calls = await fleet.place(CALLS)
    await until(lambda: len(fleet.invites(calls)) >= 10, 60)
    began = asyncio.get_running_loop().time()
    code, told, err = await fleet.say("stop", "--all")
    took_s = asyncio.get_running_loop().time() - began
    assert (code, err) == (0, "")
    assert "confirmed by 3 dialers" in told
    stopped_at = await fleet.said_at(accepted_as(told))
    made = len(fleet.invites(calls))
    assert 10 <= made < CALLS, "it was stopped amid the calls"
    ended = fleet.processes.pop(0)
    await ended.end()
    fleet.add()
    await fleet.ready()
    assert len(fleet.invites(calls)) == made
    latest_s = max((at - stopped_at).total_seconds() for at in fleet.invites(calls))
    print(f"confirmed in {took_s:.2f} s, command line and all; last INVITE {latest_s:+.3f} s after it was accepted")
    assert latest_s <= LATE_MAX_S
    code, told, err = await fleet.say("resume", "--all")
    assert (code, err) == (0, ""), told
    await until(lambda: len(fleet.invites(calls)) == CALLS, 120)
    assert fleet.telephony is not None
    attempts = [i.attempt_id for i in fleet.telephony.invites]
    assert len(attempts) == len(set(attempts))


async def test_a_stop_now_hangs_up_on_all_dialers_before_it_returns(fleet: Fleet) -> None:
    """The phones of one campaign are silent when the command returns; nothing of it is dialed until it is resumed."""
    assert fleet.telephony is not None
    for process in fleet.processes:
        process.agents.default = Script(ready_after_s=0.05, speaks_for_s=300.0)
    calls = await fleet.place(24)
    await until(lambda: len(fleet.telephony.live_legs) >= 20, 60)  # type: ignore[union-attr]
    live = {room.removeprefix("call-").rpartition("-")[0] for room, _ in fleet.telephony.live_legs}
    code, told, err = await fleet.say("stop", "--campaign", "rx-refill", "--now")
    assert (code, err) == (0, ""), told
    assert fleet.telephony.live_legs == []
    _, shown, _ = await fleet.say("control", "--kafka")
    assert "rx-refill" in shown
    assert shown.count("obeys") == 3
    for process in fleet.processes:
        process.agents.default = Script(ready_after_s=0.05, speaks_for_s=0.3)
    code, told, err = await fleet.say("resume", "--campaign", "rx-refill")
    assert (code, err) == (0, ""), told
    await until(lambda: len(fleet.invites(calls)) == 24, 60)
    ended = await fleet.group.told(calls)
    assert not {call: names for call, names in ended.items() if call in live and "call_cancelled" not in names}
    assert len(fleet.invites(calls)) == 24, "whom we hung up on is not rung again"


async def test_a_dialer_that_does_not_answer_is_named(fleet: Fleet) -> None:
    """Exit code 1 and one line: who has not confirmed, and what holds all the same."""
    frozen = fleet.processes[0].app
    frozen._kill_switch.changed = lambda: None  # type: ignore[method-assign]
    code, told, err = await fleet.say("stop", "--all", "--timeout-s", "2")
    assert (code, told) == (1, "")
    (line,) = err.splitlines()
    assert f"not confirmed by {frozen._kill_switch.process}" in line
    assert "no dialer dials once its control is older than 1 s" in line
    code, told, _ = await fleet.say("stop", "--all", "--timeout-s", "1", "--kafka")
    assert code == 1
