"""A real livekit-server, a carrier in front of it, and a room with a speaking agent, for the tests of the stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from livekit import api, rtc
from livekit.protocol import sip

from rehearsal import espeak, faults, marks, serving
from rehearsal.carrier import Carrier
from rehearsal.phone import Exchange
from rehearsal.witness import Dial, Witness, dials_of
from tests.platform_fixtures import LIVEKIT_KEY as API_KEY
from tests.platform_fixtures import LIVEKIT_SECRET as API_SECRET
from tests.platform_fixtures import LiveKitAddress

T = TypeVar("T")

FACT_S = 15.0
TAIL_S = 0.3
"""The last packets are on their way when everything is played out: a caller keeps a tail."""


@pytest.fixture(scope="session")
def livekit_url(livekit: LiveKitAddress) -> str:
    """The session's real livekit-server."""
    return livekit.url


async def until(look: Callable[[], T], what: str, timeout_s: float = FACT_S) -> T:
    """Wait for a fact."""
    deadline = time.monotonic() + timeout_s
    while not (fact := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)
    return fact


@dataclass
class Agent:
    """A participant of kind agent that speaks and writes down what it sees of the callee."""

    room: rtc.Room
    source: rtc.AudioSource
    publication: rtc.LocalTrackPublication
    statuses: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    tracks: list[rtc.Track] = field(default_factory=list)

    async def say(self, text: str) -> None:
        await asyncio.wait_for(self.publication.wait_for_subscription(), FACT_S)
        await self.utter(text)

    async def utter(self, text: str) -> None:
        """Speak to whoever hears, a hidden recorder too, which is no subscription that is told of."""
        sound = marks.enclose(espeak.synthesize(text, 24_000), text, 24_000)
        for start in range(0, len(sound), 2400):
            part = sound[start : start + 2400]
            await self.source.capture_frame(rtc.AudioFrame(part.tobytes(), 24_000, 1, len(part)))
        await self.source.wait_for_playout()
        await asyncio.sleep(TAIL_S)


@dataclass
class Network:
    """A carrier under test with a client before it."""

    url: str
    livekit_url: str
    directory: Path
    client: api.LiveKitAPI
    trunk_id: str
    carrier: Carrier
    rooms: list[rtc.Room] = field(default_factory=list)

    async def room(self, name: str) -> str:
        await self.client.room.create_room(api.CreateRoomRequest(name=name))
        return name

    async def hang_up(self, name: str) -> None:
        await self.client.room.delete_room(api.DeleteRoomRequest(room=name))

    async def dial(self, number: str, room: str, ring_s: float = 20, **fields: Any) -> sip.SIPParticipantInfo:
        told: dict[str, Any] = {
            "sip_trunk_id": self.trunk_id,
            "sip_call_to": number,
            "room_name": room,
            "participant_identity": f"callee-{room}",
            "wait_until_answered": True,
            "hide_phone_number": True,
            "headers": {"X-Dial-Attempt-Id": room},
            **fields,
        }
        request = sip.CreateSIPParticipantRequest(**told)
        request.ringing_timeout.FromMilliseconds(int(ring_s * 1000))
        return await self.client.sip.create_sip_participant(request, timeout=ring_s + 15)

    async def agent(self, room: str) -> Agent:
        token = api.AccessToken(API_KEY, API_SECRET).with_identity(f"agent-{room}").with_kind("agent")
        token = token.with_grants(api.VideoGrants(room_join=True, room=room))
        joined, source = rtc.Room(), rtc.AudioSource(24_000, 1)
        self.rooms.append(joined)
        await joined.connect(self.livekit_url, token.to_jwt())
        track = rtc.LocalAudioTrack.create_audio_track("voice", source)
        # As the agent does (agent/voice.py): silence is sent too, so that the jitter buffer is settled at the first word.
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=False)
        agent = Agent(joined, source, await joined.local_participant.publish_track(track, options))

        def seen(participant: rtc.RemoteParticipant) -> None:
            agent.attributes = dict(participant.attributes)
            agent.kinds.append(participant.kind)
            status = participant.attributes.get("sip.callStatus", "")
            if agent.statuses[-1:] != [status]:
                agent.statuses.append(status)

        joined.on("participant_connected", seen)
        joined.on("participant_attributes_changed", lambda _, participant: seen(participant))
        joined.on("participant_disconnected", lambda participant: agent.left.append(participant.disconnect_reason))
        joined.on("track_subscribed", lambda track, *_: agent.tracks.append(track))
        return agent

    def dials(self) -> list[Dial]:
        return dials_of(self.directory / "witness.jsonl")

    async def ended(self, room: str) -> Dial:
        def look() -> Dial | None:
            return next((dial for dial in self.dials() if dial.room == room and dial.ended_at is not None), None)

        return await until(look, "the leg ended")


@contextlib.asynccontextmanager
async def serve_carrier(
    livekit_url: str,
    directory: Path,
    script: faults.Script | None = None,
    *,
    signalling: bool = False,
    egress_url: str = "",
) -> AsyncIterator[Network]:
    """A carrier in process, with one trunk."""
    with Witness(directory / "witness.jsonl") as witness:
        exchange = Exchange(
            livekit_url=livekit_url, api_key=API_KEY, api_secret=API_SECRET, witness=witness, directory=directory
        )
        carrier = Carrier(
            exchange, script or faults.Script(), media_timeout_s=2.0, signalling=signalling, egress_url=egress_url
        )
        runner, port = await serving.start(carrier.app(), 0)
        url = f"http://127.0.0.1:{port}"
        async with api.LiveKitAPI(url, API_KEY, API_SECRET) as client:
            trunk = sip.SIPOutboundTrunkInfo(name="rehearsal", address="127.0.0.1:5060", numbers=["+12125550100"])
            made = await client.sip.create_outbound_trunk(sip.CreateSIPOutboundTrunkRequest(trunk=trunk))
            network = Network(url, livekit_url, directory, client, made.sip_trunk_id, carrier)
            try:
                yield network
            finally:
                for room in network.rooms:
                    await room.disconnect()
                await runner.cleanup()


@pytest.fixture
async def network(livekit_url: str, tmp_path: Path) -> AsyncIterator[Network]:
    """A carrier before the real server."""
    async with serve_carrier(livekit_url, tmp_path) as served:
        yield served
