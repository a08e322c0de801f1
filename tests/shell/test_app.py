"""The process: what it refuses to start with, how it starts on a real broker, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError, LeaderNotAvailableError, NotLeaderForPartitionError

from dialer.app import App, StartFailed, check_phones
from dialer.log import Headers
from dialer.topic_setup import create_or_verify
from dialer.yaml_files import BadFile
from rehearsal.ports import free_port
from runtime.kafka import idempotent_producer
from runtime.seal import BriefBox
from runtime.settings import Secret, Settings, SettingsError
from schemas.topics import Topic
from schemas.values import PARTITIONS, partition_of
from tests.doubles.agents import Script, ScriptedAgents
from tests.doubles.telephony import Phone, TelephonyDouble
from tests.doubles.waiting import until
from tests.doubles.world import BRIEF, MASTER, PEPPER
from tests.shell.test_intake import Group

NUMBER = "+12125550177"
NOT_TAKEN = (KafkaTimeoutError, LeaderNotAvailableError, NotLeaderForPartitionError)
"""What an idempotent aiokafka producer says of a record that it did not send in time."""
TRUNKS = """
trunks:
  - {name: cvs-retail-outbound, address: "127.0.0.1:5060", numbers: ["+12125550100"], calls_per_s: 24, concurrency_max: 48}
"""


def secret(content: bytes, prefix: str = "") -> Secret:
    return Secret(prefix + base64.b64encode(content).decode())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything a dialer needs, nothing of it there."""
    (tmp_path / "trunks.yaml").write_text(TRUNKS)
    return Settings(
        kafka_bootstrap=f"127.0.0.1:{free_port()}",
        livekit_url=f"ws://127.0.0.1:{free_port()}",
        livekit_api_key="devkey",
        livekit_api_secret=Secret("s" * 40),
        pepper=secret(PEPPER),
        master_key=secret(MASTER),
        brief_key=secret(BRIEF, "b1:"),
        trunks_file=str(tmp_path / "trunks.yaml"),
        port=free_port(),
        group_id=f"dialer-{tmp_path.name}",
        session_timeout_s=6.0,
    )


# ---- what it refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "allowed"),
    [
        ({"livekit_url": "ws://127.0.0.1:7880"}, True),
        ({"livekit_url": "ws://[::1]:7880"}, True),
        ({"livekit_url": "ws://localhost:7880"}, True),
        ({"livekit_url": "wss://livekit.example.com"}, False),
        ({"livekit_url": "ws://10.0.0.7:7880"}, False),
        ({"livekit_url": "ws://127.0.0.1.example.com"}, False),
        ({"livekit_url": "127.0.0.1:7880"}, False),
        ({"livekit_url": "ws://127.0.0.1", "livekit_api_url": "http://10.0.0.7:7880"}, False),
        ({"livekit_url": "ws://10.0.0.7:7880", "dial_real_phones": "true"}, False),
        ({"livekit_url": "ws://10.0.0.7:7880", "dial_real_phones": "yes"}, True),
    ],
)
def test_only_a_livekit_on_loopback_is_dialed_with_unless_told(over: dict[str, str], allowed: bool) -> None:
    """There are no calling hours yet: nobody's phone may ring at night by a wrong setting."""
    settings = replace(Settings(), **over)  # type: ignore[arg-type]
    if allowed:
        check_phones(settings)
        return
    with pytest.raises(SettingsError, match="DIAL_REAL_PHONES=yes"):
        check_phones(settings)


async def test_another_address_than_loopback_needs_api_keys(settings: Settings) -> None:
    """It would let anybody ring anybody."""
    with pytest.raises(SettingsError, match="DIALER_API_KEYS"):
        App(replace(settings, host="0.0.0.0"))
    App(replace(settings, host="0.0.0.0", api_keys=Secret("k1")))


