"""Promise 6 by table: every stop in every phase and in every order, on virtual time, and the race of an answer with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import pytest

from dialer.callee.state import Phase
from tests.doubles.agents import Script
from tests.doubles.telephony import BUSY, Fault, Phone
from tests.doubles.world import ANN, BOB, CALLER, World, id_of, key_of

HANG_UP_MAX_S: Final = 0.5
CALL: Final = id_of(ANN)
LATER: Final = {"not_before": "2026-11-22T16:00:00Z", "not_after": "2026-11-22T20:00:00Z"}


def phase(world: World) -> Phase | None:
    callee = world.ownership().committed(key_of(ANN))
    call = callee.calls.get(CALL) if callee is not None else None
    return None if call is None else call.phase


async def reached(world: World, wanted: Phase) -> None:
    await world.until(lambda: phase(world) is wanted)


async def requested(world: World) -> None:
    """The campaign service does not answer, and never did."""
    world.place()
    await reached(world, Phase.REQUESTED)


async def waiting(world: World) -> None:
    """It is not due."""
    world.place(**LATER)
    await reached(world, Phase.WAITING)


async def waiting_for_a_slot(world: World) -> None:
    """It is due, and the trunk is full."""
    world.shared.pacer.set_share(0, 24)
    world.place()
    await reached(world, Phase.WAITING)


async def waiting_for_another_attempt(world: World) -> None:
    """It was rung and is to be rung again."""
    world.telephony.script(ANN, Phone(answer=BUSY))
    world.place()
    await world.until_told(CALL, "retry_scheduled")


async def opening(world: World) -> None:
    """LiveKit takes its time for the room."""
    world.telephony.fault("create_room", Fault(kind="delay", delay_s=5.0))
    world.place()
    await reached(world, Phase.OPENING)


async def gathering(world: World) -> None:
    """The agent takes its time."""
    world.agents.default = Script(ready_after_s=10.0)
    world.place()
    await reached(world, Phase.GATHERING)


async def ready(world: World) -> None:
    """Another has the trunk's turn."""
    world.place(BOB)
    await world.until(lambda: len(world.telephony.invites) == 1)
    world.agents.default = Script(ready_after_s=0.01)
    world.place()
    await reached(world, Phase.READY)


async def at_the_gate(world: World) -> None:
    """The dial is committed, and control is not fresh."""
    world.sight.control_s = 2.0
    world.place()
    await reached(world, Phase.DIALING)


async def dialing(world: World) -> None:
    """LiveKit has the request and has not sent the INVITE."""
    world.telephony.fault("dial", Fault(kind="delay", delay_s=2.0))
    world.place()
    await world.until(lambda: ("dial", f"{CALL}-1") in world.telephony.requests)


async def ringing(world: World) -> None:
    """It rings."""
    world.telephony.script(ANN, Phone(rings_for_s=20.0))
    world.place()
    await reached(world, Phase.RINGING)


async def answered(world: World) -> None:
    """They talk."""
    world.agents.default = Script(speaks_for_s=60.0)
    world.place()
    await reached(world, Phase.ANSWERED)


async def fencing(world: World) -> None:
    """The room is being taken down after a busy line."""
    world.telephony.script(ANN, Phone(answer=BUSY))
    world.place()
    await reached(world, Phase.FENCING)


PHASES: Final[dict[str, tuple[Callable[[World], Awaitable[None]], int]]] = {
    "requested": (requested, 0),
    "waiting": (waiting, 0),
    "waiting_for_a_slot": (waiting_for_a_slot, 0),
    "waiting_for_another_attempt": (waiting_for_another_attempt, 1),
    "opening": (opening, 0),
    "gathering": (gathering, 0),
    "ready": (ready, 0),
    "at_the_gate": (at_the_gate, 0),
    "dialing": (dialing, 0),
    "ringing": (ringing, 1),
    "answered": (answered, 1),
    "fencing": (fencing, 1),
}
"""How each phase is reached, and how many INVITEs have gone out by then; a request that a room's fall overtakes makes none."""


async def world_in(where: str) -> World:
    """Bring Ann's call into a phase."""
    world = World(trunk=replace(CALLER, calls_per_s=1) if where == "ready" else CALLER)
    world.shelf.reachable = where != "requested"
    await world.start(ANN, BOB)
    await PHASES[where][0](world)
    return world


def rung(world: World) -> int:
    """Count Ann's INVITEs."""
    return sum(invite.to == ANN for invite in world.telephony.invites)


def legs(world: World) -> list[str]:
    """Name Ann's live legs."""
    return [room for room, _ in world.telephony.live_legs if CALL in room]


def cancel(world: World) -> None:
    world.stop("cancel_call", "stop-c", call_id=CALL)


def suppress(world: World) -> None:
    world.stop("suppress_callee", "stop-s", callee_key=key_of(ANN), reason="asked")


def lift(world: World) -> None:
    world.stop("lift_suppression", "stop-l", callee_key=key_of(ANN))


STOPS: Final[dict[str, tuple[tuple[Callable[[World], None], ...], set[str]]]] = {
    "cancel": ((cancel,), {"cancelled"}),
    "suppress": ((suppress,), {"suppressed"}),
    "cancel, again": ((cancel, cancel), {"cancelled"}),
    "cancel, suppress": ((cancel, suppress), {"cancelled", "suppressed"}),
    "suppress, cancel": ((suppress, cancel), {"cancelled", "suppressed"}),
    "suppress, lift": ((suppress, lift), {"suppressed"}),
    "suppress, lift, cancel": ((suppress, lift, cancel), {"cancelled", "suppressed"}),
}


