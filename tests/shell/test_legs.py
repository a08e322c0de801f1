"""One attempt's room and leg: opened once, dialed through the gate once, fenced until it is certain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from dialer.gate import DIAL_AGE_MAX_S
from dialer.telephony import RoomRequest
from runtime import metrics
from schemas.brief import Brief
from schemas.envelope import Envelope, encode, headers_of
from schemas.observations import ParticipantJoined
from schemas.topics import OBSERVATIONS
from schemas.values import partition_of, room_name
from tests.doubles.agents import Script
from tests.doubles.telephony import Fault, Phone, Room, _Leg
from tests.doubles.world import ANN, World, key_of


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A dialer that owns Ann's partition."""
    world = World()
    await world.start(ANN)
    yield world
    await world.close()


def asked(world: World, method: str) -> list[str]:
    return [what for name, what in world.telephony.requests if name == method]


async def test_a_room_is_asked_for_once_with_its_dispatch_and_a_sealed_brief(world: World) -> None:
    """One request makes room and dispatch; what is visible to participants holds ids only."""
    call = world.place()
    await world.clock.advance(60)
    assert asked(world, "create_room") == [room_name(call, 1)]
    (request,) = world.telephony.dispatches
    assert request.room_metadata == f'{{"call_id":"{call}","attempt":1}}'
    brief: Brief = world.box.open(request.agent_metadata)
    assert brief.message == "Hello Ann, your prescription is ready at Main Street."
    assert (brief.call_id, brief.attempt, brief.campaign_id) == (call, 1, "rx-refill")
    assert "Ann" not in repr(replace(request, agent_metadata="")) and "Ann" not in request.agent_metadata


async def test_a_dial_passes_the_gate_once(world: World) -> None:
    """One INVITE to the number, under the attempt's id, from the trunk's own number."""
    call = world.place()
    before = metrics.GATE.labels("open")._value.get()
    await world.clock.advance(60)
    assert metrics.GATE.labels("open")._value.get() == before + 1
    (invite,) = world.telephony.invites
    assert (invite.to, invite.attempt_id, invite.caller_id) == (ANN, f"{call}-1", "+12125550100")
    assert world.last(call, "dial_started")["caller_id"] == invite.caller_id


async def at_the_gate(world: World) -> str:
    """Bring a call to the gate and hold it there: control is stale."""
    world.sight.control_s = 2.0
    call = world.place()
    await world.until_told(call, "dial_started")
    await world.clock.advance(0.1)
    return call


async def test_a_gate_that_is_stale_for_a_moment_lets_the_dial_out_when_it_is_fresh(world: World) -> None:
    """Nothing is withdrawn, and nothing is rung twice."""
    call = await at_the_gate(world)
    await world.clock.advance(2.0)
    assert world.telephony.invites == []
    world.sight.control_s = 0.0
    await world.clock.advance(0.1)
    assert len(world.telephony.invites) == 1
    assert "dial_withdrawn" not in world.told(call)


def _drain(world: World) -> None:
    world.shared.draining = True


def _stop_dialling(world: World) -> None:
    world.sight.stopped_campaigns.add("rx-refill")


def _cancel(world: World) -> None:
    world.stop("cancel_call", call_id=next(iter(world.ownership().committed(key_of(ANN)).calls)))  # type: ignore[union-attr]


def _suppress(world: World) -> None:
    world.stop("suppress_callee", callee_key=key_of(ANN))


def _oversleep(world: World) -> None:
    world.clock._start += timedelta(seconds=DIAL_AGE_MAX_S + 1)


def _lose(world: World) -> None:
    world.lose()


REFUSING: list[tuple[Callable[[World], None], str]] = [
    (_drain, "shutting_down"),
    (_lose, "not_owned"),
    (_oversleep, "stale_dial"),
    (_cancel, "cancelled"),
    (_suppress, "suppressed"),
    (_stop_dialling, "stopped"),
]


