"""An agent worker without media: LiveKit's worker protocol as it is, and one-way conversations of which only facts are made.

    python -m rehearsal.signalled_agent

It stands in for `python -m agent` where hundreds of calls are in flight on two cores: a real job costs a process of 50 MB
and 0.3 CPU s. It registers with livekit-server, takes jobs by explicit dispatch, opens the sealed brief, joins with the
token it was assigned, says what the agent says on `dialer.observations` in the agent's order and numbering, renews its
readiness, and hangs up by deleting the room. Killed, it says nothing more: its calls fall silent, as on a lost machine.
The real worker is killed in `tests/crash`. Source: design §6; livekit/protocol livekit_agent.proto.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from livekit import api
from livekit.protocol import agent as wire
from livekit.protocol import models
from pydantic import ValidationError

from rehearsal.signalled_job import AGAIN_AFTER_S, Job, Voice, say
from runtime.kafka import idempotent_producer
from runtime.seal import BriefBox, SealBroken
from runtime.settings import Settings, brief_keys, read_settings

STATUS_EVERY_S: Final = 2.5
HANG_UP_TIMEOUT_S: Final = 5.0
JOBS_MAX: Final = 400
LOAD_FULL: Final = 0.69
"""livekit-server gives nothing to a worker at 0.7."""


@dataclass(kw_only=True)
class Worker:
    """One registered worker and its jobs."""

    settings: Settings
    producer: AIOKafkaProducer
    http: aiohttp.ClientSession
    client: api.LiveKitAPI
    box: BriefBox
    jobs: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self) -> None:
        """Be registered, again whenever the server is back, for ever."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                await self._registered()
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _registered(self) -> None:
        grants = api.VideoGrants(agent=True)
        token = api.AccessToken(self.settings.livekit_api_key, self.settings.livekit_api_secret.reveal())
        headers = {"Authorization": f"Bearer {token.with_grants(grants).to_jwt()}"}
        url = f"{self.settings.livekit_url.rstrip('/')}/agent"
        async with self.http.ws_connect(url, headers=headers, heartbeat=10.0) as socket:
            hello = wire.WorkerMessage()
            hello.register.type = wire.JT_ROOM
            hello.register.agent_name = self.settings.agent_name
            hello.register.version = "signalling"
            hello.register.allowed_permissions.CopyFrom(
                models.ParticipantPermission(
                    can_publish=True, can_subscribe=True, can_publish_data=True, can_update_metadata=True, agent=True
                )
            )
            await socket.send_bytes(hello.SerializeToString())
            telling = asyncio.create_task(self._tell(socket), name="status")
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        await self._hear(socket, message.data)
            finally:
                telling.cancel()

    async def _hear(self, socket: aiohttp.ClientWebSocketResponse, data: bytes) -> None:
        message = wire.ServerMessage()
        message.ParseFromString(data)
        match message.WhichOneof("message"):
            case "register":
                say("registered worker", id=message.register.worker_id)
            case "availability":
                job = message.availability.job
                answer = wire.WorkerMessage()
                answer.availability.job_id = job.id
                answer.availability.available = len(self.jobs) < JOBS_MAX
                answer.availability.participant_identity = f"agent-{job.id}"
                await socket.send_bytes(answer.SerializeToString())
            case "assignment":
                task = asyncio.create_task(self._work(socket, message.assignment), name=message.assignment.job.id)
                self.jobs.add(task)
                task.add_done_callback(self.jobs.discard)
            case _:
                pass  # a termination comes with the end of the room, which the job sees itself

    async def _work(self, socket: aiohttp.ClientWebSocketResponse, assigned: wire.JobAssignment) -> None:
        job = assigned.job
        try:
            brief = self.box.open(job.metadata)
        except (SealBroken, ValidationError):
            say("a brief was refused", job_id=job.id)
            return
        await self._report(socket, job.id, wire.JS_RUNNING)
        voice = Voice(self.producer, brief, job.id)
        one = Job(brief, job.id, voice, self.http)
        await one.run(assigned.url or self.settings.livekit_url, assigned.token)
        await self._hang_up(job.room.name)
        await one.room.leave()
        await voice.end()
        await self._report(socket, job.id, wire.JS_SUCCESS)

    async def _hang_up(self, room: str) -> None:
        with contextlib.suppress(api.TwirpError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(HANG_UP_TIMEOUT_S):
                await self.client.room.delete_room(api.DeleteRoomRequest(room=room))

    async def _report(self, socket: aiohttp.ClientWebSocketResponse, job_id: str, status: int) -> None:
        message = wire.WorkerMessage()
        message.update_job.job_id = job_id
        message.update_job.status = status  # type: ignore[assignment]
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await socket.send_bytes(message.SerializeToString())

    async def _tell(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = wire.WorkerMessage()
            message.update_worker.status = wire.WS_AVAILABLE
            message.update_worker.load = LOAD_FULL * min(1.0, len(self.jobs) / JOBS_MAX)
            message.update_worker.job_count = len(self.jobs)
            await socket.send_bytes(message.SerializeToString())
            await asyncio.sleep(STATUS_EVERY_S)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    say("starting worker")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    url = settings.livekit_url.replace("ws", "http", 1)
    secret = settings.livekit_api_secret.reveal()
    producer = idempotent_producer(settings.kafka_bootstrap, "rehearsal-agent")
    await producer.start()
    connections = aiohttp.TCPConnector(limit=0)
    try:
        async with (
            aiohttp.ClientSession(connector=connections) as http,
            api.LiveKitAPI(url, settings.livekit_api_key, secret) as client,
        ):
            box = BriefBox(brief_keys(settings.brief_key))
            worker = Worker(settings=settings, producer=producer, http=http, client=client, box=box)
            serving = asyncio.create_task(worker.serve(), name="serve")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, stopping, *worker.jobs):
                task.cancel()
            if serving.done() and not serving.cancelled():
                serving.result()
    finally:
        await producer.stop()


def main() -> int:
    """Run with the settings of the environment."""
    try:
        asyncio.run(run(read_settings(os.environ)))
    except KafkaError as error:
        print(f"signalled agent: Kafka does not answer ({type(error).__name__})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
