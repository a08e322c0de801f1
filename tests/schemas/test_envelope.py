"""CloudEvents over Kafka: written in structured mode, read in both modes, leniently."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import Envelope, decode, encode, header, headers_of, sequence_text
from schemas.values import Invalid

DOCUMENT: dict[str, Any] = {"specversion": "1.0", "type": "t.v1", "source": "/s", "id": "1", "data": {"a": 1}}


def refusal(value: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()) -> tuple[str, str]:
    with pytest.raises(Invalid) as refused:
        decode(value, headers)
    return refused.value.field, refused.value.rule


def without(name: str) -> bytes:
    return orjson.dumps({k: x for k, x in DOCUMENT.items() if k != name})


def test_what_is_written_is_read_again() -> None:
    """Every attribute."""
    envelope = Envelope(
        type="t.v1",
        source="/s",
        id="1",
        data={"a": 1},
        time=datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC),
        subject="call",
        sequence=sequence_text(41),
        causationid="c",
        correlationid="call",
        traceparent="00-1-2-01",
    )
    assert decode(encode(envelope), headers_of(envelope)) == envelope
    assert header(headers_of(envelope), "ce_type") == b"t.v1"


def test_a_sequence_is_ordered_as_text_as_it_is_as_a_number() -> None:
    """Twelve digits."""
    assert [sequence_text(n) for n in (9, 10, 100)] == sorted(sequence_text(n) for n in (100, 10, 9))


@pytest.mark.parametrize("value", [b"", b"{", b"\xff\xfe", b"nul"])
def test_bytes_that_are_no_json_are_refused(value: bytes) -> None:
    """And a null value by its own word."""
    assert refusal(value) == ("value", "not_json")
    assert refusal(None) == ("value", "null")


@pytest.mark.parametrize("value", [b"null", b"5", b"[]", b'"x"', b"{}", b'{"to": "x"}'])
def test_json_that_is_no_cloudevent_is_refused(value: bytes) -> None:
    """Neither `specversion` inside nor `ce_` headers outside."""
    assert refusal(value) == ("envelope", "not_an_envelope")


@pytest.mark.parametrize("name", ["type", "source", "id", "data"])
def test_a_missing_attribute_is_named(name: str) -> None:
    """CloudEvents requires four, and we require data."""
    assert refusal(without(name)) == (name, "missing")


@pytest.mark.parametrize(
    ("more", "field", "rule"),
    [
        ({"specversion": "2.0"}, "specversion", "unknown_version"),
        ({"specversion": 1.0}, "specversion", "unknown_version"),
        ({"type": 5}, "type", "wrong_type"),
        ({"id": ""}, "id", "wrong_type"),
        ({"id": "x" * 257}, "id", "wrong_type"),
        ({"subject": 5}, "subject", "wrong_type"),
        ({"time": "yesterday"}, "time", "wrong_type"),
        ({"time": 1764000000}, "time", "wrong_type"),
        ({"time": "2026-11-22T15:04:05"}, "time", "no_time_zone"),
        ({"time": "0001-01-01T00:00:00+23:59"}, "time", "out_of_range"),
        ({"time": "9999-12-31T23:59:59-23:59"}, "time", "out_of_range"),
    ],
)
def test_an_attribute_of_the_wrong_type_is_named(more: dict[str, Any], field: str, rule: str) -> None:
    """Never its value."""
    assert refusal(orjson.dumps(DOCUMENT | more)) == (field, rule)


def test_an_attribute_nobody_knows_is_passed_over() -> None:
    """Commands are read leniently around their data."""
    assert decode(orjson.dumps(DOCUMENT | {"partitionkey": "x", "comexample": 5})).data == {"a": 1}


def test_binary_mode_is_read_too() -> None:
    """Attributes as headers, data as the value; the last of two equal headers counts."""
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_type", b"t.v0"),
        ("ce_type", b"t.v1"),
        ("ce_source", b"/s"),
        ("ce_id", b"1"),
        ("ce_time", b"2026-11-22T15:04:05Z"),
    )
    found = decode(b'{"a": 1}', headers)
    assert (found.type, found.data, found.time) == ("t.v1", {"a": 1}, datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC))
    assert refusal(b'{"a": 1}', headers[:1]) == ("envelope", "not_an_envelope")
    assert refusal(b'{"a": 1}', (headers[0], headers[3], headers[4])) == ("type", "missing")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_refused(value: bytes) -> None:
    """Total: no other exception comes out."""
    try:
        decode(value)
    except Invalid:
        return


@given(
    st.dictionaries(
        st.sampled_from(["specversion", "type", "source", "id", "data", "time", "subject", "sequence", "traceparent"]),
        st.one_of(
            st.none(),
            st.integers(-9, 2**40),
            st.just("1.0"),
            st.text(max_size=9),
            st.lists(st.integers(0, 9), max_size=2),
        ),
    )
)
def test_any_document_is_an_envelope_or_refused(document: dict[str, Any]) -> None:
    """The same for JSON that looks like one."""
    try:
        decode(orjson.dumps(document))
    except Invalid:
        return
