"""A callee who says "stop calling me": through owner, core and log, by the agent's fact and its POST, whichever is first."""

from __future__ import annotations

from typing import Any

import pytest

from dialer.callee.step import OPTED_OUT
from tests.doubles.agents import Script
from tests.doubles.world import ANN, World, key_of

STOPS_CALLING = Script(talk="is told to stop calling", speaks_for_s=3.0)


@pytest.fixture
async def talking(world: World) -> World:
    """Ann is on the phone; her agent is about to be told."""
    world.agents.default = STOPS_CALLING
    await world.until_told(world.place(), "call_answered")
    return world


def suppressions(world: World) -> list[dict[str, Any]]:
    return [e["data"] for e in world.log() if e["type"] == "dialer.event.callee_suppressed.v1"]


def posted(world: World, stop_id: str = "stop-1") -> None:
    """Do what `POST /v1/suppressions` does with the agent's `{"callee_key": …, "reason": "opt_out"}`."""
    world.stop("suppress_callee", stop_id, callee_key=key_of(ANN), reason=OPTED_OUT)


async def test_an_opt_out_ends_its_call_and_refuses_every_other(talking: World) -> None:
    """The one that talks is ended by its agent; one that waits and one that comes are refused."""
    waits = talking.place(request="r-2")
    await talking.clock.advance(20)
    comes = talking.place(request="r-3")
    await talking.clock.advance(20)
    (call,) = {e["subject"] for e in talking.log() if e["type"] == "agent.fact.opt_out_heard.v1"}
    assert talking.last(call, "call_ended")["outcome"] == "opted_out"
    assert talking.last(call, "fence_started")["reason"] == "conversation_ended"
    assert [talking.last(one, "call_refused")["reason"] for one in (waits, comes)] == ["suppressed"] * 2
    assert len(talking.telephony.invites) == 1
    assert [s["reason"] for s in suppressions(talking)] == [OPTED_OUT]


async def test_the_agents_post_after_its_fact_adds_nothing(talking: World) -> None:
    """Tried three times over, as it does: one suppression, and the goodbye is not cut off."""
    await talking.until(lambda: bool(suppressions(talking)))
    for n in range(3):
        posted(talking, f"stop-{n}")
    await talking.clock.advance(20)
    (call,) = {e["subject"] for e in talking.log() if e["type"] == "agent.fact.opt_out_heard.v1"}
    assert talking.last(call, "fence_started")["reason"] == "conversation_ended"
    assert talking.last(call, "call_ended")["outcome"] == "opted_out"
    assert len(suppressions(talking)) == 1


async def test_the_agents_post_before_its_fact_is_the_one_suppression(talking: World) -> None:
    """Facts were kept from Kafka, the API was not: the phone is hung up on, and what was said is still on the log."""
    posted(talking)
    await talking.clock.advance(20)
    assert len(suppressions(talking)) == 1
    calls = {e["subject"] for e in talking.log() if e["type"] == "dialer.event.call_ended.v1"}
    assert len(calls) == 1
    talking.place(request="r-2")
    await talking.clock.advance(20)
    assert len(talking.telephony.invites) == 1


async def test_an_opt_out_survives_a_take_over_in_the_middle_of_the_goodbye(talking: World) -> None:
    """The next owner leaves the talk to its agent, too, and rings nobody."""
    await talking.until(lambda: bool(suppressions(talking)))
    talking.lose()
    posted(talking)
    await talking.clock.advance(60)
    (call,) = {e["subject"] for e in talking.log() if e["type"] == "agent.fact.opt_out_heard.v1"}
    assert talking.last(call, "call_ended")["outcome"] == "opted_out"
    later = talking.place(request="r-2")
    await talking.clock.advance(20)
    assert talking.last(later, "call_refused")["reason"] == "suppressed"
    assert (len(talking.telephony.invites), len(suppressions(talking))) == (1, 1)
