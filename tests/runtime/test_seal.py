"""Sealing: a box opens for its key, at its place, and nowhere else; a key that is gone is a value."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.seal import BriefBox, MasterKey, SealBroken, aad, data_key, new_data_key, open_value
from schemas.brief import BRIEF_BYTES_MAX
from schemas.campaign import MESSAGE_LENGTH_MAX
from schemas.values import Sealed
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


def test_the_longest_message_fits_a_brief() -> None:
    """4,000 characters of four bytes each."""
    longest = replace(BRIEF, message="\U0001f600" * MESSAGE_LENGTH_MAX)
    box = BriefBox({"old": SECRET})
    metadata = box.seal(longest, os.urandom)
    assert len(metadata) <= BRIEF_BYTES_MAX
    assert box.open(metadata) == longest
