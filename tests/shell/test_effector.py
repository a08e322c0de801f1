"""What is owed is started once and withdrawn when it is owed no longer; slots and turns always come back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from dialer.callee.inputs import AgentSilent
from dialer.callee.state import Phase
from schemas.facts import CalleeHungUp
from tests.doubles.agents import Script
from tests.doubles.memory_feed import TRUNK
from tests.doubles.telephony import Phone
from tests.doubles.world import ANN, BOB, CALLER, World, id_of, key_of


def slots(world: World) -> list[str]:
    return list(world.shared.pacer._lines[TRUNK].held)


def turns(world: World) -> list[str]:
    line = world.shared.pacer._lines[TRUNK]
    return [*line.out, *line.turns._places]


async def test_a_slot_comes_back_when_its_call_ends(world: World) -> None:
    """Whatever the end."""
    call = world.place()
    await world.until_told(call, "call_answered")
    assert slots(world) == [call]
    await world.clock.advance(60)
    assert slots(world) == []
    assert world.shared.asking == {}


async def test_a_slot_comes_back_between_attempts(world: World) -> None:
    """A call that waits for its retry holds nothing."""
    world.agents.scripts.append(Script(comes=False))
    call = world.place()
    await world.until_told(call, "retry_scheduled")
    assert slots(world) == []
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_a_call_whose_retry_is_due_when_its_fence_is_committed_is_granted_a_slot_anew(world: World) -> None:
    """The log stood still for longer than the pause before the retry: the slot of the attempt before is not the next one's."""
    world.agents.scripts.append(Script(comes=False))
    call = world.place()
    await world.until_told(call, "fence_started")
    floor = world.parts.floor.place()
    await floor.take(urgent=True)
    await world.clock.advance(10)
    assert "retry_scheduled" not in world.told(call)
    floor.give()
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert slots(world) == []


async def test_a_slot_granted_to_a_call_that_is_cancelled_meanwhile_is_given_back(world: World) -> None:
    """The grant waits in the inbox while the stop overtakes it."""
    world.shared.pacer.set_share(0, 24)
    call = world.place()
    await world.clock.advance(1)
    assert ("slot", call) in world.shared.asking
    world.stop("cancel_call", call_id=call)
    world.shared.pacer.set_share(24, 24)
    assert slots(world) == [call]
    await world.clock.advance(1)
    assert slots(world) == []
    assert world.last(call, "call_refused")["reason"] == "cancelled"
    assert world.telephony.dispatches == []


async def test_a_slot_granted_to_a_call_whose_turn_it_is_no_longer_goes_to_the_other(world: World) -> None:
    """A more urgent call of the same callee came in the meantime."""
    world.shared.pacer.set_share(0, 24)
    plain = world.place(request="r-1", priority=1)
    await world.clock.advance(1)
    urgent = world.place(request="r-2", priority=9)
    world.shared.pacer.set_share(24, 24)
    await world.clock.advance(120)
    assert [world.last(c, "call_ended")["outcome"] for c in (plain, urgent)] == ["delivered"] * 2
    assert slots(world) == []


async def test_a_slot_granted_by_a_clock_that_was_set_back_is_used_all_the_same(world: World) -> None:
    """An owner's clock never goes backwards: else the call would hold its slot and wait for ever."""
    world.shared.pacer.set_share(0, 24)
    call = world.place(not_before="2026-11-22T15:00:10Z")
    await world.clock.advance(30)
    world.clock._start -= timedelta(seconds=40)
    world.shared.pacer.set_share(24, 24)
    await world.until_told(call, "attempt_opened")


async def test_no_more_rooms_than_slots(world: World) -> None:
    """A trunk's concurrency is a hard cap over callees."""
    small = World(trunk=replace(CALLER, concurrency_max=1))
    await small.start(ANN, BOB)
    small.telephony.phone_default = Phone(rings_for_s=10.0)
    calls = [small.place(), small.place(BOB)]
    most = 0
    for _ in range(120):
        await small.clock.advance(0.5)
        most = max(most, len(small.telephony.rooms))
    assert most == 1
    assert [small.last(c, "call_ended")["outcome"] for c in calls] == ["delivered"] * 2
    await small.close()


async def test_a_turn_that_is_no_longer_needed_is_withdrawn(world: World) -> None:
    """Cancelled while it waits for the trunk: nobody else waits for its turn to grow stale."""
    call = world.place()
    await world.until_told(call, "attempt_opened")
    world.shared.pacer.set_share(0, 24)
    await world.until_told(call, "agent_joined")
    await world.clock.advance(0.1)
    assert turns(world) == [f"{call}-1"]
    world.stop("cancel_call", call_id=call)
    await world.clock.advance(0.1)
    assert turns(world) == []
    assert ("turn", f"{call}-1") not in world.shared.asking


