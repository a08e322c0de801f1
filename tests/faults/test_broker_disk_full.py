"""The broker's disk is full: nothing is accepted that is not kept, calls go on; with space again every call ends once.

Kafka's own answer to a write that fails is to halt; its supervisor starts it again and again, in vain while the disk is
full. The disk is a tmpfs of the test's own: a small one is full soon, and nobody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from dialer.topic_setup import create_or_verify
from rehearsal import kafka
from rehearsal.ports import free_ports
from rehearsal.provision import Provisions
from rehearsal.supervisor import Supervisor
from runtime.kafka import idempotent_producer
from runtime.settings import Settings
from tests.doubles.agents import Script
from tests.doubles.waiting import until
from tests.faults.test_broker_away import rss_mib
from tests.shell.test_app import Process, body, settings
from tests.shell.test_intake import Group

__all__ = ["settings"]
DISK_MIB = 192
BALLAST_STEP = 64 * 1024
FULL_S = 45.0
BACK_S = 240.0
GROWTH_MAX_MIB = 64.0
TALKING, UNDER_WAY = 10, 30
ASKED_EVERY_S = 0.2
HEALTH_S = 2.0


@dataclass(kw_only=True)
class Disk:
    """A broker, and the small disk that its data is on."""

    mount: Path
    broker: kafka.Broker
    supervisor: Supervisor

    @property
    def ballast(self) -> Path:
        """Return the file that fills what Kafka has left."""
        return self.mount / "ballast"

    def fill(self) -> int:
        """Write until there is no space, to the last page; return how many bytes that took."""
        with self.ballast.open("ab", buffering=0) as file:
            for size in (BALLAST_STEP, 4096):
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size):
                        pass
        return self.ballast.stat().st_size

    def free(self) -> int:
        """Return how many bytes are left."""
        found = os.statvfs(self.mount)
        return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def mounted(at: Path) -> Iterator[Path]:
    """Mount a small tmpfs, and take it away again, whatever happens."""
    at.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "dialer-test", str(at)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Let pytest not keep every line that aiokafka says while nothing answers: memory is measured here."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture
async def disk(settings: Settings, provisions: Provisions, tmp_path: Path) -> AsyncIterator[Disk]:
    """A broker with everything it keeps on a disk of its own, its topics made."""
    del settings
    port, controller_port = free_ports(2)
    with mounted(tmp_path / "disk") as mount:
        node = kafka.Broker(jars=provisions.jars, data_dir=mount / "kafka", port=port, controller_port=controller_port)
        await kafka.prepare(node)
        async with Supervisor(tmp_path) as supervisor:
            await supervisor.start([kafka.broker_spec(node)])
            await create_or_verify(node.bootstrap)
            yield Disk(mount=mount, broker=node, supervisor=supervisor)


@dataclass(kw_only=True)
class Pipeline:
    """Asks a dialer over HTTP for call after call, each of another person, and writes down what was answered."""

    process: Process
    mark: str
    accepted: dict[int, str] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    accepted_at: list[float] = field(default_factory=list)

    async def place(self, n: int) -> httpx.Response:
        """Ask for the call of one person."""
        asked: dict[str, Any] = body(f"{self.mark}-{n}") | {"to": f"+1212555{100 + n:04}"}
        answer = await self.process.client.post("/v1/calls", json=asked, timeout=40)
        assert answer.status_code in {202, 503}, answer.text
        if answer.status_code == 202:
            self.refused.discard(n)
            self.accepted[n] = answer.json()["call_id"]
            self.accepted_at.append(time.monotonic())
        else:
            self.refused.add(n)
        return answer

    async def keep_asking(self, first: int) -> None:
        """Ask at a steady pace, whatever is answered, until cancelled."""
        async with asyncio.TaskGroup() as asking:
            for n in itertools.count(first):
                asking.create_task(self.place(n))
                await asyncio.sleep(ASKED_EVERY_S)


def in_talk(process: Process) -> set[str]:
    """Return the calls whose phones are off the hook or ring."""
    return {room.removeprefix("call-").rpartition("-")[0] for room, _ in process.telephony.live_legs}


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
async def test_a_full_disk_of_the_broker_loses_nothing_that_was_accepted(disk: Disk, settings: Settings) -> None:
    """Talks go on, nobody is dialed, requests are answered 503 and never 202 in vain; afterwards all is made, once."""
    settings = replace(settings, kafka_bootstrap=disk.broker.bootstrap)
    producer = idempotent_producer(settings.kafka_bootstrap, "agents")
    await producer.start()
    process = Process(settings, producer)
    process.agents.default = Script(ready_after_s=0.05, speaks_for_s=FULL_S + 45)
    await process.ready()
    group = Group(settings.kafka_bootstrap)
    pipeline = Pipeline(process=process, mark=group.mark)
    for n in range(TALKING):
        assert (await pipeline.place(n)).status_code == 202
    talking = list(pipeline.accepted.values())
    async with asyncio.timeout(60):
        while not all("call_answered" in told for told in (await group.told(talking)).values()):
            await asyncio.sleep(0.2)
    for n in range(TALKING, TALKING + UNDER_WAY):
        assert (await pipeline.place(n)).status_code == 202

    before = rss_mib()
    asking = asyncio.create_task(pipeline.keep_asking(TALKING + UNDER_WAY))
    halted_at, halted = await _filled(disk, process)
    print(f"filled; the broker halted {halted_at:.1f} s after")
    began = time.monotonic()
    while time.monotonic() - began < FULL_S:
        assert set(talking) <= in_talk(process), "somebody was cut off"
        assert (await process.client.get("/health", timeout=HEALTH_S)).status_code == 200
        await asyncio.sleep(1.0)
    grown = rss_mib() - before
    assert not [at for at in pipeline.accepted_at if at > halted], "nobody was there to keep it"
    assert not [i for i in process.telephony.invites if (process.app.clock.now() - i.at).total_seconds() < FULL_S - 2]
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    refused = sorted(pipeline.refused)
    print(f"{len(pipeline.accepted)} accepted, {len(refused)} refused, grown by {grown:.1f} MiB")
    assert len(refused) > FULL_S / ASKED_EVERY_S / 3
    assert grown <= GROWTH_MAX_MIB

    process.agents.default = Script(ready_after_s=0.05, speaks_for_s=0.3)
    disk.ballast.unlink()
    await disk.supervisor.wait_ready(kafka.NAME, timeout_s=60)
    await process.ready()
    for n in refused:
        await _insisted(pipeline, n)
    calls = list(pipeline.accepted.values())
    assert len(set(calls)) == len(calls)
    told = await _all_ended(group, calls)
    assert {names.count("call_ended") + names.count("call_refused") for names in told.values()} == {1}
    assert {names.count("call_requested") for names in told.values()} == {1}
    attempts = [i.attempt_id for i in process.telephony.invites]
    assert len(attempts) == len(set(attempts)), "somebody was rung twice"
    assert not any("agent_lost" in told[call] for call in talking), "nobody was cut off"
    await process.end()
    await producer.stop()


async def _filled(disk: Disk, process: Process) -> tuple[float, float]:
    """Fill the disk and wait until Kafka has noticed; return after how long, and when (monotonic)."""
    began, pid = time.monotonic(), disk.supervisor.pid(kafka.NAME)
    size = await asyncio.to_thread(disk.fill)
    assert size > 0
    assert disk.free() < BALLAST_STEP
    await until(lambda: disk.supervisor.pid(kafka.NAME) != pid, 60)
    assert not process.task.done()
    return time.monotonic() - began, time.monotonic()


async def _insisted(pipeline: Pipeline, n: int) -> None:
    """Ask again for what was refused, as a pipeline does that was told to."""
    async with asyncio.timeout(60):
        while (await pipeline.place(n)).status_code != 202:
            await asyncio.sleep(0.5)


async def _all_ended(group: Group, calls: list[str]) -> dict[str, list[str]]:
    deadline = time.monotonic() + BACK_S
    while True:
        told = await group.told(calls)
        waiting = {call: names for call, names in told.items() if not {"call_ended", "call_refused"} & set(names)}
        if not waiting:
            return told
        assert time.monotonic() < deadline, waiting
        await asyncio.sleep(0.5)