@pytest.mark.parametrize(("happens", "reason"), REFUSING)
async def test_a_row_that_refuses_withholds_at_once(
    world: World, happens: Callable[[World], None], reason: str
) -> None:
    """Known not to have been sent, with its reason, within a moment."""
    call = await at_the_gate(world)
    world.agents.default = Script(comes=False)
    happens(world)
    await world.clock.advance(0.2)
    world.sight.control_s = 0.0
    await world.clock.advance(5)
    assert world.telephony.invites == []
    assert world.last(call, "dial_withdrawn")["reason"] == reason


async def test_a_clock_that_is_off_withholds_at_once(world: World) -> None:
    """Ages mean nothing then."""
    world.broker.ahead_s = 3.0
    call = world.place()
    await world.until_told(call, "dial_withdrawn")
    assert world.last(call, "dial_withdrawn")["reason"] == "clock"
    assert world.telephony.invites == []


def _no_membership(world: World) -> None:
    world.sight.membership_s = 7.5


def _stale_stops(world: World) -> None:
    world.sight.stops_s = 1.5


def _stale_control(world: World) -> None:
    world.sight.control_s = 1.5


@pytest.mark.parametrize(
    ("stale", "reason"),
    [(_no_membership, "not_owned"), (_stale_stops, "stops_not_drained"), (_stale_control, "control_stale")],
)
async def test_a_row_that_is_stale_is_waited_for_5_s_then_withheld(
    world: World, stale: Callable[[World], None], reason: str
) -> None:
    """Not sooner, not later; the call goes on with the next attempt once it is fresh again."""
    call = world.place()
    await world.until_told(call, "room_created")
    stale(world)
    await world.until_told(call, "dial_started")
    await world.clock.advance(DIAL_AGE_MAX_S - 0.2)
    assert "dial_withdrawn" not in world.told(call)
    await world.clock.advance(0.3)
    assert world.last(call, "dial_withdrawn")["reason"] == reason
    assert world.telephony.invites == []
    world.sight.membership_s = world.sight.control_s = world.sight.stops_s = 0.0
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.invites) == 1


async def test_an_agent_that_does_not_renew_is_not_dialed_for(world: World) -> None:
    """The trunk's turn came late: what was ready 6 s ago may be gone."""
    world.agents.scripts.append(Script(renews=False))
    call = world.place()
    await world.until_told(call, "attempt_opened")
    world.shared.pacer.set_share(0, 24)
    await world.until_told(call, "agent_joined")
    await world.clock.advance(5.0)
    world.shared.pacer.set_share(24, 24)
    await world.until_told(call, "dial_withdrawn")
    assert world.last(call, "dial_withdrawn")["reason"] == "agent_not_ready"
    assert world.telephony.invites == []


async def test_without_the_pacers_token_nothing_goes_out(world: World) -> None:
    """The share shrank between the turn and the gate."""
    call = await at_the_gate(world)
    world.shared.pacer.set_share(0, 24)
    world.sight.control_s = 0.0
    await world.until_told(call, "dial_withdrawn")
    assert world.last(call, "dial_withdrawn")["reason"] == "no_token"
    assert world.telephony.invites == []


async def test_a_fence_needs_two_answers_a_second_apart(world: World) -> None:
    """Only then the attempt is judged, and only then its slot is free."""
    call = world.place()
    await world.until_told(call, "fence_started")
    await world.clock.advance(0.9)
    assert len(asked(world, "delete_room")) == 1
    assert world.runner().holds_slot(call)
    assert "fence_confirmed" not in world.told(call)
    await world.clock.advance(0.2)
    assert asked(world, "delete_room") == [room_name(call, 1)] * 2
    assert "fence_confirmed" in world.told(call)
    assert not world.runner().holds_slot(call)


