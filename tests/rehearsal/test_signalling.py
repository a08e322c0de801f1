"""Calls without media: seen, heard of and thrown out by a real livekit-server as any participant is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from livekit import api
from livekit.protocol import models

from rehearsal.signalling import JoinRefusedError, SignalledRoom
from rehearsal.witness import EndedBy
from tests.platform_fixtures import LIVEKIT_KEY, LIVEKIT_SECRET
from tests.rehearsal.conftest import serve_carrier, until

pytestmark = pytest.mark.livekit


@dataclass
class Seen:
    """What one participant was told."""

    statuses: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    def room(self, http: aiohttp.ClientSession) -> SignalledRoom:
        return SignalledRoom(http, self.changed, lambda who: self.gone.append(who.identity), self.closed.append)

    def changed(self, who: models.ParticipantInfo) -> None:
        self.statuses.append(who.attributes.get("sip.callStatus", ""))


def token(identity: str, room: str, kind: str) -> str:
    grants = api.VideoGrants(room_join=True, room=room, can_update_own_metadata=True)
    made = api.AccessToken(LIVEKIT_KEY, LIVEKIT_SECRET).with_identity(identity).with_kind(kind).with_grants(grants)
    return str(made.to_jwt())


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_phone_without_media_rings_is_answered_and_hung_up(
    livekit_url: str, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Through the carrier: the agent sees each status within the call, and the witness who hung up."""
    async with serve_carrier(livekit_url, tmp_path, signalling=True) as network:
        room, seen = await network.room(f"signalled-{secrets.token_hex(4)}"), Seen()
        agent = seen.room(http)
        await agent.join(livekit_url, token("agent", room, "agent"))
        answered = await network.dial("+12125550100", room)
        assert answered.room_name == room
        await until(lambda: seen.statuses[-1:] == ["active"], "the agent sees the answer")
        assert [s for n, s in enumerate(seen.statuses) if s not in seen.statuses[:n]] == [
            "dialing",
            "ringing",
            "active",
        ]
        await network.hang_up(room)
        dial = await network.ended(room)
        assert (dial.ended_by, dial.answered_at is not None) == (EndedBy.CALLER_BYE, True)
        await until(lambda: seen.closed, "the agent is thrown out")


async def test_a_phone_that_leaves_is_told_of_at_once(livekit_url: str, http: aiohttp.ClientSession) -> None:
    """Not with the 3 s that livekit-server takes for who publishes nothing."""
    room, seen = f"signalled-{secrets.token_hex(4)}", Seen()
    async with api.LiveKitAPI(livekit_url.replace("ws", "http", 1), LIVEKIT_KEY, LIVEKIT_SECRET) as client:
        await client.room.create_room(api.CreateRoomRequest(name=room))
        agent, phone = seen.room(http), Seen().room(http)
        await agent.join(livekit_url, token("agent", room, "agent"))
        await phone.join(livekit_url, token("phone", room, "sip"))
        await phone.set_attributes({"sip.callStatus": "ringing"})
        await until(lambda: seen.statuses == ["ringing"], "the agent sees the phone")
        began = asyncio.get_running_loop().time()
        await phone.leave()
        await until(lambda: seen.gone == ["phone"], "the agent sees it leave")
        assert asyncio.get_running_loop().time() - began < 2.0
        await client.room.delete_room(api.DeleteRoomRequest(room=room))


async def test_a_room_that_was_deleted_cannot_be_joined_without_media_either(
    livekit_url: str, http: aiohttp.ClientSession
) -> None:
    """The fence holds for every way in."""
    with pytest.raises(JoinRefusedError):
        await Seen().room(http).join(livekit_url, token("phone", "nobody-made-this", "sip"))
