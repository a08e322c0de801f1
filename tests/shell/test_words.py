"""What a call says beyond its message: rendered with it, sealed apart, in the brief of every attempt, or refused."""

from __future__ import annotations

import os
from typing import Any

import orjson
import pytest

from dialer.callee.inputs import Prepared
from dialer.campaigns import define
from dialer.prepare import open_message, open_words, prepare
from runtime import metrics
from runtime.seal import SealBroken, aad, data_key
from schemas.conversation import Words
from schemas.events import CallPrepared
from schemas.outcomes import Refusal
from schemas.values import Sealed
from tests.doubles.memory_feed import campaign
from tests.doubles.world import ANN, World, key_of

KEY = data_key("1", b"a key of the tests, of 32 bytes.")
API = {"url": "http://127.0.0.1:8090/v1", "model": "scheduler"}
TALKS: dict[str, Any] = {
    "type": "two_way",
    "agent_api": API,
    "introduction": "{store}, about a prescription.",
    "answering_machine": {"policy": "leave_message", "message": "Hello {first_name}, please call {store} back."},
    "recording": "consent",
    "opt_out_key": "9",
    "transfer_to": {"desk": "tel:+12125550100"},
}
ANNS = {"first_name": "Ann", "store": "Main Street"}


def prepared(variables: dict[str, str] = ANNS, **over: Any) -> Prepared | Refusal:
    return prepare(define(campaign(**(TALKS | over))), variables, "US", KEY, key_of(ANN), os.urandom)


def test_words_are_rendered_and_sealed_apart_from_the_message() -> None:
    """Each opens in its own place, and in no other's."""
    found = prepared()
    assert isinstance(found, Prepared) and found.words is not None
    said = Words(
        voicemail="Hello Ann, please call Main Street back.", introduction="Main Street, about a prescription."
    )
    assert open_words(KEY, key_of(ANN), found.words) == said
    assert found.message_length == len(open_message(KEY, key_of(ANN), found.message) or "")
    with pytest.raises(SealBroken):
        open_message(KEY, key_of(ANN), found.words)
    with pytest.raises(SealBroken):
        open_words(KEY, "b" * 26, found.words)


def test_a_plain_call_has_no_words() -> None:
    """Most have none: nothing is sealed, nothing stands on the log."""
    plain = prepare(define(campaign()), ANNS, "US", KEY, key_of(ANN), os.urandom)
    assert isinstance(plain, Prepared) and plain.words is None and plain.rules.conversation is None
    assert open_words(KEY, key_of(ANN), None) == Words()
    assert open_words(None, key_of(ANN), None) == Words()


def test_words_whose_key_is_gone_are_a_value() -> None:
    """The callee was erased."""
    found = prepared()
    assert isinstance(found, Prepared)
    assert open_words(None, key_of(ANN), found.words) is None
    assert open_words(data_key("2", bytes(32)), key_of(ANN), found.words) is None


def test_words_of_a_later_version_open() -> None:
    """A word more is passed over."""
    place = aad(key_of(ANN), CallPrepared.TYPE, "words")
    later = KEY.seal(b'{"voicemail":"Hello","farewell":"Bye"}', place, os.urandom)
    assert open_words(KEY, key_of(ANN), later) == Words(voicemail="Hello")


@pytest.mark.parametrize(
    ("over", "variables", "refusal"),
    [
        ({"message": "Hello."}, {"store": "x"}, Refusal.MISSING_VARIABLE),
        ({"message": "Hello.", "answering_machine": {}}, {}, Refusal.MISSING_VARIABLE),
        ({"introduction": "{store}"}, ANNS | {"store": " "}, Refusal.MESSAGE_EMPTY),
        ({"introduction": "{store}{store}"}, ANNS | {"store": "x" * 101}, Refusal.MESSAGE_TOO_LONG),
        (
            {"answering_machine": {"policy": "leave_message", "message": "{a}{a}{a}x"}},
            ANNS | {"a": "x" * 200},
            Refusal.MESSAGE_TOO_LONG,
        ),
    ],
    ids=["of the voicemail", "of the introduction", "empty", "introduction too long", "voicemail too long"],
)
def test_what_cannot_be_said_whole_refuses_the_call(over: dict[str, Any], variables: Any, refusal: Refusal) -> None:
    """Before anybody is rung: a machine that gets half a message is worse than none."""
    assert prepared(variables, **over) is refusal


async def talking(**over: Any) -> World:
    world = World()
    world.shelf.campaigns["rx-refill"] = campaign(**(TALKS | over))
    await world.start(ANN)
    return world


async def test_the_brief_carries_the_conversation_and_the_words() -> None:
    """Of the first attempt and of the next; on the log they stand sealed, and what the campaign says in the rules."""
    world = await talking()
    call = world.place()
    await world.clock.advance(60)
    (request,) = world.telephony.dispatches
    brief = world.box.open(request.agent_metadata)
    assert brief.type == "two_way"
    assert brief.words == Words(
        voicemail="Hello Ann, please call Main Street back.", introduction="Main Street, about a prescription."
    )
    talk = brief.conversation
    assert (talk.machine, talk.recording, talk.opt_out_key) == ("leave_message", "consent", "9")
    assert talk.agent_api is not None and (talk.agent_api.url, talk.transfer_to["desk"]) == (
        API["url"],
        "tel:+12125550100",
    )
    told = world.last(call, "call_prepared")
    assert set(told["words"]) == {"key", "box"}
    assert told["rules"]["conversation"]["recording"] == "consent"
    assert b"Main Street" not in orjson.dumps(world.log())
    await world.close()


async def test_a_call_without_a_variable_of_its_voicemail_is_refused() -> None:
    """With the request, where the definition is at hand; with the look-up, where it is not."""
    world = await talking()
    at_once = world.place(variables={"store": "Main Street"})
    await world.clock.advance(5)
    assert world.last(at_once, "call_refused")["reason"] == "missing_variable"
    world.campaigns._current.clear()
    looked_up = world.place(request="r-2", variables={"store": "Main Street"})
    await world.clock.advance(5)
    assert world.last(looked_up, "call_refused")["reason"] == "missing_variable"
    assert world.telephony.dispatches == []
    await world.close()


async def test_words_that_do_not_open_open_no_room() -> None:
    """Alarmed, tried again as any opening is, and nobody is rung without the words that were promised."""
    world = await talking()
    call = world.place(not_before="2026-11-22T15:00:30Z")
    await world.clock.advance(5)
    callee = world.ownership().committed(key_of(ANN))
    assert callee is not None
    words = callee.calls[call].words
    assert isinstance(words, Sealed)
    object.__setattr__(words, "box", callee.calls[call].message.box)  # type: ignore[union-attr]
    before = metrics.ALARMS.labels("seal_broken")._value.get()
    await world.until_told(call, "room_failed")
    assert world.last(call, "room_failed")["code"] == "seal_broken"
    assert metrics.ALARMS.labels("seal_broken")._value.get() > before
    assert world.telephony.dispatches == []
    await world.close()
