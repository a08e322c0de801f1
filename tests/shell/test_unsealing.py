"""A seal that does not open stops one callee, with an alarm; the process and everybody else go on."""

from __future__ import annotations

from runtime import metrics
from runtime.seal import MasterKey, new_data_key
from tests.doubles.memory_feed import campaign
from tests.doubles.world import ANN, BOB, World, key_of


def alarms() -> float:
    found: float = metrics.ALARMS.labels("seal_broken")._value.get()
    return found


def break_key(world: World, number: str = ANN) -> None:
    """Put a key of another master key in the place of this callee's, as it is kept and on the log."""
    keys = world.ownership(number).keys
    draw = world.clock.random_bytes
    keys._wrapped[key_of(number)] = MasterKey(bytes(32)).wrap(key_of(number), new_data_key("1", draw), draw)
    keys._opened.pop(key_of(number), None)


async def test_a_broken_key_opens_no_room_and_ends_its_call(world: World) -> None:
    """Its attempts come to nothing, and say why; nobody is rung; the other callee is."""
    world.shared.pacer.set_share(0, 24)
    call, other = world.place(), world.place(BOB)
    await world.clock.advance(1)
    break_key(world)
    before = alarms()
    world.shared.pacer.set_share(24, 24)
    await world.clock.advance(600)
    assert world.last(call, "room_failed")["code"] == "seal_broken"
    assert world.last(call, "call_ended")["outcome"] == "agent_unavailable"
    assert world.last(other, "call_ended")["outcome"] == "delivered"
    assert alarms() >= before + 10
    assert [i.to for i in world.telephony.invites] == [BOB]


async def test_a_key_that_breaks_before_the_dial_dials_nobody(world: World) -> None:
    """Known not to have been sent."""
    call = world.place()
    await world.until_told(call, "attempt_opened")
    world.shared.pacer.set_share(0, 24)
    await world.until_told(call, "agent_joined")
    break_key(world)
    world.shared.pacer.set_share(24, 24)
    await world.until_told(call, "dial_failed")
    failed = world.last(call, "dial_failed")
    assert (failed["sent"], failed["code"], failed["phrase"]) == (False, "not_sent", "seal_broken")
    assert world.telephony.invites == []


async def test_a_command_for_a_callee_whose_key_is_broken_is_rejected(world: World) -> None:
    """One record on `dialer.rejected`, an alarm, and the partition goes on."""
    first = world.place()
    await world.until_told(first, "call_ended")
    break_key(world)
    before = alarms()
    world.place(request="r-2")
    await world.clock.advance(1)
    assert [(r["field"], r["rule"]) for r in world.rejected()] == [("to", "callee_parked")]
    assert alarms() == before + 1
    other = world.place(BOB)
    await world.until_told(other, "call_ended")


async def test_a_look_up_with_a_broken_key_decides_nothing(world: World) -> None:
    """The call waits for its expiry, or for a repair and the next owner."""
    world.shelf.reachable = False
    world.shelf.campaigns["slow"] = campaign(id="slow")
    call = world.place(not_after="2026-11-22T15:01:00Z", campaign_id="slow")
    await world.clock.advance(1)
    break_key(world)
    before = alarms()
    world.shelf.reachable = True
    await world.clock.advance(30)
    assert world.told(call) == ["call_requested"]
    assert alarms() == before + 1
    await world.clock.advance(60)
    assert world.last(call, "call_refused")["reason"] == "expired"