async def test_a_leg_that_comes_into_a_fenced_room_is_hung_up_alarmed_and_fenced_again(world: World) -> None:
    """The fence begins anew: two answers without a leg between."""
    call = world.place()
    await world.until_told(call, "fence_started")
    before = metrics.ALARMS.labels("leg_in_fenced_room")._value.get()
    await world.clock.advance(0.5)
    room = room_name(call, 1)
    request = RoomRequest(
        name=room, agent_name="", agent_metadata="", room_metadata="", empty_timeout_s=1, departure_timeout_s=1
    )
    world.telephony.rooms[room] = Room("RM_late", request, {f"callee-{call}-1": _Leg("sip", "ringing")})
    await world.clock.advance(0.7)
    assert room not in world.telephony.rooms
    assert "fence_confirmed" not in world.told(call)
    assert metrics.ALARMS.labels("leg_in_fenced_room")._value.get() == before + 1
    await world.clock.advance(10)
    assert "fence_confirmed" in world.told(call)


async def test_a_fence_goes_on_until_livekit_answers(world: World) -> None:
    """A failure proves nothing."""
    call = world.place()
    await world.until_told(call, "dial_started")
    for _ in range(3):
        world.telephony.fault("delete_room", Fault(kind="fail"))
    await world.until_told(call, "fence_started")
    await world.clock.advance(3)
    assert "fence_confirmed" not in world.told(call)
    await world.clock.advance(30)
    assert world.told(call).count("fence_confirmed") == 1
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_a_fence_waits_for_a_room_that_is_still_asked_for(world: World) -> None:
    """Else the room would be made behind the fence's back."""
    world.telephony.fault("create_room", Fault(kind="delay", delay_s=8.0))
    call = world.place()
    await world.until_told(call, "attempt_opened")
    await world.clock.advance(1)
    world.stop("cancel_call", call_id=call)
    await world.clock.advance(5)
    assert "fence_started" in world.told(call)
    assert asked(world, "delete_room") == []
    await world.clock.advance(20)
    assert asked(world, "delete_room") == [room_name(call, 1)] * 2
    assert world.telephony.rooms == {}
    assert world.last(call, "call_ended")["outcome"] == "cancelled"


async def test_a_room_that_fails_is_tried_again_with_a_room_of_its_own(world: World) -> None:
    """It cost no ring."""
    world.telephony.fault("create_room", Fault(kind="fail"))
    call = world.place()
    await world.clock.advance(60)
    assert asked(world, "create_room") == [room_name(call, 1), room_name(call, 2)]
    assert world.last(call, "room_failed")["code"] == "unavailable"
    assert world.last(call, "call_ended")["outcome"] == "delivered"


def outcomes_published(world: World) -> list[bytes]:
    stored = world.broker.uncommitted(OBSERVATIONS.name, partition_of(key_of(ANN)))
    return [s.value or b"" for s in stored if b"dial_outcome" in (s.value or b"")]


async def test_an_outcome_is_handed_over_in_process_while_the_ownership_lives(world: World) -> None:
    """Nothing is produced to observations."""
    world.place()
    await world.clock.advance(60)
    assert outcomes_published(world) == []


async def test_an_outcome_whose_ownership_is_over_is_produced_under_its_derived_id(world: World) -> None:
    """The next owner takes it from there."""
    world.agents.default = Script(comes=True, speaks_for_s=2.0)
    world.telephony.script(ANN, Phone(rings_for_s=8.0))
    call = world.place()
    await world.until_told(call, "callee_ringing")
    world.lose()
    await world.clock.advance(60)
    (published,) = outcomes_published(world)
    assert f'"id":"dial/{call}-1"'.encode() in published
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_an_adopted_leg_that_is_gone_ends_its_attempt(world: World) -> None:
    """Nobody saw it end: the dialer was away; the agent's last word is all there is."""
    world.telephony.script(ANN, Phone(rings_for_s=20.0))
    call = world.place()
    await world.until_told(call, "callee_ringing")
    world.feed.delayed.add(OBSERVATIONS.name)
    world.lose()
    world.telephony.leave(room_name(call, 1), f"callee-{call}-1")
    await world.clock.advance(3)
    assert world.last(call, "fence_started")["reason"] == "callee_left"
    assert len(world.telephony.invites) == 1


