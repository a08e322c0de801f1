"""Where the rows of the SIP table end: the first and last status of each class, each phrase, and what lies outside."""

from __future__ import annotations

import pytest

from dialer.callee.sip import classify

BORDERS = [
    (399, "", "anything_else"),
    (400, "", "other_4xx"),
    (499, "", "other_4xx"),
    (500, "", "trunk_error"),
    (599, "", "trunk_error"),
    (601, "", "other_6xx"),
    (699, "", "other_6xx"),
    (700, "", "anything_else"),
    (499, "CPS limit exceeded", "other_4xx"),
    (500, "CPS limit exceeded", "trunk_overloaded"),
    (599, "Concurrent call limit exceeded", "trunk_overloaded"),
    (600, "CPS limit exceeded", "busy"),
    (401, "", "trunk_credentials"),
    (402, "", "trunk_credentials"),
    (407, "", "trunk_credentials"),
    (406, "", "other_4xx"),
    (603, "Blocked by analytics", "blocked_603_plus"),
    (603, "blocked", "blocked_603_plus"),
    (603, "Network Blocked", "blocked_603_plus"),
    (603, "Reason: 32203", "blocked_603_plus"),
    (602, "Blocked", "other_6xx"),
]
"""SIP status, phrase, row."""


@pytest.mark.parametrize(("sip", "phrase", "rule"), BORDERS)
def test_each_class_of_answers_ends_where_the_rfc_ends_it(sip: int, phrase: str, rule: str) -> None:
    """RFC 3261 §21: a status belongs to its hundred; a phrase counts in its own row only."""
    assert classify(sip, "", phrase).rule == rule


@pytest.mark.parametrize(
    ("code", "phrase", "rule"),
    [
        ("resource_exhausted", "CPS limit exceeded", "trunk_overloaded_text"),
        ("failed_precondition", "concurrent call limit exceeded", "trunk_overloaded_text"),
        ("unavailable", "CPS limit exceeded", "not_reached"),
        ("resource_exhausted", "", "anything_else"),
        ("permission_denied", "", "bad_credentials"),
        ("unauthenticated", "", "bad_credentials"),
        ("canceled", "context deadline exceeded", "ring_timeout"),
        ("not_sent", "key_gone", "not_reached"),
        ("unknown", "transaction failed to complete", "anything_else"),
        ("deadline_exceeded", "context deadline exceeded", "anything_else"),
        ("unknown", "update room failed: room join failed", "anything_else"),
    ],
)
def test_without_a_status_livekits_code_and_then_its_phrase_decide(code: str, phrase: str, rule: str) -> None:
    """Each code alone, and each phrase in its own row."""
    assert classify(None, code, phrase).rule == rule
    assert classify(486, code, phrase).rule == "busy"
