"""The kill switch in a whole dialer on virtual time: who waits goes on waiting, who rings is hung up, and it is confirmed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from dialer.control_words import EVERYTHING, SEEN_PREFIX, Dialling, Seen, Words, encode_said
from dialer.kill_switch import AGAIN_AFTER_S, SENT_AFTER_S, KillSwitch
from dialer.pacer import Pacer
from dialer.requests import NotAccepted
from dialer.telephony import Trunk
from schemas.values import partition_of
from tests.doubles.agents import Script
from tests.doubles.memory_feed import campaign
from tests.doubles.telephony import Fault, Phone
from tests.doubles.world import ANN, BOB, CALLER, MEMORY, World, key_of

NAME = "dialer-a"


class Obedient:
    """A dialer on virtual time that obeys words said to it, as `dialer.app` composes it."""

    def __init__(self, trunk: Trunk = CALLER) -> None:
        self.world = World(trunk=trunk)
        self.words = Words()
        self.offset = 0
        self.away = 0
        self.sent: list[tuple[bytes, bytes | None]] = []
        world = self.world
        world.sight.stopped = self.words.stopped  # type: ignore[method-assign]
        world.shared.pacer = Pacer([trunk], 100, world.clock, world.shared.granted, is_held=self.words.stopped)
        self.switch = KillSwitch(NAME, self.words, self.owned, self.holding, self.send, MEMORY, world.clock)

    def owned(self) -> dict[int, Any]:
        return {p: owner.current for p, owner in self.world.owned.items() if owner.current is not None}

    def holding(self) -> tuple[str, ...]:
        return self.world.shared.pacer.holding()

    async def send(self, key: bytes, value: bytes | None) -> int:
        if self.away:
            self.away -= 1
            raise NotAccepted("away")
        self.sent.append((key, value))
        return self.take(key, value)

    def take(self, key: bytes, value: bytes | None) -> int:
        self.offset += 1
        self.words.take(key, value, self.offset)
        self.world.shared.pacer.tick(self.world.clock.monotonic())
        self.switch.changed()
        return self.offset

    def say(self, key: str, state: Dialling, *, hang_up: bool = False) -> int:
        return self.take(key.encode(), encode_said(state, "", hang_up=hang_up))

    @property
    def confirmed(self) -> Seen:
        return self.words.seen[NAME]


@pytest.fixture
async def dialer() -> AsyncIterator[Obedient]:
    dialer = Obedient()
    await dialer.world.start(ANN, BOB)
    dialer.world.clock.spawn(dialer.switch.run(), "kill-switch")
    await dialer.world.clock.settle()
    yield dialer
    await dialer.world.close()


async def test_a_stopped_campaign_opens_no_room_and_holds_up_no_other(dialer: Obedient) -> None:
    """Its calls keep their places; resumed, each is made once."""
    world = dialer.world
    world.shelf.campaigns["reminders"] = campaign(id="reminders")
    dialer.say("rx-refill", Dialling.STOPPED)
    held = world.place()
    other = world.place(BOB, campaign_id="reminders")
    await world.clock.advance(600)
    assert "attempt_opened" not in world.told(held)
    assert world.last(other, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.dispatches) == 1
    dialer.say("rx-refill", Dialling.RUNNING)
    await world.clock.advance(30)
    assert world.last(held, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.invites) == 2


@pytest.mark.parametrize("phase", ["attempt_opened", "room_created"])
async def test_a_call_with_a_room_gives_it_back_and_waits_without_one(dialer: Obedient, phase: str) -> None:
    """One dial is withdrawn at the gate; from then on no room is opened, however long it takes."""
    world = dialer.world
    call = world.place()
    await world.until_told(call, phase)
    dialer.say(EVERYTHING, Dialling.STOPPED)
    await world.clock.advance(3600)
    assert world.last(call, "dial_withdrawn")["reason"] == "stopped"
    assert len(world.telephony.dispatches) == 1
    assert world.telephony.rooms == {}
    assert world.telephony.invites == []
    assert not dialer.holding()
    dialer.say(EVERYTHING, Dialling.RUNNING)
    await world.clock.advance(30)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert len(world.telephony.invites) == 1


async def test_a_call_that_waits_for_its_turn_gives_its_room_back() -> None:
    """Turns are granted while dialling is stopped, so that nobody sits in a room with an agent for a day."""
    dialer = Obedient(replace(CALLER, calls_per_s=1))
    world = dialer.world
    await world.start(ANN, BOB)
    calls = [world.place(), world.place(BOB)]
    await world.until(lambda: all("agent_joined" in world.told(call) for call in calls))
    await world.until(lambda: len(world.telephony.invites) == 1)
    (waiting,) = (call for call in calls if "dial_started" not in world.told(call))
    dialer.say(EVERYTHING, Dialling.STOPPED)
    await world.clock.advance(600)
    assert world.last(waiting, "dial_withdrawn")["reason"] == "stopped"
    assert world.telephony.rooms == {}
    assert len(world.telephony.invites) == 1
    await world.close()


@pytest.mark.parametrize("moment", ["dial_started", "callee_ringing", "call_answered"])
async def test_a_stop_now_hangs_up_what_rings_or_talks(dialer: Obedient, moment: str) -> None:
    """Within a second; the call is cancelled, names the word as the cause, and is never made again."""
    world = dialer.world
    world.agents.default = Script(speaks_for_s=60.0)
    rings_for_s = {"dial_started": None, "callee_ringing": None, "call_answered": 0.5}[moment]
    world.telephony.script(ANN, Phone(rings_for_s=rings_for_s))
    call = world.place()
    await world.until_told(call, moment)
    await world.until(lambda: bool(world.telephony.live_legs))
    word = dialer.say(EVERYTHING, Dialling.STOPPED, hang_up=True)
    await world.clock.advance(0.05 if moment != "dial_started" else SENT_AFTER_S + 0.2)
    assert world.telephony.live_legs == []
    assert world.last(call, "call_cancelled") | {"remember_until": ""} == {
        "stop_id": f"control/{word}",
        "reason": "kill_switch",
        "remember_until": "",
    }
    dialer.say(EVERYTHING, Dialling.RUNNING)
    await world.clock.advance(3600)
    assert world.last(call, "call_ended")["outcome"] == "cancelled"
    assert len(world.telephony.invites) == 1


async def test_a_stop_without_now_lets_talks_go_on(dialer: Obedient) -> None:
    """Nobody is cut off who need not be."""
    world = dialer.world
    world.agents.default = Script(speaks_for_s=20.0)
    call = world.place()
    await world.until_told(call, "call_answered")
    dialer.say(EVERYTHING, Dialling.STOPPED)
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_a_dial_that_is_still_at_the_gate_waits_and_is_not_cancelled(dialer: Obedient) -> None:
    """It has rung nobody: it is withdrawn, and made after the resume."""
    world = dialer.world
    world.sight.control_s = 2.0
    call = world.place()
    await world.until_told(call, "dial_started")
    dialer.say(EVERYTHING, Dialling.STOPPED, hang_up=True)
    world.sight.control_s = 0.0
    await world.clock.advance(60)
    assert "call_cancelled" not in world.told(call)
    assert world.last(call, "dial_withdrawn")["reason"] == "stopped"
    dialer.say(EVERYTHING, Dialling.RUNNING)
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_a_stop_now_of_one_campaign_leaves_others_alone(dialer: Obedient) -> None:
    """Only what the word speaks of."""
    world = dialer.world
    world.agents.default = Script(speaks_for_s=20.0)
    call = world.place()
    await world.until_told(call, "call_answered")
    dialer.say("reminders", Dialling.STOPPED, hang_up=True)
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_a_call_that_was_taken_over_while_it_rings_is_hung_up_too(dialer: Obedient) -> None:
    """The word came while nobody owned the partition: the state says what is to be done, not the moment."""
    world = dialer.world
    world.telephony.script(ANN, Phone(rings_for_s=25.0))
    call = world.place()
    await world.until_told(call, "callee_ringing")
    world.lose()
    dialer.say(EVERYTHING, Dialling.STOPPED, hang_up=True)
    await world.clock.settle()
    await world.clock.advance(3)
    assert world.telephony.live_legs == []
    await world.clock.advance(120)
    assert world.last(call, "call_ended")["outcome"] == "cancelled"


async def test_a_process_confirms_each_word_once(dialer: Obedient) -> None:
    """A confirmation is no word: it is not confirmed in turn; written again where it got lost."""
    world = dialer.world
    before = len(dialer.sent)
    word = dialer.say("a", Dialling.STOPPED)
    await world.clock.advance(10)
    assert dialer.confirmed.applied == word
    assert len(dialer.sent) == before + 1
    dialer.away = 2
    word = dialer.say("a", Dialling.RUNNING)
    await world.clock.advance(3 * AGAIN_AFTER_S)
    assert dialer.confirmed.applied == word
    assert len(dialer.sent) == before + 2
    dialer.take(SEEN_PREFIX + NAME.encode(), None)
    await world.clock.advance(3)
    assert dialer.confirmed.applied == word, "who lives says so again"


async def test_a_partition_is_silent_only_once_its_phones_are_known_to_be(dialer: Obedient) -> None:
    """A room that LiveKit did not yet take down may ring on: it is not said to be silent."""
    world = dialer.world
    world.telephony.script(ANN, Phone(rings_for_s=None))
    call = world.place()
    await world.until_told(call, "callee_ringing")
    for _ in range(2):
        world.telephony.fault("delete_room", Fault(kind="fail"))
    word = dialer.say(EVERYTHING, Dialling.STOPPED, hang_up=True)
    await world.clock.advance(1.5)
    anns, bobs = (partition_of(key_of(number)) for number in (ANN, BOB))
    assert (dialer.confirmed.applied, dialer.confirmed.silent) == (word, (bobs,))
    assert len(world.telephony.live_legs) == 1
    await world.clock.advance(10)
    assert dialer.confirmed.silent == tuple(sorted({anns, bobs}))
    assert world.telephony.live_legs == []


async def test_a_partition_that_is_being_taken_over_is_not_said_to_be_silent(dialer: Obedient) -> None:
    """Nobody knows yet what rings there."""
    dialer.words.take(b"*", encode_said(Dialling.STOPPED, "", hang_up=True), 7)
    dialer.world.lose()
    await dialer.world.clock.settle()
    assert dialer.switch.hang_up() == (partition_of(key_of(BOB)),)


async def test_confirmations_of_processes_long_gone_are_removed() -> None:
    """A process that was killed cannot say so itself; the topic keeps no name for ever."""
    dialer = Obedient()
    dialer.take(SEEN_PREFIX + b"old", b'{"applied": 3, "silent": [], "at": "2026-11-20T15:00:00+00:00"}')
    dialer.take(SEEN_PREFIX + b"new", b'{"applied": 3, "silent": [], "at": "2026-11-22T14:59:00+00:00"}')
    dialer.world.clock.spawn(dialer.switch.run(), "kill-switch")
    await dialer.world.clock.advance(1)
    assert set(dialer.words.seen) == {"new", NAME}
    await dialer.switch.close()
    await dialer.world.clock.advance(1)
    assert set(dialer.words.seen) == {"new"}
    await dialer.world.close()