@pytest.mark.parametrize("name", ["pepper", "master_key", "brief_key", "livekit_api_secret"])
async def test_a_secret_that_is_not_set_is_named(settings: Settings, name: str) -> None:
    """Before anything is connected to."""
    with pytest.raises(SettingsError, match=name.upper()):
        App(replace(settings, **{name: Secret("")}))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["!", "c2hvcnQ="])
@pytest.mark.parametrize("name", ["master_key", "pepper"])
async def test_a_key_that_is_none_is_a_setting_that_is_not_right(settings: Settings, name: str, text: str) -> None:
    """One line for the operator, never the key, never a trace."""
    with pytest.raises(SettingsError, match=name.upper()) as refused:
        App(replace(settings, **{name: Secret(text)}))  # type: ignore[arg-type]
    assert text not in str(refused.value)


async def test_a_trunks_file_that_is_not_there_is_named(settings: Settings) -> None:
    """By its path."""
    with pytest.raises(BadFile, match=r"nowhere\.yaml"):
        App(replace(settings, trunks_file="nowhere.yaml"))


# ---- how it ends while it starts ---------------------------------------------------------------------------------


def environment(settings: Settings) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DIALER_", "KAFKA_", "LIVEKIT_"))}
    return kept | {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap,
        "LIVEKIT_URL": settings.livekit_url,
        "LIVEKIT_API_KEY": settings.livekit_api_key,
        "LIVEKIT_API_SECRET": settings.livekit_api_secret.reveal(),
        "DIALER_PEPPER": settings.pepper.reveal(),
        "DIALER_MASTER_KEY": settings.master_key.reveal(),
        "BRIEF_KEY": settings.brief_key.reveal(),
        "DIALER_TRUNKS_FILE": settings.trunks_file,
        "DIALER_PORT": str(settings.port),
    }


async def test_a_process_that_waits_for_kafka_says_so_and_ends_on_sigterm(settings: Settings) -> None:
    """Alive, not ready; asked to end it ends at once, with 0 and without a trace."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dialer", "serve", env=environment(settings), stderr=subprocess.PIPE
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}") as client, asyncio.timeout(60):
        while True:
            try:
                answer = await client.get("/ready")
                break
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
        assert answer.status_code == 503
        assert answer.json()["waiting"] == {"start": "waiting for kafka"}
        assert (await client.get("/health")).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"Traceback" not in err
    assert b"bug" not in err


# ---- on a real broker --------------------------------------------------------------------------------------------


class KafkaSends:
    """What the scripted agents write with, on a real broker."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._sent: set[asyncio.Task[Any]] = set()

    def send(self, topic: Topic, key: str, value: bytes, headers: Headers = ()) -> None:
        task = asyncio.ensure_future(self._deliver(topic, key, value, headers))
        self._sent.add(task)
        task.add_done_callback(self._sent.discard)

    async def _deliver(self, topic: Topic, key: str, value: bytes, headers: Headers) -> None:
        """Write until it stands, as the worker's spool does: a full buffer while the broker is away loses no fact."""
        while True:
            try:
                await self._producer.send_and_wait(
                    topic.name, value, key=key.encode(), partition=partition_of(key), headers=list(headers)
                )
            except NOT_TAKEN:
                continue
            return


class Process:
    """A dialer process in this one: everything real but LiveKit and the agents."""

    def __init__(
        self, settings: Settings, producer: AIOKafkaProducer, telephony: TelephonyDouble | None = None
    ) -> None:
        self.app = App(settings)
        self.telephony = telephony or TelephonyDouble(self.app.clock)
        self.app._telephony = self.app._shared.telephony = self.telephony  # type: ignore[assignment]
        box = BriefBox({"b1": BRIEF})
        sends = KafkaSends(producer)
        self.agents = ScriptedAgents(self.telephony, sends, box, self.app.clock)  # type: ignore[arg-type]
        self.stop = asyncio.Event()
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}")
        self.task = asyncio.create_task(self.app.run(self.stop))

    async def ready(self) -> None:
        await until(lambda: self.task.done() or not self.app.not_ready(), 60)
        if self.task.done():
            self.task.result()
        assert (await self.client.get("/ready")).status_code == 200

    async def end(self) -> None:
        self.stop.set()
        await self.client.aclose()
        await asyncio.wait_for(self.task, 60)