async def test_a_taken_over_dial_that_was_never_sent_is_withdrawn_and_made_again(world: World) -> None:
    """`DialStarted` is on the log, the process died before the INVITE: the agent that saw no leg proves it."""
    world.sight.control_s = 2.0
    call = world.place()
    await world.until_told(call, "dial_started")
    world.requests.away = 100  # the old ownership's word does not arrive either
    world.lose()
    world.sight.control_s = 0.0
    await world.clock.advance(60)
    assert world.last(call, "dial_withdrawn")["reason"] == "not_sent"
    assert [i.attempt_id for i in world.telephony.invites] == [f"{call}-2"]
    assert world.last(call, "call_ended")["outcome"] == "delivered"


def joined(world: World, call: str, attempt: int) -> None:
    """LiveKit's webhook: a callee's leg came into the attempt's room."""
    envelope = Envelope(
        type=ParticipantJoined.TYPE,
        source="/livekit/webhook",
        id=f"EV_{attempt}",
        subject=call,
        time=world.clock.now(),
        data=ParticipantJoined(attempt=attempt, kind="sip"),
    )
    world.broker.send(OBSERVATIONS, call[:26], encode(envelope), headers_of(envelope))


async def test_a_leg_that_shows_up_after_its_fence_is_hung_up_and_alarmed(world: World) -> None:
    """A room should not have come back; whoever made it, nobody rings through it."""
    call = world.place()
    await world.until_told(call, "call_ended")
    room, before = room_name(call, 1), metrics.ALARMS.labels("leg_in_fenced_room")._value.get()
    joined(world, call, 1)
    await world.clock.advance(1)
    assert metrics.ALARMS.labels("leg_in_fenced_room")._value.get() == before, "a late webhook of a leg that is gone"
    request = replace(world.telephony.dispatches[0], name=room)
    world.telephony.rooms[room] = Room("RM_late", request, {f"callee-{call}-1": _Leg("sip", "ringing")})
    world.telephony.fault("delete_room", Fault(kind="fail"))
    joined(world, call, 1)
    await world.clock.advance(3)
    assert metrics.ALARMS.labels("leg_in_fenced_room")._value.get() == before + 1
    assert world.telephony.live_legs == []
    assert world.told(call)[-1] == "call_ended"


async def test_a_leg_of_the_attempt_under_way_is_no_stray(world: World) -> None:
    """Its webhook is no news."""
    world.telephony.script(ANN, Phone(rings_for_s=5.0))
    call = world.place()
    await world.until_told(call, "callee_ringing")
    asked_before = len(asked(world, "delete_room"))
    joined(world, call, 1)
    await world.clock.advance(1)
    assert len(asked(world, "delete_room")) == asked_before
    assert len(world.telephony.live_legs) == 1


async def test_a_process_that_slept_makes_no_room_until_it_is_known_to_own_still(world: World) -> None:
    """A room behind another owner's fence would stand there for nobody."""
    world.sight.membership_s = 7.5
    call = world.place()
    await world.until_told(call, "attempt_opened")
    await world.clock.advance(3)
    assert asked(world, "create_room") == []
    world.sight.membership_s = 0.0
    await world.clock.advance(1)
    assert asked(world, "create_room") == [room_name(call, 1)]


async def test_an_attempt_that_is_given_up_meanwhile_gets_no_room(world: World) -> None:
    """It was cancelled while its process did not know whether it owns it."""
    world.sight.membership_s = 7.5
    call = world.place()
    await world.until_told(call, "attempt_opened")
    world.stop("cancel_call", call_id=call)
    await world.clock.advance(20)
    assert asked(world, "create_room") == []
    assert world.last(call, "call_ended")["outcome"] == "cancelled"


async def test_a_call_that_waits_too_long_for_its_trunk_opens_again_and_pays_nothing(world: World) -> None:
    """LiveKit closes a room without a callee after 300 s, so ours is taken down before."""
    call = world.place()
    await world.until_told(call, "attempt_opened")
    world.shared.pacer.set_share(0, 24)
    await world.clock.advance(245)
    assert world.last(call, "fence_started")["reason"] == "turn_overdue"
    callee = world.ownership().committed(key_of(ANN))
    assert callee is not None
    assert callee.calls[call].openings_spent == 0
    world.shared.pacer.set_share(24, 24)
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert "agent_unavailable" not in world.told(call)
