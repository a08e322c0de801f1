"""What simulations have found, each told shortly: the fault that was there, and that it is not there any more."""

from __future__ import annotations

from dialer.agents import Agents
from dialer.gate import READINESS_AGE_MAX_S
from schemas.values import room_name
from tests.doubles.agents import Script
from tests.doubles.clock import VirtualClock
from tests.doubles.telephony import BUSY, Fault, Phone
from tests.doubles.world import ANN, World


async def test_a_slot_comes_back_when_an_attempt_is_judged_without_its_last_word() -> None:
    """An agent fell silent, so the judgement waited its 10 s with nothing owed: the slot stayed held, the call waited for ever."""
    world = World()
    await world.start(ANN)
    world.agents.scripts.append(Script(falls_silent_on="ringing"))
    world.telephony.script(ANN, Phone(answer=BUSY, rings_for_s=2.0), Phone(rings_for_s=1.0))
    call = world.place()
    await world.until_told(call, "retry_scheduled")
    await world.clock.settle()
    assert not world.shared.pacer.holding()
    await world.clock.advance(400)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    await world.close()


def test_watching_an_agent_that_was_taken_over_does_not_make_it_ready() -> None:
    """A new owner watched an agent it had never heard of, and the gate took that for a fresh readiness: it was dead for 13 s."""
    agents = Agents(VirtualClock())
    agents.watch("a call", 1)
    assert agents.silent() == []
    assert agents.readiness_age_s("a call", 1) > READINESS_AGE_MAX_S


def test_a_sign_of_life_that_is_no_readiness_opens_no_gate() -> None:
    """The agent's `conversation_ended` came 12 s after its last readiness, and the gate took it for one (seed 3)."""
    clock = VirtualClock()
    agents = Agents(clock)
    now_ms = int(clock.now().timestamp() * 1000)
    agents.renewed("a call", 1, now_ms, ready=False)
    assert agents.age_s("a call", 1) < 1
    assert agents.readiness_age_s("a call", 1) > READINESS_AGE_MAX_S
    agents.renewed("a call", 1, now_ms)
    assert agents.readiness_age_s("a call", 1) < 1


async def test_a_room_that_was_taken_over_unanswered_is_never_dialed_into() -> None:
    """The former owner's request made it again after its fence, and a dial as late as that one rang (seeds 1142, 1573)."""
    world = World()
    await world.start(ANN)
    world.telephony.fault("create_room", Fault(kind="delay", delay_s=8.0))
    call = world.place()
    await world.until_told(call, "attempt_opened")
    world.lose()
    await world.clock.advance(60)
    assert world.last(call, "room_failed") == {"attempt": 1, "code": "taken_over"}
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    asked = [name for method, name in world.telephony.requests if method == "create_room"]
    assert asked == [room_name(call, 1), room_name(call, 2)]
    assert [invite.room for invite in world.telephony.invites] == [room_name(call, 2)]
    await world.close()
