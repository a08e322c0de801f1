"""A worker's parent process is killed amid a call, and its job is left: what the job still does."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from livekit import api

from agent.shipper import Sweeper
from rehearsal.ports import free_port
from runtime.clock import SystemClock
from tests.agent.doomed import ROOM, ROOT
from tests.agent.line import KEYS, Kafka, spool_in

JOB_DIED_S = 5.0
"""Promise 4: an agent whose process died is out of the call within so many seconds."""


@dataclass
class LiveKit:
    """LiveKit's address: joining hangs, a room is deleted at once."""

    url: str
    joined: asyncio.Event = field(default_factory=asyncio.Event)
    deleted: asyncio.Event = field(default_factory=asyncio.Event)
    rooms: list[str] = field(default_factory=list)

    async def join(self, _: web.Request) -> web.Response:
        self.joined.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def delete(self, request: web.Request) -> web.Response:
        self.rooms.append(api.DeleteRoomRequest.FromString(await request.read()).room)
        self.deleted.set()
        return web.Response(body=b"", content_type="application/protobuf")


@pytest.fixture
async def livekit() -> AsyncIterator[LiveKit]:
    port = free_port()
    made = LiveKit(url=f"ws://127.0.0.1:{port}")
    app = web.Application()
    app.add_routes([web.get("/{path:.*}", made.join), web.post("/twirp/livekit.RoomService/DeleteRoom", made.delete)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield made
    await runner.cleanup()


async def test_a_job_whose_worker_was_killed_hangs_up_and_leaves_its_last_word(
    livekit: LiveKit, tmp_path: Path
) -> None:
    """SIGKILL of the parent alone: the room is deleted within promise 4's time, and the spool tells what became of it."""
    environment = {
        "PATH": os.environ["PATH"],
        "LIVEKIT_URL": livekit.url,
        "LIVEKIT_API_KEY": "devkey",
        "LIVEKIT_API_SECRET": "secretsecretsecretsecretsecret123",
        "BRIEF_KEY": f"k1:{base64.b64encode(KEYS['k1']).decode()}",
        "DIALER_AGENT_PORT": str(free_port()),
        "DIALER_AGENT_IDLE_PROCESSES": "1",
        "DIALER_AGENT_SPOOL_DIR": str(tmp_path / "spool"),
    }
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.agent.doomed"),
        env=environment,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert worker.stdout is not None
        async with asyncio.timeout(60):
            assert await worker.stdout.readline() == b"ready\n"
            await livekit.joined.wait()
        began = time.monotonic()
        worker.kill()
        async with asyncio.timeout(JOB_DIED_S):
            await livekit.deleted.wait()
        print(f"\nSIGKILL of the worker: its job had the room deleted after {time.monotonic() - began:.2f} s")
        kafka = Kafka()
        kafka.here.set()
        sweeper = Sweeper(kafka, spool_in(tmp_path / "spool"), SystemClock())
        async with asyncio.timeout(30):
            while not kafka.records:  # the job holds its file until it is gone itself
                await sweeper.sweep()
                await asyncio.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        await worker.wait()
    assert livekit.rooms == [ROOM]
    assert kafka.names == ["conversation_ended"]
    last = kafka.seen[0].data
    assert (last["reason"], last["callee_seen"], last["gap"]) == ("failed", False, True)
