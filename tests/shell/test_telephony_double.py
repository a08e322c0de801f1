"""The telephony double's faults do what they are named for: tests of the dialer lean on that."""

from __future__ import annotations

import asyncio

from dialer.telephony import DialRequest, RoomRequest, Trunk
from tests.doubles.clock import VirtualClock
from tests.doubles.telephony import ANSWERED, NOT_SENT, UNCLEAR, Fault, Phone, TelephonyDouble

ROOM = RoomRequest(
    name="r", agent_name="a", agent_metadata="", room_metadata="", empty_timeout_s=60, departure_timeout_s=20
)


async def opened(clock: VirtualClock) -> tuple[TelephonyDouble, DialRequest]:
    double = TelephonyDouble(clock)
    trunk_id = await double.ensure_trunk(Trunk(name="t", address="sip.example", numbers=("+12125550100",)))
    await double.create_room(ROOM)
    return double, DialRequest(
        room="r",
        identity="callee",
        attempt_id="x-1",
        to="+12125550123",
        trunk_id=trunk_id,
        caller_id="+12125550100",
        ring_timeout_s=30,
        max_call_duration_s=60,
    )


async def test_a_lost_answer_is_unclear_although_the_phone_was_answered():
    """The INVITE went out, the leg lives, nobody told us."""
    clock = VirtualClock()
    double, request = await opened(clock)
    double.fault("dial", Fault(kind="lose_answer", delay_s=5))
    dial = asyncio.create_task(double.dial(request))
    await clock.advance(6)
    assert dial.result() == UNCLEAR
    assert len(double.invites) == 1 and double.live_legs == [("r", "callee")]


async def test_a_late_answer_comes_after_the_fact():
    """Answered at once, told three seconds later."""
    clock = VirtualClock()
    double, request = await opened(clock)
    double.fault("dial", Fault(kind="late", delay_s=3))
    dial = asyncio.create_task(double.dial(request))
    await clock.advance(2)
    assert double.live_legs and not dial.done()
    await clock.advance(2)
    assert dial.result() == ANSWERED


async def test_a_delayed_dial_meets_the_fence():
    """Sent late, into a room that is gone meanwhile: no INVITE."""
    clock = VirtualClock()
    double, request = await opened(clock)
    double.fault("dial", Fault(kind="delay", delay_s=3))
    dial = asyncio.create_task(double.dial(request))
    await clock.advance(1)
    assert await double.delete_room("r") == "deleted"
    await clock.advance(3)
    assert dial.result().code == "internal" and double.invites == []


async def test_what_is_not_sent_rings_nobody_and_faults_strike_in_order():
    """One fault, one request."""
    clock = VirtualClock()
    double, request = await opened(clock)
    double.fault("dial", Fault(kind="not_sent"), after=1)
    assert await double.dial(request) == ANSWERED
    assert await double.dial(request) == NOT_SENT
    assert await double.dial(request) == ANSWERED
    assert len(double.invites) == 2 and len(double.live_legs) == 1


async def test_legs_are_seen_in_livekits_order_and_a_callee_hangs_up():
    """Joined before the INVITE, ringing, active, left."""
    clock = VirtualClock()
    double, request = await opened(clock)
    seen: list[str] = []
    double.seen = lambda _room, _identity, status: seen.append(f"{status}:{len(double.invites)}")
    double.script(request.to, Phone(rings_for_s=2, talks_for_s=4))
    dial = asyncio.create_task(double.dial(request))
    await clock.advance(10)
    assert dial.result() == ANSWERED
    assert seen == ["dialing:0", "ringing:1", "active:1", "left:1"]
