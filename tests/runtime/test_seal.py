"""Sealing: a box opens for its key, at its place, and nowhere else; a key that is gone is a value."""

from __future__ import annotations

import os
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.campaigns import define
from dialer.rendering import parse_template, render
from runtime.seal import BriefBox, MasterKey, SealBroken, aad, data_key, new_data_key, open_value
from schemas.brief import BRIEF_BYTES_MAX, BRIEF_FRAME_BYTES_MAX, BRIEF_PLAIN_BYTES_MAX
from schemas.campaign import MESSAGE_LENGTH_MAX, Campaign, load_campaign
from schemas.conversation import PLAIN, Conversation, Silence, Words
from schemas.outcomes import Refusal
from schemas.values import Invalid, Sealed
from tests.contracts.golden_payloads import BRIEF, CALLEE, SECRET

PLACE = aad(CALLEE, "dialer.event.call_requested.v1", "to")
KEY = data_key("1", SECRET)


@given(st.binary(max_size=500))
def test_what_is_sealed_opens_at_its_place(plain: bytes) -> None:
    """Any bytes."""
    assert open_value(KEY, KEY.seal(plain, PLACE, os.urandom), PLACE) == plain


def test_the_same_words_are_never_the_same_box() -> None:
    """Twelve random bytes of nonce."""
    assert KEY.seal(b"x", PLACE, os.urandom) != KEY.seal(b"x", PLACE, os.urandom)


@pytest.mark.parametrize(
    "place",
    [
        aad("b" * 26, "dialer.event.call_requested.v1", "to"),
        aad(CALLEE, "dialer.event.call_prepared.v1", "to"),
        aad(CALLEE, "dialer.event.call_requested.v1", "variables"),
    ],
)
def test_a_box_that_was_moved_does_not_open(place: bytes) -> None:
    """To another callee, type or field."""
    with pytest.raises(SealBroken):
        open_value(KEY, KEY.seal(b"x", PLACE, os.urandom), place)


@pytest.mark.parametrize("box", ["", "AAAA", "!!!!", "AAECAwQFBgcICQoLAAAAAAAAAAAAAAAAAAAAAAAA"])
def test_a_box_that_was_altered_does_not_open(box: str) -> None:
    """Nor one that never was one."""
    with pytest.raises(SealBroken):
        open_value(KEY, Sealed(key="1", box=box), PLACE)


def test_a_key_that_is_gone_is_a_value_and_no_error() -> None:
    """Erased, or replaced by one of another name."""
    sealed = KEY.seal(b"x", PLACE, os.urandom)
    assert open_value(None, sealed, PLACE) is None
    assert open_value(data_key("2", SECRET), sealed, PLACE) is None


def test_a_data_key_unwraps_for_its_callee_only() -> None:
    """Under the right master key, as what it was named."""
    master = MasterKey(SECRET)
    made = new_data_key("1", os.urandom)
    record = master.wrap(CALLEE, made, os.urandom)
    assert master.unwrap(CALLEE, record).secret == made.secret
    for broken in (record.replace(b'"key":"1"', b'"key":"2"'), b"{}", b"", b"[]", record[:-9]):
        with pytest.raises(SealBroken):
            master.unwrap(CALLEE, broken)
    with pytest.raises(SealBroken):
        master.unwrap("b" * 26, record)
    with pytest.raises(SealBroken):
        MasterKey(bytes(32)).unwrap(CALLEE, record)


def test_a_key_never_prints() -> None:
    """Neither its bytes nor its cipher."""
    assert repr(KEY) == "DataKey(1)"


def test_a_master_key_is_32_bytes() -> None:
    """Said at the start."""
    with pytest.raises(ValueError, match="32 bytes"):
        MasterKey(b"short")


def test_two_brief_keys_are_accepted_while_one_is_rotated() -> None:
    """Sealed under the first, opened under any that is held."""
    old, new = BriefBox({"old": SECRET}), BriefBox({"new": bytes(32), "old": SECRET})
    assert new.open(old.seal(BRIEF, os.urandom)) == BRIEF
    assert new.seal(BRIEF, os.urandom).startswith("new.")
    with pytest.raises(SealBroken):
        old.open(new.seal(BRIEF, os.urandom))


