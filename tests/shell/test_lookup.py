"""A definition that is not at hand is looked up while its call waits; unreachable delays only the calls that need it."""

from __future__ import annotations

import pytest

from tests.doubles.memory_feed import campaign
from tests.doubles.world import ANN, World


@pytest.fixture
async def cold() -> World:
    """A dialer that knows no campaign yet."""
    world = World()
    world.shelf.campaigns.clear()
    await world.start(ANN)
    return world


async def test_a_definition_is_looked_up_and_the_message_sealed(cold: World) -> None:
    """The request is on the log before; what is said stands there only sealed."""
    cold.shelf.campaigns["rx-refill"] = campaign()
    call = cold.place()
    await cold.clock.advance(60)
    assert cold.told(call)[:2] == ["call_requested", "call_prepared"]
    prepared = cold.last(call, "call_prepared")
    assert set(prepared["message"]) == {"key", "box"}
    assert prepared["message_length"] == len("Hello Ann, your prescription is ready at Main Street.")
    assert cold.last(call, "call_ended")["outcome"] == "delivered"
    await cold.close()


async def test_an_unreachable_service_delays_and_is_asked_with_growing_pauses(cold: World) -> None:
    """Never refused for it; a minute away costs a handful of questions."""
    cold.shelf.campaigns["rx-refill"] = campaign()
    cold.shelf.reachable = False
    call = cold.place()
    await cold.clock.advance(60)
    assert cold.told(call) == ["call_requested"]
    assert 4 <= cold.shelf.asked <= 8
    cold.shelf.reachable = True
    await cold.clock.advance(60)
    assert cold.last(call, "call_ended")["outcome"] == "delivered"
    await cold.close()


async def test_not_found_refuses_the_call(cold: World) -> None:
    """The service said so."""
    call = cold.place()
    await cold.clock.advance(1)
    assert cold.last(call, "call_refused")["reason"] == "unknown_campaign"
    await cold.close()


async def test_a_call_that_expires_while_it_is_looked_up_is_refused_and_asked_for_no_more(cold: World) -> None:
    """The look-up is withdrawn with it."""
    cold.shelf.reachable = False
    call = cold.place(not_after="2026-11-22T15:00:30Z")
    await cold.clock.advance(60)
    assert cold.last(call, "call_refused")["reason"] == "expired"
    asked = cold.shelf.asked
    await cold.clock.advance(600)
    assert cold.shelf.asked == asked
    await cold.close()


async def test_a_look_up_goes_on_after_a_take_over(cold: World) -> None:
    """The next owner asks again: it is owed."""
    cold.shelf.reachable = False
    call = cold.place()
    await cold.clock.advance(5)
    cold.lose()
    cold.shelf.reachable = True
    cold.shelf.campaigns["rx-refill"] = campaign()
    await cold.clock.advance(60)
    assert cold.last(call, "call_ended")["outcome"] == "delivered"
    assert cold.told(call).count("call_prepared") == 1
    await cold.close()