@pytest.fixture
async def deployed(settings: Settings, kafka_bootstrap: str) -> AsyncIterator[tuple[Settings, AIOKafkaProducer]]:
    await create_or_verify(kafka_bootstrap)
    producer = idempotent_producer(kafka_bootstrap, "agents")
    await producer.start()
    yield replace(settings, kafka_bootstrap=kafka_bootstrap), producer
    await producer.stop()


@pytest.mark.broker
async def test_a_livekit_that_makes_rooms_by_itself_is_refused(deployed: tuple[Settings, AIOKafkaProducer]) -> None:
    """A deleted room must be a fence."""
    settings, producer = deployed
    process = Process(settings, producer)
    process.telephony.auto_create = True
    with pytest.raises(StartFailed, match=r"room\.auto_create: false"):
        await asyncio.wait_for(process.task, 60)
    assert process.telephony.invites == []
    await process.client.aclose()


@pytest.mark.broker
async def test_a_call_over_http_is_delivered(deployed: tuple[Settings, AIOKafkaProducer]) -> None:
    """The whole composition: HTTP, Kafka, owner, pacer, gate, dial, agent's facts, the terminal event."""
    settings, producer = deployed
    process = Process(settings, producer)
    process.agents.default = Script(ready_after_s=0.05, speaks_for_s=0.3)
    await process.ready()
    assert len(process.app._intake.owners) == PARTITIONS
    group = Group(settings.kafka_bootstrap)
    answer = await process.client.post("/v1/calls", json=body(f"r-{group.mark}"))
    call = answer.json()["call_id"]
    async with asyncio.timeout(40):
        while "call_ended" not in (told := (await group.told([call]))[call]):
            await asyncio.sleep(0.2)
    assert "call_answered" in told
    assert [i.to for i in process.telephony.invites if i.attempt_id == f"{call}-1"] == [NUMBER]
    await process.end()


@pytest.mark.broker
async def test_a_process_that_is_asked_to_end_waits_for_its_dials_and_the_next_one_goes_on(
    deployed: tuple[Settings, AIOKafkaProducer],
) -> None:
    """Ringing is not cut off; the outcome is delivered; nobody is rung twice; /ready says what is going on."""
    settings, producer = deployed
    process = Process(settings, producer)
    process.agents.default = Script(ready_after_s=0.05, speaks_for_s=8.0)
    process.telephony.phone_default = Phone(rings_for_s=3.0)
    await process.ready()
    group = Group(settings.kafka_bootstrap)
    call = (await process.client.post("/v1/calls", json=body(f"r-{group.mark}"))).json()["call_id"]
    await until(lambda: bool(process.telephony.live_legs))
    process.stop.set()
    await until(lambda: process.app._shared.draining)
    refused = await process.client.get("/ready")
    assert refused.json()["waiting"]["end"] == "shutting down"
    await process.end()
    assert process.app._shared.dialing == 0
    assert len(process.telephony.live_legs) == 1, "the conversation goes on without the dialer"
    following = Process(settings, producer, process.telephony)
    following.agents.rooms = process.agents.rooms
    await following.ready()
    async with asyncio.timeout(60):
        while "call_ended" not in (told := (await group.told([call]))[call]):
            await asyncio.sleep(0.2)
    assert told.count("call_answered") == 1
    assert len([i for i in process.telephony.invites if i.attempt_id.startswith(call)]) == 1
    await following.end()


def body(request: str) -> dict[str, Any]:
    return {
        "request_id": request,
        "campaign_id": "rx-refill",
        "to": NUMBER,
        "variables": {"first_name": "Ann", "store": "Main Street"},
    }
