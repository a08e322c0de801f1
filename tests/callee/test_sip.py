"""The SIP table, row by row: what each answer of a carrier means, with the source it is taken from.

Sources: RFC 3261 §21, RFC 8197, RFC 8688; reference/livekit.md 4.4; reference/field.md D4.
"""

from __future__ import annotations

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from dialer.callee.sip import SIP_TABLE, classify
from schemas.outcomes import Attribution as A
from schemas.outcomes import Outcome as O

ANSWERS = [
    # sip, code, phrase, rule, outcome, whose, retry, sent
    (603, "permission_denied", "Network Blocked", "blocked_603_plus", O.BLOCKED, A.CARRIER, "", True),
    (603, "permission_denied", "X-Twilio-Error 32203", "blocked_603_plus", O.BLOCKED, A.CARRIER, "", True),
    (603, "permission_denied", "Decline", "declined", O.DECLINED, A.CALLEE, "", True),
    (607, "permission_denied", "Unwanted", "unwanted", O.DECLINED, A.CALLEE, "", True),
    (608, "permission_denied", "Rejected", "rejected_608", O.BLOCKED, A.CARRIER, "", True),
    (486, "resource_exhausted", "Busy Here", "busy", O.BUSY, A.CALLEE, "busy", True),
    (600, "resource_exhausted", "Busy Everywhere", "busy", O.BUSY, A.CALLEE, "busy", True),
    (404, "not_found", "Not Found", "no_such_number", O.INVALID_NUMBER, A.CARRIER, "", True),
    (410, "not_found", "Gone", "no_such_number", O.INVALID_NUMBER, A.CARRIER, "", True),
    (484, "invalid_argument", "Address Incomplete", "no_such_number", O.INVALID_NUMBER, A.CARRIER, "", True),
    (604, "not_found", "Does Not Exist Anywhere", "no_such_number", O.INVALID_NUMBER, A.CARRIER, "", True),
    (408, "deadline_exceeded", "Request Timeout", "no_answer", O.NO_ANSWER, A.CALLEE, "no_answer", True),
    (480, "resource_exhausted", "Temporarily Unavailable", "no_answer", O.NO_ANSWER, A.CALLEE, "no_answer", True),
    (487, "aborted", "Request Terminated", "terminated", O.NO_ANSWER, A.US, "no_answer", True),
    (482, "invalid_argument", "Loop Detected", "merged_request", O.UNKNOWN, A.UNKNOWN, "", True),
    (503, "failed_precondition", "CPS limit exceeded", "trunk_overloaded", O.TRUNK_FAILED, A.CARRIER, "trunk_failed", True),
    (503, "failed_precondition", "Service Unavailable", "trunk_error", O.TRUNK_FAILED, A.CARRIER, "trunk_failed", True),
    (500, "failed_precondition", "", "trunk_error", O.TRUNK_FAILED, A.CARRIER, "trunk_failed", True),
    (401, "permission_denied", "", "trunk_credentials", O.TRUNK_FAILED, A.US, "trunk_failed", True),
    (407, "unauthenticated", "", "trunk_credentials", O.TRUNK_FAILED, A.US, "trunk_failed", True),
    (403, "permission_denied", "Forbidden", "trunk_forbidden", O.TRUNK_FAILED, A.CARRIER, "trunk_failed", True),
    (488, "invalid_argument", "Not Acceptable Here", "no_common_media", O.TRUNK_FAILED, A.US, "", True),
    (415, "invalid_argument", "", "no_common_media", O.TRUNK_FAILED, A.US, "", True),
    (606, "permission_denied", "", "no_common_media", O.TRUNK_FAILED, A.US, "", True),
    (420, "invalid_argument", "Bad Extension", "other_4xx", O.TRUNK_FAILED, A.CARRIER, "trunk_failed", True),
    (699, "permission_denied", "", "other_6xx", O.DECLINED, A.CALLEE, "", True),
    (None, "canceled", "transaction failed to complete (0 intermediate responses)", "no_final_response",
     O.UNKNOWN, A.CARRIER, "", True),
    (None, "canceled", "sip request timed out", "ring_timeout", O.NO_ANSWER, A.CALLEE, "no_answer", True),
    (None, "failed_precondition", "context deadline exceeded", "ring_timeout_race", O.NO_ANSWER, A.CALLEE,
     "no_answer", True),
    (None, "failed_precondition", "Concurrent call limit exceeded", "trunk_overloaded_text", O.TRUNK_FAILED,
     A.CARRIER, "trunk_failed", True),
    (None, "failed_precondition", "media error", "fault_after_invite", O.UNKNOWN, A.UNKNOWN, "", True),
    (None, "not_found", "object cannot be found", "trunk_unknown", O.TRUNK_FAILED, A.US, "trunk_failed", False),
    (None, "unavailable", "no response from servers", "not_reached", O.TRUNK_FAILED, A.US, "trunk_failed", False),
    (None, "not_sent", "", "not_reached", O.TRUNK_FAILED, A.US, "trunk_failed", False),
    (None, "internal", "update room failed: room join failed", "room_not_joined", O.TRUNK_FAILED, A.US,
     "trunk_failed", False),
    (None, "internal", "", "anything_else", O.UNKNOWN, A.UNKNOWN, "", True),
    (None, "invalid_argument", "lookup: no such host", "bad_address", O.TRUNK_FAILED, A.US, "", False),
    (None, "unauthenticated", "max auth retry", "bad_credentials", O.TRUNK_FAILED, A.US, "trunk_failed", True),
    (None, "deadline_exceeded", "request timed out", "anything_else", O.UNKNOWN, A.UNKNOWN, "", True),
    (None, "", "", "anything_else", O.UNKNOWN, A.UNKNOWN, "", True),
    (302, "unknown", "Moved Temporarily", "anything_else", O.UNKNOWN, A.UNKNOWN, "", True),
]  # fmt: skip


@pytest.mark.parametrize(("sip", "code", "phrase", "rule", "outcome", "by", "retry", "sent"), ANSWERS)
def test_an_answer_means_what_its_row_says(
    sip: int | None, code: str, phrase: str, rule: str, outcome: O, by: A, retry: str, sent: bool
) -> None:
    """Outcome, whose doing, which delay, and whether an INVITE had gone out."""
    row = classify(sip, code, phrase)
    assert (row.rule, row.outcome, row.attribution, row.retry, row.sent) == (rule, outcome, by, retry, sent)


def test_every_row_of_the_table_is_tried_above_and_names_its_source() -> None:
    """A row without a test, or without a source, is a wish."""
    assert {row.rule for row in SIP_TABLE} == {rule for _, _, _, rule, *_ in ANSWERS}
    assert all(row.source for row in SIP_TABLE)
    assert len({row.rule for row in SIP_TABLE}) == len(SIP_TABLE)


def test_a_status_decides_before_a_code_does() -> None:
    """LiveKit's `not_found` with SIP metadata is the callee's number; without, it is our trunk."""
    assert classify(404, "not_found", "").sent
    assert not classify(None, "not_found", "").sent


@drawn(
    st.one_of(st.none(), st.integers(100, 999)),
    st.sampled_from(sorted({c for row in SIP_TABLE for c in row.codes} | {"", "internal"})),
    st.text(max_size=40),
)
def test_any_answer_has_a_meaning_and_only_a_known_one_is_retried(sip: int | None, code: str, phrase: str) -> None:
    """Total; and an unknown outcome has no delay of its own: only the campaign's rule for unknowns applies."""
    row = classify(sip, code, phrase)
    assert not (row.outcome is O.UNKNOWN and row.retry)
    assert row.sent or sip is None, "what a SIP element answered was sent"
