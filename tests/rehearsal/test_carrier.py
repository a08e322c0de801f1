"""The carrier answers the real client as livekit-server with livekit-sip would."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from livekit import api, rtc
from livekit.protocol import sip
from livekit.protocol.models import ListUpdate

from rehearsal.faults import Fault, Kind, Rule, Script
from rehearsal.witness import EndedBy
from tests.rehearsal.conftest import API_KEY, API_SECRET, Network, serve_carrier, until

pytestmark = pytest.mark.livekit

REFUSED = [
    # number, SIP status, phrase, Twirp code, HTTP status, disconnect reason seen in the room
    ("+12125550120", 486, "Busy Here", "resource_exhausted", 429, "USER_REJECTED"),
    ("+12125550130", 603, "Decline", "permission_denied", 403, "USER_REJECTED"),
    ("+12125550150", 404, "Not Found", "not_found", 404, "USER_UNAVAILABLE"),
    ("+12125550160", 603, "Network Blocked", "permission_denied", 403, "USER_REJECTED"),
    ("+12125550165", 608, "Rejected", "permission_denied", 403, "USER_REJECTED"),
    ("+12125550170", 503, "CPS limit exceeded", "failed_precondition", 412, "USER_REJECTED"),
]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row[2])
async def test_a_refused_dial_names_its_sip_status(network: Network, row: tuple[str, int, str, str, int, str]) -> None:
    """Code, metadata, HTTP status, what the room sees, one witnessed INVITE."""
    number, status, phrase, code, http, reason = row
    room = await network.room(f"refused-{number[1:]}")
    agent = await network.agent(room)
    with pytest.raises(api.SipCallError) as caught:
        await network.dial(number, room)
    error = caught.value
    assert (error.sip_status_code, error.sip_status, error.code, error.status) == (status, phrase, code, http)
    (left,) = await until(lambda: agent.left, "the callee left")
    assert rtc.DisconnectReason.Name(left) == reason
    assert "active" not in agent.statuses and "hangup" not in agent.statuses
    dial = await network.ended(room)
    assert (dial.number, dial.attempt_id, dial.sip_status, dial.ended_by) == (number, room, status, EndedBy.REFUSED)


async def test_nobody_answers_until_the_ring_timeout(network: Network) -> None:
    """`canceled` 408 without SIP metadata, so not even a SipCallError."""
    room = await network.room("unanswered")
    agent = await network.agent(room)
    with pytest.raises(api.ServerError) as caught:
        await network.dial("+12125550140", room, ring_s=1)
    error = caught.value
    assert not isinstance(error, api.SipCallError) and error.metadata == {}
    assert (error.code, error.status, error.message) == ("canceled", 408, "sip request timed out")
    assert agent.statuses[-1] == "ringing"
    assert (await network.ended(room)).ended_by is EndedBy.RING_TIMEOUT


async def test_a_late_answer_is_an_answer(network: Network) -> None:
    """Ringing for 6 s."""
    room = await network.room("late")
    info = await network.dial("+12125550110", room)
    assert info.participant_identity == f"callee-{room}" and info.sip_call_id.startswith("SCL_")
    (dial,) = network.dials()
    assert dial.answered_at is not None and (dial.answered_at - dial.invite_at).total_seconds() > 5.5


async def test_the_second_dial_of_an_overloaded_trunk_is_answered(network: Network) -> None:
    """The persona that a retry is for."""
    first, second = await network.room("cps-1"), await network.room("cps-2")
    with pytest.raises(api.SipCallError):
        await network.dial("+12125550171", first)
    await network.dial("+12125550171", second)
    assert [dial.sip_status for dial in network.dials()] == [503, None]


async def test_a_room_that_does_not_exist_is_joined_by_nobody(network: Network) -> None:
    """The fence: refused before any INVITE."""
    with pytest.raises(api.ServerError) as caught:
        await network.dial("+12125550101", "never-created")
    assert (caught.value.code, caught.value.metadata) == ("internal", {}) and network.dials() == []


async def test_an_unknown_trunk_differs_from_an_unknown_number(network: Network) -> None:
    """`not_found` for both, SIP metadata only for the number."""
    room = await network.room("trunkless")
    with pytest.raises(api.ServerError) as caught:
        await network.dial("+12125550101", room, sip_trunk_id="ST_none")
    assert (caught.value.code, caught.value.metadata) == ("not_found", {}) and network.dials() == []


@pytest.mark.parametrize(
    "fields", [{"sip_call_to": ""}, {"sip_call_to": "sip:a@b"}, {"room_name": ""}, {"sip_trunk_id": ""}]
)
async def test_a_request_that_cannot_be_meant_is_refused(network: Network, fields: dict[str, str]) -> None:
    """`invalid_argument`, nothing dialed."""
    room = await network.room("invalid")
    with pytest.raises(api.ServerError) as caught:
        await network.dial("+12125550101", room, **fields)
    assert caught.value.code == "invalid_argument" and network.dials() == []


async def test_the_same_identity_again_rings_again_and_kicks_the_first(network: Network) -> None:
    """A dial is not idempotent: two requests, two INVITEs; the first leg goes."""
    room = await network.room("twice")
    await network.dial("+12125550101", room)
    await network.dial("+12125550101", room)
    first, second = await until(lambda: (d := network.dials()) and d[0].ended_by and d, "the first leg ended")
    assert first.ended_by is EndedBy.DUPLICATE_IDENTITY and second.ended_by is None
    assert first.attempt_id == second.attempt_id == room


async def test_a_caller_that_goes_away_does_not_cancel_the_dial(network: Network) -> None:
    """The phone is answered all the same."""
    room = await network.room("gone")
    task = asyncio.create_task(network.dial("+12125550101", room))
    await until(network.dials, "the INVITE left")
    task.cancel()
    await until(lambda: network.dials()[0].answered_at, "the phone was answered")


async def test_a_room_deleted_while_it_rings_cancels_the_invite(network: Network) -> None:
    """The one who waits is told the same as for a ring timeout (livekit-sip's own wording)."""
    room = await network.room("cancelled")
    task = asyncio.create_task(network.dial("+12125550141", room))
    await until(lambda: network.dials() and network.dials()[0].ringing_at, "it rings")
    await network.hang_up(room)
    with pytest.raises(api.ServerError) as caught:
        await task
    assert (caught.value.code, caught.value.metadata) == ("canceled", {})
    dial = await network.ended(room)
    assert dial.ended_by is EndedBy.CANCELLED and dial.answered_at is None


async def test_without_waiting_the_answer_comes_before_the_ringing(network: Network) -> None:
    """`wait_until_answered` False."""
    room = await network.room("unwaited")
    await network.dial("+12125550101", room, wait_until_answered=False)
    assert all(dial.answered_at is None for dial in network.dials())
    await until(lambda: network.dials() and network.dials()[0].answered_at, "it was answered")


async def test_trunks_are_never_merged(network: Network, livekit_url: str) -> None:
    """Create twice: two ids; list, update by fields and whole, delete; kept over a restart."""
    service, info = network.client.sip, sip.SIPOutboundTrunkInfo(name="t", address="a.example:5061", numbers=["+1"])
    one, two = [await service.create_outbound_trunk(sip.CreateSIPOutboundTrunkRequest(trunk=info)) for _ in range(2)]
    assert one.sip_trunk_id != two.sip_trunk_id
    changed = await service.update_outbound_trunk_fields(one.sip_trunk_id, name="u", numbers=ListUpdate(add=["+2"]))
    assert (changed.name, changed.address, list(changed.numbers)) == ("u", "a.example:5061", ["+1", "+2"])
    replaced = await service.update_outbound_trunk(two.sip_trunk_id, info)
    assert replaced.sip_trunk_id == two.sip_trunk_id
    await service.delete_trunk(sip.DeleteSIPTrunkRequest(sip_trunk_id=two.sip_trunk_id))
    listed = await service.list_outbound_trunk(sip.ListSIPOutboundTrunkRequest())
    assert {trunk.sip_trunk_id for trunk in listed.items} == {network.trunk_id, one.sip_trunk_id}
    async with serve_carrier(livekit_url, network.directory) as again:
        kept = await again.client.sip.list_outbound_trunk(sip.ListSIPOutboundTrunkRequest(trunk_ids=[one.sip_trunk_id]))
        assert [trunk.name for trunk in kept.items] == ["u"]
    with pytest.raises(api.ServerError) as caught:
        await service.create_outbound_trunk(sip.CreateSIPOutboundTrunkRequest(trunk=sip.SIPOutboundTrunkInfo()))
    assert caught.value.code == "invalid_argument"


async def test_a_token_without_the_grant_is_refused(network: Network) -> None:
    """No token, a forged one, one without the right grant."""
    url = f"{network.url}/twirp/livekit.SIP/ListSIPOutboundTrunk"
    forged = api.AccessToken(API_KEY, "x" * 32).with_sip_grants(api.SIPGrants(admin=True)).to_jwt()
    only_calls = api.AccessToken(API_KEY, API_SECRET).with_sip_grants(api.SIPGrants(call=True)).to_jwt()
    async with aiohttp.ClientSession() as session:
        for token in ("", forged, only_calls):
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            async with session.post(url, data="{}", headers=headers) as answer:
                assert answer.status == 401 and (await answer.json())["code"] == "unauthenticated"


async def test_json_is_spoken_too(network: Network) -> None:
    """Twirp's other content type."""
    token = api.AccessToken(API_KEY, API_SECRET).with_sip_grants(api.SIPGrants(admin=True)).to_jwt()
    url, headers = f"{network.url}/twirp/livekit.SIP/ListSIPOutboundTrunk", {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.post(url, json={}, headers=headers) as answer:
        assert [trunk["sip_trunk_id"] for trunk in (await answer.json())["items"]] == [network.trunk_id]


async def test_everything_else_passes_through_to_the_server(network: Network) -> None:
    """Rooms, errors of the server, and its front page; egress is refused as without a worker."""
    await network.room("passed")
    rooms = await network.client.room.list_rooms(api.ListRoomsRequest(names=["passed"]))
    assert [room.name for room in rooms.rooms] == ["passed"]
    with pytest.raises(api.ServerError) as caught:
        await network.hang_up("not-there")
    assert caught.value.code == "not_found"
    with pytest.raises(api.ServerError) as caught:
        await network.client.egress.list_egress(api.ListEgressRequest())
    assert caught.value.code == "unavailable"
    async with aiohttp.ClientSession() as session, session.get(f"{network.url}/") as answer:
        assert (answer.status, await answer.text()) == (200, "OK")


async def test_the_control_surface_shows_live_legs_without_numbers(network: Network) -> None:
    """Attempt, room, status, persona; the number masked."""
    room = await network.room("shown")
    await network.dial("+12125550101", room)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{network.url}/rehearsal/calls") as answer:
            (leg,) = await answer.json()
        async with session.get(f"{network.url}/rehearsal/health") as answer:
            assert (await answer.json())["legs"] == 1
    told = (leg["attempt_id"], leg["room"], leg["status"], leg["persona"], leg["number"])
    assert told == (room, room, "active", "answers", "**********01")


async def test_an_answer_lost_on_the_way_leaves_a_ringing_phone(livekit_url: str, tmp_path: Path) -> None:
    """The fault that every dialer must survive: it was done, and the caller was never told."""
    rule = Rule(at="carrier.CreateSIPParticipant", fault=Fault(kind=Kind.LOSE_ANSWER), nth=frozenset([1]))
    async with serve_carrier(livekit_url, tmp_path, Script(rules=(rule,))) as network:
        room = await network.room("lost")
        with pytest.raises(aiohttp.ClientError):
            await network.dial("+12125550101", room)
        assert len(network.dials()) == 1


def _hand_over(room: str, to: str) -> sip.TransferSIPParticipantRequest:
    return sip.TransferSIPParticipantRequest(room_name=room, participant_identity=f"callee-{room}", transfer_to=to)


@pytest.mark.parametrize("to", ["tel:+12125550100", "sip:desk@example.invalid"])
async def test_a_callee_is_handed_over(network: Network, to: str) -> None:
    """The request is answered once the other end took it; then the leg ends as livekit-sip ends it."""
    room = await network.room(f"over-{len(to)}")
    agent = await network.agent(room)
    await network.dial("+12125550101", room)
    await network.client.sip.transfer_sip_participant(_hand_over(room, to))
    assert await until(lambda: agent.left, "the callee left") == [rtc.DisconnectReason.CLIENT_INITIATED]
    assert (await network.ended(room)).ended_by is EndedBy.TRANSFERRED


async def test_a_transfer_is_refused_by_its_destination(network: Network) -> None:
    """A busy desk: the SIP status is named, and the callee stays."""
    room = await network.room("over-busy")
    agent = await network.agent(room)
    await network.dial("+12125550101", room)
    with pytest.raises(api.SipCallError) as caught:
        await network.client.sip.transfer_sip_participant(_hand_over(room, "tel:+12125550120"))
    assert (caught.value.sip_status_code, caught.value.code) == (486, "resource_exhausted")
    assert not agent.left


@pytest.mark.parametrize(
    ("to", "code"), [("+12125550100", "invalid_argument"), ("", "invalid_argument"), ("tel:+12125550100", "not_found")]
)
async def test_a_transfer_of_nobody_is_refused(network: Network, to: str, code: str) -> None:
    """No URI, no destination, no such participant."""
    room = await network.room(f"nobody-{code}-{len(to)}")
    with pytest.raises(api.TwirpError) as caught:
        await network.client.sip.transfer_sip_participant(_hand_over(room, to))
    assert caught.value.code == code
