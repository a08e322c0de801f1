"""Numbers, keys, ids and partitions: what the contract's values are made of."""

from __future__ import annotations

import re
import string

import phonenumbers
import pytest
from aiokafka.partitioner import murmur2 as kafkas_murmur2
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberType

from schemas import values as v

PEPPER = b"pepper of the tests"


@pytest.mark.parametrize(
    ("text", "e164", "region"),
    [
        ("+12125550123", "+12125550123", "US"),
        ("+1 (212) 555-0123", "+12125550123", "US"),
        ("+1.212.555.0123", "+12125550123", "US"),
        ("+442079460958", "+442079460958", "GB"),
        ("+390612345678", "+390612345678", "IT"),
    ],
)
def test_a_number_in_international_form_is_read_as_e164(text: str, e164: str, region: str) -> None:
    """Separators go; nothing else is guessed."""
    assert v.parse_number(text) == v.Number(e164, region)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("+1212555CALL", "letters"),
        ("2125550123", "not_international"),
        ("+1212555", "too_short"),
        ("+12", "too_short"),
        ("911", "emergency"),
        ("+911", "emergency"),
        ("112", "emergency"),
        ("411", "short_code"),
        ("72345", "short_code"),
        ("+19005550123", "premium"),
        ("+12125550123999", "too_long"),
        ("+1234567890123456", "too_long"),
        ("+10005550123", "impossible"),
        ("+99912345678", "impossible"),
        ("+1212555012#", "not_a_number"),
        ("++12125550123", "not_a_number"),
        ("١٢٣٤٥٦٧٨٩٠", "not_a_number"),
    ],
)
def test_a_number_that_must_never_be_rung_is_refused_by_its_rule(text: str, rule: str) -> None:
    """The refusal names field and rule, and not the number."""
    with pytest.raises(v.Invalid) as refused:
        v.parse_number(text)
    assert (refused.value.field, refused.value.rule) == ("to", rule)
    assert text not in str(refused.value)


@given(st.text(alphabet=string.digits + "+ ()-.#aé", max_size=24))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    """Total: no other exception comes out, and what comes out is E.164."""
    try:
        number = v.parse_number(text)
    except v.Invalid:
        return
    assert re.fullmatch(r"\+[1-9][0-9]{6,14}", number.e164)
    assert v.parse_number(number.e164) == number


@given(
    st.sampled_from(["1", "44", "49", "39", "7", "52", "61", "800", "590", "47"]),
    st.from_regex(r"[1-9][0-9]{5,10}", fullmatch=True),
)
def test_a_number_is_judged_as_libphonenumber_judges_it(code: str, national: str) -> None:
    """Ours is a shorter way to the same answer: region, and what kind of line it is."""
    text = f"+{code}{national}"
    theirs = phonenumbers.PhoneNumber(country_code=int(code), national_number=int(national))
    kind, region = phonenumbers.number_type(theirs), phonenumbers.region_code_for_number(theirs)
    refused = {
        PhoneNumberType.PREMIUM_RATE,
        PhoneNumberType.SHARED_COST,
        PhoneNumberType.PAGER,
        PhoneNumberType.UNKNOWN,
    }
    try:
        ours: str | None = v.parse_number(text).region
    except v.Invalid:
        ours = None
    assert ours == (None if region is None or kind in refused or len(text) > 16 else region)


@pytest.mark.parametrize("text", ["+12125550123", "12125550123", "212-555-0123", "2125550123", "212.555.0123", "+x"])
def test_an_id_that_gives_a_number_away_is_recognised(text: str) -> None:
    """Starts with a plus, or digits and marks that are a valid number in the US."""
    assert v.is_phone_number_like(text)


@pytest.mark.parametrize(
    "text", ["refill-2125550123", "a12125550123", "000123", "1", "2026-11-22", "0000000000", "..."]
)
def test_an_id_with_a_letter_or_no_valid_number_passes(text: str) -> None:
    """Pipelines prefix numeric ids."""
    assert not v.is_phone_number_like(text)


