"""A whole dialer in memory: owner, runner, gate, pacer and core together, from a call's request to its end."""

from __future__ import annotations

import dataclasses

import pytest

from tests.doubles.agents import Script
from tests.doubles.telephony import BUSY, NOT_FOUND, Fault, Phone
from tests.doubles.world import ANN, BOB, World, id_of, key_of

DELIVERED = [
    "call_requested",
    "call_prepared",
    "attempt_opened",
    "room_created",
    "agent_dispatched",
    "agent_joined",
    "dial_started",
    "callee_ringing",
    "call_answered",
    "fence_started",
    "fence_confirmed",
    "call_ended",
]


def terminals(told: list[str]) -> list[str]:
    return [name for name in told if name in {"call_ended", "call_refused"}]


async def test_an_answered_call_is_delivered(world: World) -> None:
    """From the command to the terminal event: one room, one dispatch, one INVITE, nothing left open."""
    world.telephony.script(ANN, Phone(rings_for_s=6.0))
    call = world.place()
    await world.clock.advance(30)
    assert world.told(call) == DELIVERED
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert [i.to for i in world.telephony.invites] == [ANN]
    assert len(world.telephony.dispatches) == 1
    assert world.telephony.rooms == {}
    assert not world.runner()._slots
    assert not world.runner()._running
    permit = world.last(call, "dial_started")["permit"]
    assert (permit["policy"], permit["region"], permit["control"]) == ("s1", "US", "7")


async def test_the_same_request_again_is_the_same_call(world: World) -> None:
    """A repetition adds nothing, whenever it comes."""
    call = world.place()
    world.place()
    await world.clock.advance(30)
    world.place()
    await world.clock.advance(30)
    assert terminals(world.told(call)) == ["call_ended"]
    assert world.told(call).count("call_requested") == 1
    assert len(world.telephony.invites) == 1
    assert world.rejected() == []


async def test_busy_is_retried_after_the_delay(world: World) -> None:
    """The campaign says 300 s; not a second before, and the next attempt has its own room."""
    world.telephony.script(ANN, Phone(answer=BUSY, rings_for_s=1.0), Phone(rings_for_s=1.0))
    call = world.place()
    await world.clock.advance(20)
    assert world.last(call, "dial_failed")["outcome"] == "busy"
    assert world.told(call)[-1] == "retry_scheduled"
    assert not world.runner()._slots
    await world.clock.advance(320)
    first, second = world.telephony.invites
    assert (second.at - first.at).total_seconds() >= 300
    assert (first.attempt_id, second.attempt_id) == (f"{call}-1", f"{call}-2")
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_an_invalid_number_ends_the_call(world: World) -> None:
    """What the carrier says is final is not tried again."""
    world.telephony.script(ANN, Phone(answer=NOT_FOUND))
    call = world.place()
    await world.clock.advance(600)
    assert world.last(call, "call_ended")["outcome"] == "invalid_number"
    assert len(world.telephony.invites) == 1


async def test_nobody_answers_and_the_call_is_tried_again(world: World) -> None:
    """The ring timeout passes; half an hour later it is tried again, three times in all."""
    world.telephony.phone_default = Phone(rings_for_s=None)
    call = world.place()
    await world.clock.advance(3 * 1900)
    assert world.last(call, "call_ended")["outcome"] == "no_answer"
    assert len(world.telephony.invites) == 3


async def test_a_cancel_while_it_rings_hangs_up(world: World) -> None:
    """The leg is gone within seconds, and no further attempt follows."""
    world.telephony.script(ANN, Phone(rings_for_s=25.0))
    call = world.place()
    await world.clock.advance(5)
    assert len(world.telephony.live_legs) == 1
    world.stop("cancel_call", call_id=call)
    await world.clock.advance(0.5)
    assert world.telephony.live_legs == []
    await world.clock.advance(600)
    assert world.last(call, "call_ended")["outcome"] == "cancelled"
    assert len(world.telephony.invites) == 1


async def test_a_cancel_before_its_call_refuses_it(world: World) -> None:
    """In whatever order they meet."""
    world.stop("cancel_call", call_id=id_of(ANN))
    await world.clock.advance(1)
    call = world.place()
    await world.clock.advance(30)
    assert world.last(call, "call_refused")["reason"] == "cancelled"
    assert world.telephony.dispatches == []


