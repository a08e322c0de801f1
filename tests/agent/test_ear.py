"""What the callee says reaches those who listen: through a real room and the rehearsal's recogniser."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from livekit import api, rtc

from agent.ear import FRAME_MS, Ear
from agent.recogniser import Heard, Sound, SpeechEnded, SpeechStarted
from rehearsal import livekit_server
from rehearsal.personas import PERSONAS
from rehearsal.phone import Exchange, Leg, Order
from rehearsal.ports import free_ports
from rehearsal.process_spec import ProcessSpec
from rehearsal.provision import provision
from rehearsal.supervisor import Supervisor
from rehearsal.witness import Witness
from runtime.settings import Secret, Settings

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.livekit]

KEY, SECRET = "devkey", "secretsecretsecretsecretsecret123"
ANSWERS = replace(next(p for p in PERSONAS if p.name == "answers"), rings_for_s=0.1)
WAIT_S = 20.0


class Line:
    """A livekit-server and a speech service, and calls between an agent's room and a phone."""

    def __init__(self, supervisor: Supervisor, livekit: livekit_server.LiveKitServer, speech_port: int) -> None:
        self.livekit, self.directory = livekit, supervisor.run_dir
        self.settings = Settings(
            listen_url=f"ws://127.0.0.1:{speech_port}/v1/listen",
            speak_url=f"ws://127.0.0.1:{speech_port}/v1/speak",
            deepgram_api_key=Secret("none"),
        )

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncIterator[tuple[rtc.Room, Leg]]:
        """A room with an agent in it, and the callee's leg, which is not dialed yet."""
        name, identity = f"room-{secrets.token_hex(4)}", "callee"
        token = api.AccessToken(KEY, SECRET).with_identity("agent").with_kind("agent")
        token = token.with_grants(api.VideoGrants(room_join=True, room=name))
        room = rtc.Room()
        async with api.LiveKitAPI(self.livekit.http_url, KEY, SECRET) as client:
            await client.room.create_room(api.CreateRoomRequest(name=name))
            await room.connect(self.livekit.url, token.to_jwt(), rtc.RoomOptions(auto_subscribe=False))
            with Witness(self.directory / "witness.jsonl") as witness:
                exchange = Exchange(
                    livekit_url=self.livekit.url,
                    api_key=KEY,
                    api_secret=SECRET,
                    witness=witness,
                    directory=self.directory,
                )
                order = Order(
                    dial_id=name,
                    attempt_id=name,
                    number="+12125550123",
                    room=name,
                    identity=identity,
                    name="",
                    metadata="",
                    ringing_timeout_s=30,
                    max_call_duration_s=30,
                    media_timeout_s=30,
                )
                try:
                    yield room, Leg(order, ANSWERS, None, exchange)
                finally:
                    await client.room.delete_room(api.DeleteRoomRequest(room=name))
                    await room.disconnect()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    """Start both; stop them in reverse."""
    run_dir, ports = tmp_path_factory.mktemp("line"), free_ports(4)
    livekit = livekit_server.LiveKitServer(
        binary=provision().livekit,
        data_dir=run_dir / "livekit",
        http_port=ports[0],
        rtc_tcp_port=ports[1],
        rtc_udp_port=ports[2],
        api_key=KEY,
        api_secret=SECRET,
        log_level="warn",
    )
    livekit_server.prepare(livekit)

    async def speaks() -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", ports[3])
            writer.close()
            return True
        return False

    argv = [sys.executable, "-m", "rehearsal.speech", "--port", str(ports[3])]
    speech = ProcessSpec(name="speech", argv=argv, cwd=Path(__file__).parents[2], ready=speaks)
    async with Supervisor(run_dir) as supervisor:
        await supervisor.start([livekit_server.server_spec(livekit), speech])
        yield Line(supervisor, livekit, ports[3])


async def test_words_reach_the_recogniser_and_sound_every_listener(line: Line) -> None:
    """Speech begins, is heard with the times at which it was said, and ends."""
    async with line.call() as (room, leg):
        ear = Ear.attach(room, "callee")
        frames, words = ear.frames(), ear.listen(line.settings, "en-US")
        loudest = 0
        await leg.join()
        talking = asyncio.create_task(leg.run())
        assert await asyncio.wait_for(leg.answered, WAIT_S) is None
        ear.open()

        async def listen() -> list[Sound]:
            return [sound async for sound in words]

        async def watch() -> int:
            nonlocal loudest
            count = 0
            async for frame in frames:
                assert frame.sample_rate == 16_000 and frame.duration == pytest.approx(FRAME_MS / 1000)
                loudest = max(loudest, int(np.abs(np.frombuffer(frame.data, np.int16).astype(np.int32)).max()))
                count += 1
            return count

        listening, watching = asyncio.create_task(listen()), asyncio.create_task(watch())
        heard = [await asyncio.wait_for(_first_words(ear.listen(line.settings, "es-US")), WAIT_S)]
        await ear.close()
        sounds, count = await asyncio.wait_for(asyncio.gather(listening, watching), WAIT_S)
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
    assert frames.dropped == 0
    assert count > 20 and loudest > 1000
    assert [type(sound) for sound in sounds] == [SpeechStarted, Heard, SpeechEnded]
    said = sounds[1]
    assert isinstance(said, Heard) and said.text == "Hello?" == heard[0].text
    assert ear.opened_at < said.started_at < said.ended_at < said.at
    assert 0.2 < said.ended_at - said.started_at < 1.0
    assert said.at - said.ended_at < 1.5


async def _first_words(sounds: AsyncIterator[Sound]) -> Heard:
    async for sound in sounds:
        if isinstance(sound, Heard):
            return sound
    raise AssertionError("it ended without")
