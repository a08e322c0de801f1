"""What a failed dial means: one table, a row and a source each.

Decided by SIP status first, then by LiveKit's code and phrase, never by a DisconnectReason (LiveKit maps 486 and 6xx
alike to USER_REJECTED). Sources: RFC 3261 §21; RFC 8197 (607), RFC 8688 (608), FCC 25-15 (603+);
reference/livekit.md 4.4; reference/field.md D4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from schemas.outcomes import Attribution as A
from schemas.outcomes import Outcome as O

RetryKey = Literal["", "busy", "no_answer", "trunk_failed"]


@dataclass(frozen=True, slots=True)
class SipRow:
    """One row: which answers it is for, what they mean, whether an INVITE had gone out, which retry delay applies."""

    rule: str
    statuses: frozenset[int] | None
    """None: no SIP status came."""
    codes: frozenset[str]
    """Empty: any."""
    phrases: tuple[str, ...]
    """Any of these in the phrase, lower case; empty: any phrase."""
    outcome: O
    attribution: A
    retry: RetryKey
    sent: bool
    source: str


def _row(
    rule: str,
    statuses: tuple[int, ...] | None,
    outcome: O,
    attribution: A,
    retry: RetryKey,
    source: str,
    *,
    codes: tuple[str, ...] = (),
    phrases: tuple[str, ...] = (),
    sent: bool = True,
) -> SipRow:
    numbers = None if statuses is None else frozenset(statuses)
    return SipRow(rule, numbers, frozenset(codes), phrases, outcome, attribution, retry, sent, source)


_OVERLOADED: Final = ("cps limit exceeded", "concurrent call limit exceeded")
SIP_TABLE: Final[tuple[SipRow, ...]] = (
    _row("blocked_603_plus", (603,), O.BLOCKED, A.CARRIER, "", "FCC 25-15, ATIS-1000099",
         phrases=("32203", "network blocked", "blocked")),
    _row("declined", (603,), O.DECLINED, A.CALLEE, "", "RFC 3261 21.6.2"),
    _row("unwanted", (607,), O.DECLINED, A.CALLEE, "", "RFC 8197: the callee says no"),
    _row("rejected_608", (608,), O.BLOCKED, A.CARRIER, "", "RFC 8688: an intermediary says no"),
    _row("busy", (486, 600), O.BUSY, A.CALLEE, "busy", "RFC 3261 21.4.24, 21.6.1"),
    _row("no_such_number", (404, 410, 484, 604), O.INVALID_NUMBER, A.CARRIER, "", "RFC 3261 21.4.5"),
    _row("no_answer", (408, 480), O.NO_ANSWER, A.CALLEE, "no_answer", "RFC 3261 21.4.9, 21.4.18"),
    _row("terminated", (487,), O.NO_ANSWER, A.US, "no_answer", "RFC 3261 21.4.25: our own CANCEL"),
    _row("merged_request", (482,), O.UNKNOWN, A.UNKNOWN, "", "RFC 3261 8.2.2.2: a possible duplicate"),
    _row("trunk_overloaded", tuple(range(500, 600)), O.TRUNK_FAILED, A.CARRIER, "trunk_failed",
         "Twilio CPS and concurrency limits", phrases=_OVERLOADED),
    _row("trunk_error", tuple(range(500, 600)), O.TRUNK_FAILED, A.CARRIER, "trunk_failed", "RFC 3261 21.5"),
    _row("trunk_credentials", (401, 402, 407), O.TRUNK_FAILED, A.US, "trunk_failed", "RFC 3261 21.4.2"),
    _row("trunk_forbidden", (403,), O.TRUNK_FAILED, A.CARRIER, "trunk_failed", "RFC 3261 21.4.4: trunk policy"),
    _row("no_common_media", (415, 488, 606), O.TRUNK_FAILED, A.US, "", "RFC 3261 21.4.26: our configuration"),
    _row("other_4xx", tuple(range(400, 500)), O.TRUNK_FAILED, A.CARRIER, "trunk_failed", "RFC 3261 21.4"),
    _row("other_6xx", tuple(range(600, 700)), O.DECLINED, A.CALLEE, "", "RFC 3261 21.6"),
    _row("no_final_response", None, O.UNKNOWN, A.CARRIER, "", "livekit/sip: Timer B or stalled after 1xx",
         codes=("canceled",), phrases=("failed to complete",)),
    _row("ring_timeout", None, O.NO_ANSWER, A.CALLEE, "no_answer", "livekit/sip: ring timeout, no SIP metadata",
         codes=("canceled",)),
    _row("ring_timeout_race", None, O.NO_ANSWER, A.CALLEE, "no_answer", "livekit/sip#857",
         codes=("failed_precondition",), phrases=("context deadline exceeded",)),
    _row("trunk_overloaded_text", None, O.TRUNK_FAILED, A.CARRIER, "trunk_failed", "livekit/sip: limit as text",
         codes=("failed_precondition", "resource_exhausted"), phrases=_OVERLOADED),
    _row("fault_after_invite", None, O.UNKNOWN, A.UNKNOWN, "", "livekit/sip errors.go afterInvite",
         codes=("failed_precondition",)),
    _row("trunk_unknown", None, O.TRUNK_FAILED, A.US, "trunk_failed", "not_found without SIP metadata",
         codes=("not_found",), sent=False),
    _row("not_reached", None, O.TRUNK_FAILED, A.US, "trunk_failed", "no livekit-sip, or refused before sending",
         codes=("unavailable", "not_sent"), sent=False),
    _row("room_not_joined", None, O.TRUNK_FAILED, A.US, "trunk_failed", "livekit/sip: it joins the room before the INVITE",
         codes=("internal",), phrases=("room join failed",), sent=False),
    _row("bad_address", None, O.TRUNK_FAILED, A.US, "", "livekit/sip: address or DNS, before the INVITE",
         codes=("invalid_argument",), sent=False),
    _row("bad_credentials", None, O.TRUNK_FAILED, A.US, "trunk_failed", "livekit/sip ErrAuthMaxRetry",
         codes=("unauthenticated", "permission_denied")),
    _row("anything_else", None, O.UNKNOWN, A.UNKNOWN, "", "an answer nobody has seen yet proves nothing"),
)  # fmt: skip


def classify(sip_status: int | None, code: str, phrase: str) -> SipRow:
    """Find the first row that fits; the last one fits everything."""
    text = phrase.lower()
    for row in SIP_TABLE:
        if row.statuses is None:
            if sip_status is not None:
                continue
        elif sip_status not in row.statuses:
            continue
        if row.codes and code not in row.codes:
            continue
        if row.phrases and not any(p in text for p in row.phrases):
            continue
        return row
    return SIP_TABLE[-1]