@pytest.mark.parametrize("stops", STOPS)
@pytest.mark.parametrize("where", PHASES)
async def test_a_stop_in_any_phase_is_a_stop(where: str, stops: str) -> None:
    """The phone is silent within half a second, no INVITE follows, one terminal event says why, nothing is left open."""
    said, words = STOPS[stops]
    world = await world_in(where)
    for say in said:
        say(world)
    world.sight.control_s, world.shelf.reachable = 0.0, True
    world.shared.pacer.set_share(24, 24)
    await world.clock.advance(HANG_UP_MAX_S)
    assert legs(world) == []
    await world.clock.advance(6 * 3600)
    assert rung(world) == PHASES[where][1]
    ends = [e["data"] for e in world.log(CALL) if e["type"].split(".")[2] in {"call_ended", "call_refused"}]
    (end,) = ends
    assert end.get("outcome", end.get("reason")) in words
    assert world.telephony.rooms == {}
    assert world.shared.pacer.holding() == ()
    await world.close()


@pytest.mark.parametrize("order", ["stop first", "call first", "at once, stop first", "at once, call first"])
@pytest.mark.parametrize("stop", [cancel, suppress])
async def test_a_stop_and_its_call_may_meet_in_any_order(stop: Callable[[World], None], order: str) -> None:
    """Whoever comes first, and in one turn or in two: no room, no INVITE, one refusal."""
    world = World()
    await world.start(ANN)
    deeds: list[Callable[[], object]] = [lambda: stop(world), lambda: world.place(**LATER)]
    for deed in deeds if "stop first" in order else deeds[::-1]:
        deed()
        await world.clock.advance(0.0 if "at once" in order else 1.0)
    await world.clock.advance(6 * 3600)
    assert world.telephony.dispatches == []
    assert [name for name in world.told(CALL) if name in {"call_refused", "call_ended"}] == ["call_refused"]
    await world.close()


@pytest.mark.parametrize("after_s", [-0.02, -0.01, 0.0, 0.01, 0.02])
@pytest.mark.parametrize("told_late_s", [0.0, 0.3])
@pytest.mark.parametrize("stop", [cancel, suppress])
async def test_an_answer_and_a_stop_that_cross_end_in_a_hang_up(
    stop: Callable[[World], None], told_late_s: float, after_s: float
) -> None:
    """RFC 3261 §9.1: the 200 and the CANCEL may cross; whoever wins, the leg falls and the person is not rung again."""
    world = World()
    await world.start(ANN)
    world.agents.default = Script(speaks_for_s=60.0)
    world.telephony.script(ANN, Phone(rings_for_s=2.0))
    if told_late_s:
        world.telephony.fault("dial", Fault(kind="late", delay_s=told_late_s))
    world.place()
    await reached(world, Phase.RINGING)
    await world.clock.advance(2.0 + after_s)
    stop(world)
    await world.clock.advance(HANG_UP_MAX_S)
    assert world.telephony.live_legs == []
    await world.clock.advance(6 * 3600)
    assert len(world.telephony.invites) == 1
    assert [name for name in world.told(CALL) if name in {"call_refused", "call_ended"}] == ["call_ended"]
    expected = "cancelled" if stop is cancel else "suppressed"
    assert world.last(CALL, "call_ended")["outcome"] == expected
    await world.close()


@pytest.mark.parametrize("stop", [cancel, suppress])
@pytest.mark.parametrize("where", [name for name in PHASES if name not in {"requested", "waiting_for_a_slot"}])
async def test_a_stop_that_a_take_over_meets_is_a_stop(where: str, stop: Callable[[World], None]) -> None:
    """It was accepted while nobody owned the partition: the next owner reads it before anything is dialed."""
    world = await world_in(where)
    world.lose()
    stop(world)
    world.sight.control_s = 0.0
    await world.clock.advance(1.0)
    assert legs(world) == []
    await world.clock.advance(600 if where == "opening" else 6 * 3600)
    assert rung(world) == PHASES[where][1]
    assert len([name for name in world.told(CALL) if name in {"call_refused", "call_ended"}]) == 1
    # a room that a lost owner asked for may come after the fence: an agent waits in it in vain, nobody is rung
    assert world.telephony.rooms == {} or where == "opening"
    await world.close()


def test_the_table_names_every_phase() -> None:
    """A phase that is added needs its row here."""
    named = {name.partition("_for_")[0] for name in PHASES} - {"at_the_gate"}
    assert named == {phase.value for phase in Phase}


async def test_a_stop_amid_many_calls_of_one_person_ends_all_of_them() -> None:
    """A suppression speaks of the person: of twenty calls none is made, and the one that rings is hung up."""
    world = World(trunk=replace(CALLER, calls_per_s=20))
    await world.start(ANN)
    world.telephony.phone_default = Phone(rings_for_s=20.0)
    calls = [world.place(request=f"r-{n}") for n in range(20)]
    await world.until(lambda: len(world.telephony.live_legs) == 1)
    suppress(world)
    await world.clock.advance(HANG_UP_MAX_S)
    assert world.telephony.live_legs == []
    await world.clock.advance(3600)
    assert len(world.telephony.invites) == 1
    ends = [name for call in calls for name in world.told(call) if name in {"call_refused", "call_ended"}]
    assert sorted(ends) == ["call_ended"] + ["call_refused"] * 19
    await world.close()
