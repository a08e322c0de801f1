"""The number dialed chooses who picks up; the outcome table says what the caller is told."""

from __future__ import annotations

import pytest

from rehearsal.personas import PERSONAS, masked, persona_of, refusal_of
from rehearsal.sip_outcomes import OUTCOMES, TWIRP_HTTP_STATUS

# reference/livekit.md 4.4: SIP status -> Twirp code
REFERENCE = {
    404: "not_found", 410: "not_found", 604: "not_found", 408: "deadline_exceeded", 504: "deadline_exceeded",
    480: "resource_exhausted", 486: "resource_exhausted", 600: "resource_exhausted", 401: "permission_denied",
    402: "permission_denied", 403: "permission_denied", 603: "permission_denied", 607: "permission_denied",
    608: "permission_denied", 407: "unauthenticated", 488: "invalid_argument", 415: "invalid_argument",
    484: "invalid_argument", 487: "aborted", 500: "failed_precondition", 502: "failed_precondition",
    503: "failed_precondition",
}  # fmt: skip


def test_every_ending_has_exactly_one_persona() -> None:
    """00 to 99, no gap, no overlap."""
    assert sorted(ending for persona in PERSONAS for ending in persona.endings) == list(range(100))


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("+12125550100", "answers"), ("+12125550119", "answers_late"), ("+12125550120", "busy"),
        ("+12125550139", "declines"), ("+12125550140", "no_answer"), ("+12125550150", "number_not_found"),
        ("+12125550160", "carrier_blocks"), ("+12125550165", "carrier_rejects"), ("+12125550170", "trunk_overloaded"),
        ("+12125550180", "hangs_up_early"), ("+12125550199", "never_sends_audio"), ("(212) 555-0105", "answers"),
    ],
)  # fmt: skip
def test_the_last_two_digits_choose_the_persona(number: str, name: str) -> None:
    """And nothing else does."""
    assert persona_of(number).name == name


def test_a_number_without_two_digits_is_refused() -> None:
    """There is nobody behind it."""
    with pytest.raises(ValueError, match="two digits"):
        persona_of("+1")


def test_only_the_first_dial_meets_an_overloaded_trunk() -> None:
    """Its second dial is answered; a busy line stays busy."""
    overloaded, busy = persona_of("+12125550170"), persona_of("+12125550120")
    assert refusal_of(overloaded, 0) is OUTCOMES["cps_limit_exceeded"] and refusal_of(overloaded, 1) is None
    assert all(refusal_of(busy, dials) is OUTCOMES["busy_here"] for dials in range(5))


def test_a_masked_number_shows_its_last_two_digits_only() -> None:
    """They name the persona; the rest is the callee's."""
    assert masked("+12125550123") == "**********23"


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=lambda outcome: outcome.name)
def test_each_outcome_is_worded_as_livekit_does(outcome) -> None:
    """Code by SIP status, metadata only with a SIP status, a known HTTP status."""
    assert outcome.http_status == TWIRP_HTTP_STATUS[outcome.code]
    if outcome.sip_status is None:
        assert set(outcome.body) == {"code", "msg"}
        return
    assert outcome.code == REFERENCE[outcome.sip_status]
    assert outcome.body["meta"] == {"sip_status_code": str(outcome.sip_status), "sip_status": outcome.phrase}
    assert outcome.sent


def test_the_table_covers_the_reference() -> None:
    """Every SIP status that the reference names has its row."""
    assert {row.sip_status for row in OUTCOMES.values() if row.sip_status is not None} == set(REFERENCE)