async def test_a_suppression_while_the_call_waits_refuses_it(world: World) -> None:
    """Nothing was opened, so it is refused; a later call is refused at once; lifted, one is made."""
    waiting = world.place(not_before="2026-11-22T16:00:00Z", not_after="2026-11-22T18:00:00Z")
    await world.clock.advance(1)
    world.stop("suppress_callee", callee_key=key_of(ANN), reason="asked")
    await world.clock.advance(1)
    later = world.place(request="r-2")
    await world.clock.advance(1)
    assert world.last(waiting, "call_refused")["reason"] == "suppressed"
    assert world.last(later, "call_refused")["reason"] == "suppressed"
    world.stop("lift_suppression", "stop-2", callee_key=key_of(ANN))
    await world.clock.advance(1)
    third = world.place(request="r-3")
    await world.clock.advance(30)
    assert world.last(third, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.invites) == 1


async def test_an_agent_that_crashes_while_it_rings_stops_the_ringing(world: World) -> None:
    """Nobody is rung into silence: within 5 s of the job's death the leg is gone; a minute later it is tried again."""
    world.telephony.script(ANN, Phone(rings_for_s=20.0), Phone(rings_for_s=1.0))
    world.agents.scripts.append(Script(crashes_on="ringing"))
    call = world.place()
    await world.clock.advance(5)
    assert world.telephony.live_legs == []
    assert "agent_lost" in world.told(call)
    await world.clock.advance(120)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.invites) == 2


async def test_an_agent_whose_machine_dies_in_the_call_ends_it_within_30_s(world: World) -> None:
    """Nobody says so: the readiness that is not renewed does."""
    world.agents.scripts.append(Script(falls_silent_on="active"))
    call = world.place()
    await world.clock.advance(3)
    assert len(world.telephony.live_legs) == 1
    await world.clock.advance(30)
    assert world.telephony.live_legs == []
    await world.clock.advance(10)  # its last word is waited for
    assert world.last(call, "call_ended")["outcome"] == "agent_lost"


async def test_an_agent_that_never_comes_costs_no_ring(world: World) -> None:
    """Opened again and again with growing pauses, never dialed; then the agents are taken to be gone."""
    world.agents.default = Script(comes=False)
    call = world.place()
    await world.clock.advance(1200)
    assert world.telephony.invites == []
    assert world.last(call, "call_ended")["outcome"] == "agent_unavailable"
    assert world.told(call).count("attempt_opened") == 10


async def test_a_dial_without_an_answer_is_unknown_and_never_repeated(world: World) -> None:
    """The INVITE went out, LiveKit's answer was lost, the agent saw the leg: nobody may ring again."""
    world.telephony.script(ANN, Phone(rings_for_s=20.0))
    world.telephony.fault("dial", Fault(kind="lose_answer", delay_s=0.0))
    world.agents.scripts.append(Script(crashes_on="ringing"))
    call = world.place()
    await world.clock.advance(600)
    assert len(world.telephony.invites) == 1
    told = world.told(call)
    assert "dial_unknown" in told
    assert world.last(call, "call_ended")["outcome"] == "unknown"


async def test_two_calls_of_one_callee_never_overlap(world: World) -> None:
    """One room of a callee at a time, whatever waits; both are delivered, the urgent one first."""
    overlaps: list[int] = []
    seen = world.telephony.seen

    def watching(room: str, identity: str, status: str) -> None:
        overlaps.append(len(world.telephony.rooms))
        seen(room, identity, status)

    world.telephony.seen = watching
    calls = [world.place(request=f"r-{n}", priority=n) for n in range(4)]
    await world.clock.advance(120)
    assert max(overlaps) == 1
    assert [world.last(c, "call_ended")["outcome"] for c in calls] == ["delivered"] * 4
    assert [i.attempt_id[:-2] for i in world.telephony.invites] == calls[::-1]


async def test_two_callees_are_rung_at_once(world: World) -> None:
    """What one callee waits for holds up nobody else."""
    world.telephony.phone_default = Phone(rings_for_s=10.0)
    calls = [world.place(), world.place(BOB)]
    await world.clock.advance(6)
    assert len(world.telephony.live_legs) == 2
    await world.clock.advance(60)
    assert [world.last(c, "call_ended")["outcome"] for c in calls] == ["delivered"] * 2


