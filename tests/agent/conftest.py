"""A real stage for the agent: Kafka, livekit-server, the speech service, the worker as it is deployed, and phones."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from livekit import api

from rehearsal import kafka, livekit_server
from rehearsal.ear import HeardCall, heard_of
from rehearsal.personas import PERSONAS, Persona
from rehearsal.phone import Exchange, Leg, Order
from rehearsal.ports import free_port, free_ports
from rehearsal.process_spec import ProcessSpec
from rehearsal.provision import provision
from rehearsal.supervisor import Supervisor
from rehearsal.witness import Dial, Witness, dials_of
from runtime.kafka import admin, assigned_consumer
from runtime.seal import BriefBox
from schemas import values
from schemas.brief import Brief
from schemas.envelope import Envelope, decode
from schemas.facts import AgentReady, ConversationEnded
from schemas.topics import OBSERVATIONS

KEY, SECRET = "devkey", "secretsecretsecretsecretsecret123"
BRIEF_KEY = os.urandom(32)
AGENT_NAME = "outbound-dialer"
FACT_S = 30.0
MESSAGE = "Hello Ann, your prescription is ready at Main Street."
PERSONA = {persona.name: persona for persona in PERSONAS}
ANSWERS = replace(PERSONA["answers"], rings_for_s=0.3)


@dataclass(kw_only=True)
class Call:
    """One attempt: its room with the agent, its phone, and when the room was asked for."""

    brief: Brief
    asked_at: float
    leg: Leg | None = None
    ringing: asyncio.Task[None] | None = None

    @property
    def call_id(self) -> str:
        return self.brief.call_id

    @property
    def room(self) -> str:
        return values.room_name(self.brief.call_id, self.brief.attempt)


@dataclass(kw_only=True)
class Stage:
    """Everything that runs, and what was seen on `dialer.observations`."""

    supervisor: Supervisor
    livekit: livekit_server.LiveKitServer
    client: api.LiveKitAPI
    witness: Witness
    bootstrap: str
    speech_port: int
    brain_port: int
    dialer_port: int
    """Where the dialer's API would be; a test may listen there."""
    records: list[Envelope] = field(default_factory=list)
    arrived: dict[str, float] = field(default_factory=dict)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a worker."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DIALER_", "LIVEKIT_"))}
        return kept | {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "LIVEKIT_URL": self.livekit.url,
            "LIVEKIT_API_KEY": KEY,
            "LIVEKIT_API_SECRET": SECRET,
            "BRIEF_KEY": f"k1:{base64.b64encode(BRIEF_KEY).decode()}",
            "DIALER_SPEAK_URL": f"ws://127.0.0.1:{self.speech_port}/v1/speak",
            "DIALER_LISTEN_URL": f"ws://127.0.0.1:{self.speech_port}/v1/listen",
            "DIALER_URL": f"http://127.0.0.1:{self.dialer_port}",
            "AGENT_API_KEY": "brain-key",
            "DIALER_AGENT_NAME": AGENT_NAME,
            "DIALER_AGENT_SPOOL_DIR": str(self.spool_dir),
            **more,
        }

    @property
    def spool_dir(self) -> Path:
        """Return where the workers' facts wait while Kafka is away."""
        return self.supervisor.run_dir / "spool"

    async def place(self, message: str = MESSAGE, agent_name: str = AGENT_NAME, **brief_fields: Any) -> Call:
        """Make a room with an agent dispatched into it, as the dialer does."""
        callee = values.callee_key(secrets.token_hex(8), b"pepper")
        call_id = values.call_id(callee, values.request_hash("rx", secrets.token_hex(8)))
        brief = Brief(
            **{
                "call_id": call_id,
                "attempt": 1,
                "campaign_id": "rx",
                "campaign_hash": "h",
                "type": "one_way",
                "language": "en-US",
                "message": message,
                "callee_identity": values.callee_identity(call_id, 1),
                "ring_timeout_s": 30,
                "max_call_duration_s": 60,
                "data_key_id": "d1",
                "data_key": base64.urlsafe_b64encode(bytes(32)).decode(),
                **brief_fields,
            }
        )
        metadata = BriefBox({"k1": BRIEF_KEY}).seal(brief, os.urandom)
        call = Call(brief=brief, asked_at=time.monotonic())
        dispatch = api.RoomAgentDispatch(agent_name=agent_name, metadata=metadata)
        await self.client.room.create_room(api.CreateRoomRequest(name=call.room, agents=[dispatch]))
        return call

    async def registered(self, agent_name: str) -> None:
        """Place calls that nobody dials until an agent comes: the worker has registered by then."""
        for _ in range(10):
            call = await self.place(agent_name=agent_name)
            with contextlib.suppress(pytest.fail.Exception):
                await self.comes(call, AgentReady.TYPE, timeout_s=5)
                await self.hang_up(call)
                await self.comes(call, ConversationEnded.TYPE)
                return
            await self.hang_up(call)
        pytest.fail("no agent came")

    async def dial(self, call: Call, persona: Persona = ANSWERS, kind: type[Leg] = Leg) -> Leg:
        """Let the callee's phone join the room and ring."""
        exchange = Exchange(
            livekit_url=self.livekit.url,
            api_key=KEY,
            api_secret=SECRET,
            witness=self.witness,
            directory=self.supervisor.run_dir,
        )
        order = Order(
            dial_id=secrets.token_hex(8),
            attempt_id=values.attempt_id(call.call_id, 1),
            number="+12125550123",
            room=call.room,
            identity=call.brief.callee_identity,
            name="",
            metadata="",
            ringing_timeout_s=call.brief.ring_timeout_s,
            max_call_duration_s=60,
            media_timeout_s=30,
        )
        call.leg = kind(order, persona, persona.refusal, exchange)
        await call.leg.join()
        call.ringing = asyncio.create_task(call.leg.run())
        return call.leg

    async def hang_up(self, call: Call) -> None:
        """Delete the room, as the dialer does."""
        await self.client.room.delete_room(api.DeleteRoomRequest(room=call.room))

    def facts(self, call: Call) -> list[Envelope]:
        """Return what the log's topic has about a call, renewals left out, each fact once."""
        known: dict[str, Envelope] = {}
        for record in self.records:
            if record.subject == call.call_id and not record.data.get("renewal"):
                known.setdefault(record.id, record)
        return list(known.values())

    def renewals(self, call: Call) -> list[Envelope]:
        """Return a call's renewals of readiness."""
        return [r for r in self.records if r.subject == call.call_id and r.data.get("renewal")]

    async def comes(self, call: Call, type_name: str, timeout_s: float = FACT_S) -> Envelope:
        """Wait for a call's fact of a type."""

        def found() -> Envelope | None:
            return next((fact for fact in self.facts(call) if fact.type == type_name), None)

        return await self.until(found, type_name, timeout_s)

    async def until(self, look: Callable[[], Any], what: str, timeout_s: float = FACT_S) -> Any:
        """Wait until the topic shows something."""
        try:
            async with asyncio.timeout(timeout_s), self.news:
                await self.news.wait_for(lambda: bool(look()))
                return look()
        except TimeoutError:
            seen = "\n".join(f"{record.type} {record.data}" for record in self.records[-30:])
            pytest.fail(f"{what} did not come within {timeout_s} s; the topic ends with\n{seen}")

    async def spoken(self, call: Call) -> tuple[Dial, HeardCall | None]:
        """Wait for the end of the phone's leg; return the witness's account and what the phone heard."""
        assert call.ringing is not None
        async with asyncio.timeout(FACT_S):
            await call.ringing
        attempt = values.attempt_id(call.call_id, 1)
        directory = self.supervisor.run_dir
        dial = next(dial for dial in dials_of(directory / "witness.jsonl") if dial.attempt_id == attempt)
        return dial, heard_of(directory, attempt)

    def job_pid(self) -> int:
        """Return the process of a call's job: the only one with media, since no other call runs meanwhile."""
        jobs = [p for p in psutil.Process(self.supervisor.pid("agent")).children(recursive=True) if _talks_udp(p)]
        assert len(jobs) == 1, f"{len(jobs)} jobs run"
        return jobs[0].pid

    def worker_cpu_s(self) -> float:
        """Return CPU seconds of the worker's whole tree so far, ended jobs included."""
        worker = psutil.Process(self.supervisor.pid("agent"))
        total = 0.0
        for process in (worker, *worker.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
        return total

    async def read(self) -> None:
        """Collect `dialer.observations` for ever."""
        consumer = assigned_consumer(self.bootstrap, "test", read_committed=True)
        await consumer.start()
        try:
            partitions = [TopicPartition(OBSERVATIONS.name, number) for number in range(OBSERVATIONS.partitions)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            async for message in consumer:
                record = decode(message.value, message.headers)
                assert message.key.decode() == values.callee_of(record.subject or "")
                assert message.partition == values.partition_of(message.key.decode())
                async with self.news:
                    self.records.append(record)
                    self.arrived.setdefault(record.id, time.monotonic())
                    self.news.notify_all()
        finally:
            await consumer.stop()


def _talks_udp(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(c.type == 2 for c in process.net_connections("inet"))
    return False


def _python(name: str, argv: list[str], env: dict[str, str], ready_port: int, **more: Any) -> ProcessSpec:
    async def ready() -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", ready_port)
            writer.close()
            return True
        return False

    root = Path(__file__).parents[2]
    env = env | {"PYTHONPATH": str(root)}
    return ProcessSpec(name=name, argv=[sys.executable, *argv], env=env, cwd=root, ready=ready, **more)


def agent_spec(stage: Stage, name: str = "agent", *, restart: bool = True, **more: str) -> ProcessSpec:
    """Return a worker as it is deployed."""
    port = free_port()
    env = stage.environment(DIALER_AGENT_PORT=str(port), **more)
    return _python(name, ["-m", "agent"], env, port, ready_timeout_s=60.0, restart=restart)


@contextlib.asynccontextmanager
async def staged(
    run_dir: Path, change: Callable[[livekit_server.LiveKitServer], None] = lambda _: None, **agent: str
) -> AsyncIterator[Stage]:
    """Start everything, in order; stop it in reverse. `change`: of LiveKit's file; `agent`: more of its environment."""
    parts = provision()
    ports = free_ports(8)
    broker = kafka.Broker(jars=parts.jars, data_dir=run_dir / "kafka", port=ports[0], controller_port=ports[1])
    livekit = livekit_server.LiveKitServer(
        binary=parts.livekit,
        data_dir=run_dir / "livekit",
        http_port=ports[2],
        rtc_tcp_port=ports[3],
        rtc_udp_port=ports[4],
        api_key=KEY,
        api_secret=SECRET,
        log_level="warn",
    )
    await kafka.prepare(broker)
    livekit_server.prepare(livekit)
    change(livekit)
    async with contextlib.AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(Supervisor(run_dir))
        await supervisor.start([kafka.broker_spec(broker), livekit_server.server_spec(livekit)])
        stage = Stage(
            supervisor=supervisor,
            livekit=livekit,
            client=await stack.enter_async_context(api.LiveKitAPI(livekit.http_url, KEY, SECRET)),
            witness=stack.enter_context(Witness(run_dir / "witness.jsonl")),
            bootstrap=broker.bootstrap,
            speech_port=ports[5],
            brain_port=ports[6],
            dialer_port=ports[7],
        )
        await _make_topic(broker.bootstrap)
        speech = ["-m", "rehearsal.speech", "--port", str(stage.speech_port)]
        brain = ["-m", "rehearsal.brain", "--port", str(stage.brain_port)]
        await supervisor.start(
            [
                _python("speech", speech, dict(os.environ), stage.speech_port),
                _python("brain", brain, dict(os.environ), stage.brain_port),
            ]
        )
        await supervisor.start([agent_spec(stage, **agent)])
        reading = asyncio.create_task(stage.read())
        try:
            await stage.registered(AGENT_NAME)
            yield stage
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Everything, for the tests of one module."""
    async with staged(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


async def _make_topic(bootstrap: str) -> None:
    client = admin(bootstrap)
    await client.start()
    try:
        topic = NewTopic(OBSERVATIONS.name, OBSERVATIONS.partitions, 1, topic_configs=OBSERVATIONS.config)
        await client.create_topics([topic])
    finally:
        await client.close()
