"""One suite for every adapter of `dialer.telephony.Telephony`: the double, and LiveKit behind the rehearsal's carrier.

Numbers end as the carrier's personas have it: 00-09 answer, 20-29 busy, 30-39 decline, 40-49 never answer, 50-59 do not
exist. The double is scripted to the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dialer.livekit import LiveKitTelephony
from dialer.telephony import DialAnswer, DialRequest, RoomRequest, Telephony, Trunk
from rehearsal import faults, serving
from rehearsal.carrier import Carrier
from rehearsal.phone import Exchange
from rehearsal.witness import Witness, dials_of
from runtime.clock import SystemClock
from schemas.values import attempt_id, callee_identity, room_name
from tests.doubles.telephony import BUSY, DECLINED, NOT_FOUND, Phone, TelephonyDouble
from tests.platform_fixtures import livekit, provisions  # noqa: F401 (fixtures)

FACT_S = 15.0
# A phone that answers may take a while to on a loaded machine; one that never does is not waited for that long.
RING_TIMEOUT_S, SHORT_RING_TIMEOUT_S = 20, 3
ANSWERS, BUSY_NUMBER, DECLINES = "+12125550101", "+12125550120", "+12125550130"
NEVER_ANSWERS, UNKNOWN_NUMBER = "+12125550140", "+12125550150"
TRUNK = Trunk(
    name="contract", address="127.0.0.1:5061", numbers=("+12125550100",), auth_username="u", auth_password="p"
)
PHONES = {
    ANSWERS: Phone(rings_for_s=0.2),
    BUSY_NUMBER: Phone(answer=BUSY),
    DECLINES: Phone(answer=DECLINED, rings_for_s=0.2),
    NEVER_ANSWERS: Phone(rings_for_s=None),
    UNKNOWN_NUMBER: Phone(answer=NOT_FOUND),
}


@dataclass
class World:
    """An adapter under test, the id of its trunk, and the INVITEs that a witness outside saw: (attempt id, number)."""

    telephony: Telephony
    trunk_id: str
    invites: Callable[[], list[tuple[str, str]]]


@pytest.fixture(params=["double", pytest.param("livekit", marks=pytest.mark.livekit)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Both adapters."""
    clock = SystemClock()
    if request.param == "double":
        double = TelephonyDouble(clock)
        double.phones.update({number: deque([phone] * 9) for number, phone in PHONES.items()})
        trunk_id = await double.ensure_trunk(TRUNK)
        yield World(double, trunk_id, lambda: [(i.attempt_id, i.to) for i in double.invites])
        return
    server = request.getfixturevalue("livekit")
    with Witness(tmp_path / "witness.jsonl") as witness:
        exchange = Exchange(
            livekit_url=server.url,
            api_key=server.key,
            api_secret=server.secret,
            witness=witness,
            directory=tmp_path,
        )
        runner, port = await serving.start(Carrier(exchange, faults.Script()).app(), 0)
        real = LiveKitTelephony(f"http://127.0.0.1:{port}", server.key, server.secret, clock)
        try:
            trunk_id = await real.ensure_trunk(TRUNK)
            seen = tmp_path / "witness.jsonl"
            yield World(real, trunk_id, lambda: [(d.attempt_id, d.number) for d in dials_of(seen)])
        finally:
            await real.close()
            await runner.cleanup()


CALL = f"{'a' * 26}-{'b' * 16}"
_attempts = iter(range(1, 100_000))


@dataclass
class Attempt:
    """One attempt: its names and its requests."""

    number: int
    world: World

    @property
    def room(self) -> str:
        return room_name(CALL, self.number)

    @property
    def opening(self) -> RoomRequest:
        return RoomRequest(
            name=self.room,
            agent_name="nobody",
            agent_metadata="sealed",
            room_metadata="{}",
            empty_timeout_s=60,
            departure_timeout_s=20,
        )

    def dialing(self, to: str, ring_timeout_s: int = RING_TIMEOUT_S) -> DialRequest:
        return DialRequest(
            room=self.room,
            identity=callee_identity(CALL, self.number),
            attempt_id=attempt_id(CALL, self.number),
            to=to,
            trunk_id=self.world.trunk_id,
            caller_id=TRUNK.numbers[0],
            ring_timeout_s=ring_timeout_s,
            max_call_duration_s=60,
        )

    async def status(self) -> str | None:
        """`sip.callStatus` of the callee's leg; None while there is none."""
        legs = await self.world.telephony.legs(self.room)
        assert legs is not None
        return next((leg.call_status for leg in legs if leg.kind == "sip"), None)

    async def until(self, status: str | None) -> None:
        """Wait until the callee's leg stands so."""
        async with asyncio.timeout(FACT_S):
            while await self.status() != status:
                await asyncio.sleep(0.02)


@pytest.fixture
def attempt(world: World) -> Attempt:
    """An attempt nobody used before."""
    return Attempt(next(_attempts), world)


async def test_a_room_is_made_once_however_often_it_is_asked_for(world: World, attempt: Attempt) -> None:
    """The same name answers the same room."""
    first = await world.telephony.create_room(attempt.opening)
    again = await world.telephony.create_room(attempt.opening)
    assert first.ok and first.sid
    assert again == first


