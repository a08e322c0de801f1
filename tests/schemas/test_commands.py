"""Commands are read strictly: whatever breaks a rule is refused by field and rule, never by value."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.codec import decode_command
from schemas.commands import COMMANDS, CancelCall, PlaceCall
from schemas.values import Invalid

PLACE = PlaceCall.TYPE
MINIMAL: dict[str, Any] = {"request_id": "refill-1", "campaign_id": "rx-refill", "to": "+12125550123"}


def refusal(data: Any, kind: str = PLACE) -> tuple[str, str]:
    with pytest.raises(Invalid) as refused:
        decode_command(kind, data)
    return refused.value.field, refused.value.rule


def test_three_fields_make_a_call() -> None:
    """All else has a default."""
    command = decode_command(PLACE, MINIMAL)
    assert isinstance(command, PlaceCall)
    assert (command.priority, command.variables, command.timezone, command.consent) == (5, {}, None, None)


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_a_missing_field_is_named(name: str) -> None:
    """`request_id`, `campaign_id` and `to` are required."""
    assert refusal({k: x for k, x in MINIMAL.items() if k != name}) == (name, "missing")


@pytest.mark.parametrize(
    ("more", "field", "rule"),
    [
        ({"not_aftr": "2026-11-22T23:00:00Z"}, "not_aftr", "unknown_field"),
        ({"to": 12125550123}, "to", "wrong_type"),
        ({"to": None}, "to", "wrong_type"),
        ({"to": ""}, "to", "string_too_short"),
        ({"to": "1" * 41}, "to", "string_too_long"),
        ({"request_id": "+12125550123"}, "request_id", "pattern"),
        ({"request_id": "12125550123"}, "request_id", "phone_number"),
        ({"request_id": "212-555-0123"}, "request_id", "phone_number"),
        ({"campaign_id": "2125550123"}, "campaign_id", "phone_number"),
        ({"request_id": "a b"}, "request_id", "pattern"),
        ({"request_id": "x" * 129}, "request_id", "pattern"),
        ({"campaign_id": "RX"}, "campaign_id", "pattern"),
        ({"priority": 10}, "priority", "less_than_equal"),
        ({"priority": -1}, "priority", "greater_than_equal"),
        ({"priority": "5"}, "priority", "wrong_type"),
        ({"timezone": "Mars/Olympus"}, "timezone", "unknown_time_zone"),
        ({"not_after": "tomorrow"}, "not_after", "wrong_type"),
        ({"not_after": "2026-11-22T23:00:00"}, "not_after", "timezone_aware"),
        ({"variables": {"a b": "c"}}, "variables.?.[key]", "pattern"),
        ({"variables": {"a": "c" * 201}}, "variables.a", "string_too_long"),
        ({"variables": {"a": 5}}, "variables.a", "wrong_type"),
        ({"variables": {f"n{i}": "x" for i in range(51)}}, "variables", "too_long"),
        ({"consent": {"id": "c-9", "kind": "prior"}}, "consent.obtained_at", "missing"),
        (
            {"consent": {"id": "12125550123", "kind": "x", "obtained_at": "2026-01-02T10:00:00Z"}},
            "consent.id",
            "phone_number",
        ),
    ],
)
def test_a_field_that_breaks_its_rule_is_refused_by_name(more: dict[str, Any], field: str, rule: str) -> None:
    """A misspelt `not_after` must not ring at night."""
    assert refusal(MINIMAL | more) == (field, rule)


@pytest.mark.parametrize("data", [None, [], "x", 5])
def test_data_that_is_no_object_is_refused(data: Any) -> None:
    """Of whatever type."""
    assert refusal(data) == ("data", "wrong_type")


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("dialer.command.place_call.v2", "unknown_version"),
        ("dialer.command.place_call", "unknown_type"),
        ("dialer.command.dance.v1", "unknown_type"),
        ("place_call", "unknown_type"),
    ],
)
def test_an_unknown_type_and_an_unknown_version_are_told_apart(kind: str, rule: str) -> None:
    """The second means: the producer is newer than we are."""
    assert refusal(MINIMAL, kind) == ("type", rule)


@pytest.mark.parametrize("reason", ["", "x" * 41, "Because he said so", "näh", "+12125550123"])
def test_the_reason_of_a_stop_is_a_closed_word(reason: str) -> None:
    """`[a-z_]{1,40}`: no free text gets onto the log in the clear."""
    assert refusal({"callee_key": "a" * 26, "reason": reason}, "dialer.command.suppress_callee.v1")[0] == "reason"


def test_a_cancel_takes_a_call_id_or_the_three_parts() -> None:
    """Which of them is checked where the number is known."""
    assert isinstance(decode_command(CancelCall.TYPE, {"call_id": "a" * 26 + "-" + "b" * 16}), CancelCall)
    assert isinstance(decode_command(CancelCall.TYPE, MINIMAL), CancelCall)


def test_only_what_can_be_kept_may_be_suppressed() -> None:
    """Scope `all` is built; a key is a key."""
    kind = "dialer.command.suppress_callee.v1"
    assert refusal({"callee_key": "a" * 26, "scope": "campaign"}, kind)[0] == "scope"
    assert refusal({"callee_key": "A" * 26}, kind) == ("callee_key", "pattern")
    assert len(COMMANDS) == 5