async def test_a_turn_that_was_granted_and_withheld_is_given_back(world: World) -> None:
    """The gate said no: the token is not spent."""
    world.sight.stopped_campaigns.add("rx-refill")
    call = world.place()
    await world.until_told(call, "dial_withdrawn")
    assert turns(world) == []
    assert not world.shared.pacer._lines[TRUNK].sent


async def test_an_ownership_that_ends_gives_everything_back(world: World) -> None:
    """Slots, turns and questions of a partition that went elsewhere."""
    world.shared.pacer.set_share(0, 24)
    world.place()
    world.place(BOB)
    await world.clock.advance(1)
    assert len(world.shared.asking) == 2
    for owner in world.owned.values():
        owner.stop()
    await world.clock.advance(1)
    assert world.shared.asking == {}
    world.shared.pacer.set_share(24, 24)
    assert slots(world) == []


async def test_a_late_grant_for_a_runner_that_is_gone_is_given_back(world: World) -> None:
    """The pacer may grant what nobody waits for any more."""
    key = id_of(ANN)
    world.shared.pacer.ask_slot(key, TRUNK, "rx-refill", 5)
    assert slots(world) == []
    world.shared.pacer.ask_turn(f"{key}-1", TRUNK)
    await world.clock.advance(2)
    assert turns(world) == []


async def test_a_process_that_drains_dials_no_more_and_delivers_what_it_dialed(world: World) -> None:
    """The ringing call comes to its end, the next one is not sent."""
    world.telephony.script(ANN, Phone(rings_for_s=5.0))
    ringing = world.place()
    await world.until_told(ringing, "callee_ringing")
    world.shared.draining = True
    later = world.place(BOB)
    await world.clock.advance(30)
    assert world.last(ringing, "call_ended")["outcome"] == "delivered"
    assert world.last(later, "dial_withdrawn")["reason"] == "shutting_down"
    assert len(world.telephony.invites) == 1
    assert world.shared.dialing == 0


async def test_of_agents_that_are_gone_nothing_is_kept(world: World) -> None:
    """Renewals and facts that come late are not remembered for ever."""
    world.agents.scripts.extend([Script(falls_silent_on="active"), Script()])
    call = world.place()
    await world.clock.advance(200)
    assert "call_ended" in world.told(call)
    agents = world.ownership().agents
    assert agents._seen == {}
    assert agents._watched == set()


async def test_late_facts_of_a_closed_call_are_copied_and_not_watched(world: World) -> None:
    """An agent that speaks after the end is on the log, and nobody waits for it."""
    call = world.place()
    await world.until_told(call, "call_ended")
    world.agents._say(world.agents.jobs[0], CalleeHungUp, spoken_ms=1)
    await world.clock.advance(1)
    assert world.log(call)[-1]["type"] == CalleeHungUp.TYPE
    assert world.ownership().agents._seen == {}


async def test_the_same_state_again_starts_nothing_again(world: World) -> None:
    """Aligning is bringing in line: a hundred facts later there is still one of each."""
    world.telephony.script(ANN, Phone(rings_for_s=20.0))
    call = world.place()
    await world.until_told(call, "callee_ringing")
    callee = world.ownership().committed(key_of(ANN))
    assert callee is not None
    assert callee.calls[call].phase is Phase.RINGING
    running = dict(world.runner()._running[key_of(ANN)])
    for _ in range(100):
        world.ownership()._effects.align(callee, frozenset(running), world.clock.monotonic())
    await world.clock.advance(1)
    assert world.runner()._running[key_of(ANN)] == running
    assert len(world.telephony.invites) == 1


async def test_a_dial_that_is_superseded_before_it_was_committed_is_known_not_to_have_been_sent(world: World) -> None:
    """Decided and overtaken within one transaction: its effect never starts, so nobody else could ever say so."""
    call = world.place()
    await world.until_told(call, "attempt_opened")
    world.shared.pacer.set_share(0, 24)
    await world.until_told(call, "agent_joined")
    await world.clock.advance(0.1)
    lost = AgentSilent(id="lost", at=world.clock.now(), call_id=call, attempt=1)
    world.shared.pacer.set_share(24, 24)
    world.shared.pacer.tick(world.clock.monotonic() + 2.0)
    world.ownership().offer(key_of(ANN), lost)
    await world.until_told(call, "fence_started")
    assert world.last(call, "dial_started")["attempt"] == 1
    await world.until_told(call, "call_ended")
    assert "dial_unknown" not in world.told(call)
    assert world.last(call, "dial_withdrawn")["reason"] == "superseded"
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.invites) == 1