@pytest.mark.parametrize("metadata", ["", "old", "old.", "old.AAAA", "other.AAAA", "old.!!", "{}"])
def test_metadata_that_is_no_brief_does_not_open(metadata: str) -> None:
    """Any job may be dispatched by anybody with LiveKit's key."""
    with pytest.raises(SealBroken):
        BriefBox({"old": SECRET}).open(metadata)


def test_the_frame_of_a_brief_is_as_long_as_it_is_said_to_be() -> None:
    """Ids and numbers at their longest; nothing said, nothing of the campaign's own."""
    frame = replace(
        BRIEF,
        attempt=999,
        campaign_id="x" * 63,
        message="",
        ring_timeout_s=60,
        max_call_duration_s=86_400,
        conversation=Conversation(
            machine="leave_message",
            recording="best_effort",
            silence=Silence(prompt_after_s=59.123456789012345, prompts_max=5),
            opt_out_key="9",
        ),
        words=Words(voicemail="", introduction=""),
    )
    assert len(orjson.dumps(frame)) <= BRIEF_FRAME_BYTES_MAX


WIDE = "\U0001f600"
"""Four bytes in UTF-8."""
FULLEST = {
    "id": "x" * 63,
    "type": "two_way",
    "message": "{text}",
    "introduction": "{text}",
    "answering_machine": {"policy": "leave_message", "message": "{text}"},
    "agent_api": {"url": "http://" + "x" * 300, "model": "m" * 100},
    "phrases": dict.fromkeys(("silence", "goodbye", "fallback", "opt_out", "recording"), WIDE * 120),
    "trunk": "t",
}


def fullest(destinations: int, length: int) -> Campaign:
    """Return a campaign with everything in it, and so many destinations whose host has so many characters."""
    to = {f"a{n}" + "x" * 38: "sips:" + "u" * 64 + "@" + "h" * length for n in range(destinations)}
    return load_campaign(FULLEST | {"transfer_to": to})


def test_the_fullest_campaign_that_loads_fits_a_brief_whatever_is_rendered() -> None:
    """Four bytes a character wherever a text is rendered; one destination more is refused by the key's name."""
    with pytest.raises(Invalid) as refused:
        fullest(10, 128)
    assert (refused.value.field, refused.value.rule) == ("phrases", "brief_too_long")
    fitting = [campaign for n in range(11) for length in (1, 64, 128) if (campaign := _loaded(n, length)) is not None]
    assert len(fitting) > 3
    box = BriefBox({"k" * 64: SECRET})
    for campaign in fitting:
        made = define(campaign)
        prepared = {
            name: render(template, {"text": WIDE * most}, most) for name, (template, most) in made.words.items()
        }
        longest = replace(
            BRIEF,
            attempt=999,
            campaign_id=campaign.id,
            type="two_way",
            message=WIDE * MESSAGE_LENGTH_MAX,
            conversation=made.rules.conversation or PLAIN,
            words=Words(**prepared),  # type: ignore[arg-type]
        )
        assert len(orjson.dumps(longest)) <= BRIEF_PLAIN_BYTES_MAX
        metadata = box.seal(longest, os.urandom)
        assert len(metadata) <= BRIEF_BYTES_MAX
        assert box.open(metadata) == longest


def _loaded(destinations: int, length: int) -> Campaign | None:
    try:
        return fullest(destinations, length)
    except Invalid:
        return None


def test_what_takes_more_than_four_bytes_a_character_is_too_long_to_be_said() -> None:
    """A control character is six bytes of JSON."""
    template = parse_template("{text}")
    assert render(template, {"text": "\x01" * 2666 + WIDE}) == "\x01" * 2666 + WIDE
    assert render(template, {"text": "\x01" * 2667}) is Refusal.MESSAGE_TOO_LONG
    assert render(template, {"text": WIDE * 4000}) == WIDE * 4000
    assert render(template, {"text": WIDE * 4001}) is Refusal.MESSAGE_TOO_LONG