def test_a_callee_key_names_a_number_without_showing_it() -> None:
    """HMAC under the pepper: 26 characters, the same for the same number, another under another pepper."""
    key = v.callee_key("+12125550123", PEPPER)
    assert re.fullmatch(r"[a-z2-7]{26}", key)
    assert key == v.callee_key("+12125550123", PEPPER) != v.callee_key("+12125550124", PEPPER)
    assert key != v.callee_key("+12125550123", b"another pepper")


def test_names_that_never_may_change_have_not_changed() -> None:
    """Ownership, ids and suppressions hang on these: fixed for ever."""
    assert v.callee_key("+12125550123", PEPPER) == "onzjwb4o3wsar6zdm7cafyoq6t"
    assert v.request_hash("rx-refill", "refill-1") == "dtni4jjttwicyz37"
    assert v.partition_of("onzjwb4o3wsar6zdm7cafyoq6t") == kafkas_murmur2(b"onzjwb4o3wsar6zdm7cafyoq6t") % 2**31 % 24


def test_a_request_hash_keeps_its_two_parts_apart() -> None:
    """Length-prefixed: `a` + `bc` is not `ab` + `c`."""
    assert v.request_hash("a", "bc") != v.request_hash("ab", "c")


def test_a_call_id_routes_itself() -> None:
    """Key and partition are read off the id, the room and the identity."""
    key = v.callee_key("+12125550123", PEPPER)
    call = v.call_id(key, v.request_hash("rx-refill", "refill-1"))
    assert v.split_call_id(call)[0] == v.callee_of(call) == key
    assert v.attempt_of_room(v.room_name(call, 12)) == (call, 12)
    assert v.attempt_of_identity(v.callee_identity(call, 3)) == (call, 3)
    assert v.attempt_id(call, 3) == f"{call}-3"
    assert v.call_of_fact(f"{call}-3/AJ_abc/17") == call


@pytest.mark.parametrize("text", ["", "call-x-1", "call-" + "a" * 26 + "-" + "b" * 16 + "-0", "other-room", "callee-1"])
def test_a_room_or_identity_that_is_not_ours_is_nobodys(text: str) -> None:
    """Other rooms may stand on the same server."""
    assert v.attempt_of_room(text) is None
    assert v.attempt_of_identity(text) is None
    assert v.call_of_fact(text) is None


@pytest.mark.parametrize(
    "cause", ["stop-1", "{call}-3", "{call}-3/AJ", "{call}-3/AJ/x", "{call}/AJ/1", "x{call}-3/AJ/1"]
)
def test_a_cause_that_is_no_facts_id_names_no_call(cause: str) -> None:
    """A stop's id is whatever its sender chose."""
    assert v.call_of_fact(cause.replace("{call}", "a" * 26 + "-" + "b" * 16)) is None


@given(st.binary(max_size=64))
def test_our_murmur2_is_kafkas(key: bytes) -> None:
    """A pipeline with the default partitioner hits the canonical partition."""
    assert v.murmur2(key) & 0x7FFFFFFF == kafkas_murmur2(key) & 0x7FFFFFFF


def test_zones_of_a_split_area_code_are_all_named() -> None:
    """208 in Idaho lies in two."""
    zones = v.zones_of(v.parse_number("+12083685718"))
    assert len(zones) > 1


@pytest.mark.parametrize("text", ["+1 212 555 0123 is busy", "sip:+12125550123@x", "call (212) 555-0123 failed"])
def test_a_phrase_from_outside_loses_what_may_be_a_number(text: str) -> None:
    """SIP reason phrases pass a digit scrubber."""
    assert not re.search(r"\d{4}", v.scrub(text))


@given(st.text(max_size=300))
def test_a_scrubbed_phrase_is_bounded_and_holds_no_run_of_digits(text: str) -> None:
    """120 characters; no seven digits in a row."""
    phrase = v.scrub(text)
    assert len(phrase) <= 120
    assert not re.search(r"[0-9]{7}", phrase)