async def test_an_expired_call_is_refused(world: World) -> None:
    """`not_after` passes while the call waits for its time."""
    call = world.place(not_before="2026-11-22T15:10:00Z", not_after="2026-11-22T15:05:00Z")
    await world.clock.advance(600)
    assert world.last(call, "call_refused")["reason"] == "expired"
    assert world.telephony.dispatches == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"campaign_id": "nobody-s"}, "unknown_campaign"),
        ({"variables": {"first_name": "Ann"}}, "missing_variable"),
        ({"not_after": "2026-11-22T14:00:00Z"}, "expired"),
        ({"to": "+442079460123"}, "country_not_allowed"),
    ],
)
async def test_what_cannot_be_made_is_refused_with_its_reason(data: dict[str, object], reason: str) -> None:
    """Each ends in exactly one terminal event, and nothing is opened."""
    world = World()
    await world.start(str(data.get("to", ANN)))
    call = world.place(**{"to": ANN, **data})  # type: ignore[arg-type]
    await world.clock.advance(10)
    assert world.last(call, "call_refused")["reason"] == reason
    assert terminals(world.told(call)) == ["call_refused"]
    assert world.telephony.dispatches == []
    await world.close()


@pytest.mark.parametrize("message", ["{first_name}" * 100, "  {first_name}  "])
async def test_a_message_that_is_empty_or_too_long_is_refused(message: str) -> None:
    """After rendering, not before."""
    world = World()
    world.shelf.campaigns["rx-refill"] = dataclasses.replace(world.shelf.campaigns["rx-refill"], message=message)
    await world.start(ANN)
    long = len(message) > 100
    call = world.place(variables={"first_name": "n" * 200 if long else " "})
    await world.clock.advance(10)
    assert world.last(call, "call_refused")["reason"] == ("message_too_long" if long else "message_empty")
    await world.close()


async def test_the_kill_switch_withdraws_dials_and_lets_them_go_on_later(world: World) -> None:
    """Stopped: known not sent, tried again with pauses; running again: one INVITE."""
    world.sight.stopped_campaigns.add("rx-refill")
    call = world.place()
    await world.clock.advance(60)
    assert world.telephony.invites == []
    assert world.last(call, "dial_withdrawn")["reason"] == "stopped"
    world.sight.stopped_campaigns.clear()
    await world.clock.advance(120)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.invites) == 1


async def test_taken_over_while_it_rings_the_call_goes_on_and_is_not_rung_twice(world: World) -> None:
    """The ownership ends as by an error of the log; the dial's outcome comes over `dialer.observations`."""
    world.telephony.script(ANN, Phone(rings_for_s=15.0))
    call = world.place()
    await world.clock.advance(5)
    assert len(world.telephony.live_legs) == 1
    world.lose()
    await world.clock.advance(1)
    assert world.runner()._closed is False
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.invites) == 1


async def test_taken_over_in_the_conversation_the_call_goes_on(world: World) -> None:
    """Nobody is cut off by a rebalance, and what it held still counts against the trunk."""
    world.agents.default = Script(speaks_for_s=20.0)
    call = world.place()
    await world.clock.advance(5)
    assert "call_answered" in world.told(call)
    world.lose()
    await world.clock.advance(3)
    assert len(world.telephony.live_legs) == 1
    assert world.runner().holds_slot(call)
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 9.0])
async def test_taken_over_at_any_moment_there_is_one_end_and_one_ring_an_attempt(world: World, after_s: float) -> None:
    """Nothing is lost, nobody is rung twice, whenever the ownership ends."""
    world.telephony.phone_default = Phone(rings_for_s=4.0)
    calls = [world.place(), world.place(request="r-2")]
    await world.clock.advance(after_s)
    world.lose()
    await world.clock.advance(3600)
    for call in calls:
        assert terminals(world.told(call)) == ["call_ended"]
        assert world.told(call).count("call_answered") <= 1
    attempts = [i.attempt_id for i in world.telephony.invites]
    assert len(attempts) == len(set(attempts))
    assert world.telephony.rooms == {}
