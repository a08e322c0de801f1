"""What LiveKit's answers and failures mean, in the port's words: pure, one function a kind of answer.

A dial is `failed` only where LiveKit itself said so, in a Twirp JSON body, or where nothing was sent; everything else
is `unclear`, since a request that may have left may ring a phone. Which outcome a failure is, the core decides.
Source: reference/livekit.md 4.1, 4.4; Twirp specification v7, error codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from livekit.api import SipCallError
from livekit.api.twirp_client import ServerError
from livekit.protocol.models import ParticipantInfo

from dialer.telephony import DialAnswer, Leg
from schemas.values import scrub

NOT_SENT: Final = "not_sent"
"""No connection was made: nothing left this process."""
TIMEOUT: Final = "timeout"
TRANSPORT: Final = "transport"
"""The connection broke after the request may have left."""
MALFORMED: Final = "malformed_answer"
UNKNOWN: Final = "unknown"
"""An error that is no Twirp body: a proxy's page, or a refusal in another format."""
NOT_FOUND: Final = "not_found"

_TWIRP_CODES: Final = frozenset(
    {
        "canceled",
        "invalid_argument",
        "malformed",
        "deadline_exceeded",
        "not_found",
        "bad_route",
        "already_exists",
        "permission_denied",
        "unauthenticated",
        "resource_exhausted",
        "failed_precondition",
        "aborted",
        "out_of_range",
        "unimplemented",
        "internal",
        "unavailable",
        "dataloss",
    }
)
_SAYS_NOTHING: Final = frozenset({UNKNOWN, "deadline_exceeded"})
"""Codes that, without SIP metadata, leave open whether the phone rang (livekit-sip claimed the call, then died)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request without the answer it asked for: a Twirp code, or one of the codes above."""

    code: str
    http_status: int | None = None
    message: str = field(default="", repr=False)
    """LiveKit's own words, not scrubbed yet."""
    sip_status: int | None = None
    phrase: str = field(default="", repr=False)


def failure_of(error: ServerError) -> Failure:
    """Read an error of the SDK; a code that Twirp does not have counts as `unknown`."""
    code = error.code if isinstance(error.code, str) and error.code in _TWIRP_CODES else UNKNOWN
    message = error.message if isinstance(error.message, str) else ""
    if not isinstance(error.metadata, dict):
        return Failure(code=code, http_status=error.status, message=message)
    sip = SipCallError.from_server_error(error)
    return Failure(
        code=code,
        http_status=error.status,
        message=message,
        sip_status=sip.sip_status_code,
        phrase=str(sip.sip_status or ""),
    )


def dial_answer(failure: Failure) -> DialAnswer:
    """Say what a dial without an answer came to: `failed`, or `unclear` where nobody can tell whether it rang."""
    phrase = scrub(failure.phrase or failure.message)
    if failure.sip_status is not None:
        return DialAnswer(result="failed", sip_status=failure.sip_status, code=failure.code, phrase=phrase)
    if failure.code == NOT_SENT:
        return DialAnswer(result="failed", code=NOT_SENT)
    known = failure.code in _TWIRP_CODES and failure.code not in _SAYS_NOTHING
    return DialAnswer(result="failed" if known else "unclear", code=failure.code, phrase=phrase)


_KINDS: Final[dict[int, Literal["sip", "agent"]]] = {
    ParticipantInfo.Kind.SIP: "sip",
    ParticipantInfo.Kind.AGENT: "agent",
}


def kind_of(participant: ParticipantInfo) -> Literal["sip", "agent", "other"]:
    """Tell a callee's leg from an agent from anybody else."""
    return _KINDS.get(participant.kind, "other")


def leg_of(participant: ParticipantInfo) -> Leg:
    """Read one listed participant."""
    return Leg(
        identity=participant.identity,
        kind=kind_of(participant),
        call_status=participant.attributes.get("sip.callStatus", ""),
    )