async def test_a_room_is_deleted_once_and_then_not_found(world: World, attempt: Attempt) -> None:
    """The fence can be told from a room that was gone already."""
    await world.telephony.create_room(attempt.opening)
    assert await world.telephony.delete_room(attempt.room) == "deleted"
    assert await world.telephony.delete_room(attempt.room) == "not_found"


async def test_a_room_that_is_not_there_has_no_legs(world: World, attempt: Attempt) -> None:
    """An empty list, not an error."""
    assert await world.telephony.legs(attempt.room) == ()


async def test_an_answered_dial_leaves_a_live_leg_until_the_room_goes(world: World, attempt: Attempt) -> None:
    """Answered; the leg is a SIP participant of our identity, active; deleting the room hangs up."""
    await world.telephony.create_room(attempt.opening)
    answer = await world.telephony.dial(attempt.dialing(ANSWERS))
    assert answer == DialAnswer(result="answered")
    await attempt.until("active")
    (leg,) = await world.telephony.legs(attempt.room) or ()
    assert (leg.identity, leg.kind) == (callee_identity(CALL, attempt.number), "sip")
    assert await world.telephony.delete_room(attempt.room) == "deleted"
    await attempt.until(None)
    assert world.invites() == [(attempt_id(CALL, attempt.number), ANSWERS)]


@pytest.mark.parametrize(
    ("number", "answer"), [(BUSY_NUMBER, BUSY), (DECLINES, DECLINED), (UNKNOWN_NUMBER, NOT_FOUND)], ids=str
)
async def test_a_refused_dial_says_the_sip_status(
    world: World, attempt: Attempt, number: str, answer: DialAnswer
) -> None:
    """SIP status, LiveKit's code and the phrase come through; the leg is gone; one INVITE."""
    await world.telephony.create_room(attempt.opening)
    assert await world.telephony.dial(attempt.dialing(number)) == answer
    await attempt.until(None)
    assert world.invites() == [(attempt_id(CALL, attempt.number), number)]


async def test_a_dial_nobody_answers_fails_without_a_sip_status(world: World, attempt: Attempt) -> None:
    """`canceled`, after the ring timeout."""
    await world.telephony.create_room(attempt.opening)
    answer = await world.telephony.dial(attempt.dialing(NEVER_ANSWERS, SHORT_RING_TIMEOUT_S))
    assert (answer.result, answer.sip_status, answer.code) == ("failed", None, "canceled")
    assert "timed out" in answer.phrase


async def test_a_deleted_room_is_a_fence_no_dial_passes(world: World, attempt: Attempt) -> None:
    """No INVITE leaves for a room that is gone."""
    await world.telephony.create_room(attempt.opening)
    await world.telephony.delete_room(attempt.room)
    answer = await world.telephony.dial(attempt.dialing(ANSWERS))
    assert (answer.result, answer.sip_status, answer.code) == ("failed", None, "internal")
    assert world.invites() == []
    assert await world.telephony.legs(attempt.room) == ()


async def test_deleting_the_room_stops_the_ringing(world: World, attempt: Attempt) -> None:
    """A dial in flight ends at once, as failed, and its leg is gone."""
    await world.telephony.create_room(attempt.opening)
    dial = asyncio.create_task(world.telephony.dial(attempt.dialing(NEVER_ANSWERS, 30)))
    await attempt.until("ringing")
    assert await world.telephony.delete_room(attempt.room) == "deleted"
    async with asyncio.timeout(FACT_S):
        answer = await dial
    assert (answer.result, answer.code) == ("failed", "canceled")
    await attempt.until(None)


async def test_a_caller_that_goes_away_does_not_stop_the_ringing(world: World, attempt: Attempt) -> None:
    """A cancelled dial goes on at the carrier: only the fence ends it."""
    await world.telephony.create_room(attempt.opening)
    dial = asyncio.create_task(world.telephony.dial(attempt.dialing(ANSWERS)))
    await attempt.until("ringing")
    dial.cancel()
    await attempt.until("active")
    assert len(world.invites()) == 1


async def test_an_unknown_trunk_fails_before_any_invite(world: World, attempt: Attempt) -> None:
    """`not_found` without a SIP status: our configuration, not the callee's number."""
    await world.telephony.create_room(attempt.opening)
    answer = await world.telephony.dial(replace(attempt.dialing(ANSWERS), trunk_id="ST_none"))
    assert (answer.result, answer.sip_status, answer.code) == ("failed", None, "not_found")
    assert world.invites() == []


async def test_a_trunk_is_made_once_and_then_updated(world: World) -> None:
    """The name is what it is known by."""
    assert await world.telephony.ensure_trunk(TRUNK) == world.trunk_id
    changed = replace(TRUNK, address="127.0.0.1:5062", numbers=("+12125550199",))
    assert await world.telephony.ensure_trunk(changed) == world.trunk_id
    assert await world.telephony.ensure_trunk(replace(TRUNK, name="contract-2")) != world.trunk_id


async def test_the_probe_finds_that_rooms_are_not_made_by_joining(world: World) -> None:
    """`room.auto_create: false`, and the probe leaves nothing behind."""
    assert await world.telephony.auto_create_is_off()
