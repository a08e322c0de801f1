"""What livekit-server answers to `CreateSIPParticipant(wait_until_answered)` for each way a dial can fail.

One table, one row a way; `reference/livekit.md` 4.4. Sources: livekit/protocol livekit/sip.go (`sipCodeToGRPCCode`,
`TwirpErrorMeta`), livekit/sip pkg/sip/{outbound,errors}.go, Twirp specification v7 (error codes and HTTP statuses).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

TWIRP_HTTP_STATUS: Final = MappingProxyType(
    {
        "canceled": 408,
        "unknown": 500,
        "invalid_argument": 400,
        "malformed": 400,
        "deadline_exceeded": 408,
        "not_found": 404,
        "bad_route": 404,
        "already_exists": 409,
        "permission_denied": 403,
        "unauthenticated": 401,
        "resource_exhausted": 429,
        "failed_precondition": 412,
        "aborted": 409,
        "out_of_range": 400,
        "unimplemented": 501,
        "internal": 500,
        "unavailable": 503,
        "dataloss": 500,
    }
)
"""HTTP status of each Twirp error code."""

_WITH_BODY = frozenset({400, 404, 480, 486, 488})  # livekit-sip words these "INVITE failed", all others "unexpected …"


@dataclass(frozen=True, slots=True, kw_only=True)
class SipOutcome:
    """One way a dial ends without an answer.

    `sip_status` None: the error carries no SIP metadata. `sent`: an INVITE had left. `disconnect_reason`: what LiveKit
    shows for the participant when it leaves.
    """

    name: str
    code: str
    message: str
    sip_status: int | None = None
    phrase: str = ""
    disconnect_reason: str = "UNKNOWN_REASON"
    sent: bool = True

    @property
    def http_status(self) -> int:
        """HTTP status of the Twirp error."""
        return TWIRP_HTTP_STATUS[self.code]

    @property
    def body(self) -> dict[str, Any]:
        """The Twirp error as JSON; `meta` only where the far end gave a SIP status."""
        error: dict[str, Any] = {"code": self.code, "msg": self.message}
        if self.sip_status is not None:
            error["meta"] = {"sip_status_code": str(self.sip_status), "sip_status": self.phrase}
        return error


def _answer(name: str, status: int, phrase: str, code: str, reason: str) -> SipOutcome:
    """A final SIP response of the far end."""
    words = "INVITE failed" if status in _WITH_BODY else "unexpected status from INVITE response"
    return SipOutcome(
        name=name,
        sip_status=status,
        phrase=phrase,
        code=code,
        message=f"{words}: sip status: {status}: {phrase}",
        disconnect_reason=reason,
    )


def _fault(name: str, code: str, message: str, reason: str = "UNKNOWN_REASON", *, sent: bool = True) -> SipOutcome:
    """A failure without a SIP response."""
    return SipOutcome(name=name, code=code, message=message, disconnect_reason=reason, sent=sent)


_ROWS: Final = (
    _answer("not_found", 404, "Not Found", "not_found", "USER_UNAVAILABLE"),
    _answer("gone", 410, "Gone", "not_found", "USER_REJECTED"),
    _answer("does_not_exist_anywhere", 604, "Does Not Exist Anywhere", "not_found", "USER_REJECTED"),
    _answer("request_timeout", 408, "Request Timeout", "deadline_exceeded", "USER_UNAVAILABLE"),
    _answer("server_timeout", 504, "Server Time-out", "deadline_exceeded", "UNKNOWN_REASON"),
    _answer("temporarily_unavailable", 480, "Temporarily Unavailable", "resource_exhausted", "USER_UNAVAILABLE"),
    _answer("busy_here", 486, "Busy Here", "resource_exhausted", "USER_REJECTED"),
    _answer("busy_everywhere", 600, "Busy Everywhere", "resource_exhausted", "USER_REJECTED"),
    _answer("unauthorized", 401, "Unauthorized", "permission_denied", "USER_REJECTED"),
    _answer("payment_required", 402, "Payment Required", "permission_denied", "USER_REJECTED"),
    _answer("forbidden", 403, "Forbidden", "permission_denied", "USER_REJECTED"),
    _answer("decline", 603, "Decline", "permission_denied", "USER_REJECTED"),
    # 603+: an analytics block tells itself from a callee's decline by its phrase alone (ATIS-1000099).
    _answer("network_blocked", 603, "Network Blocked", "permission_denied", "USER_REJECTED"),
    _answer("unwanted", 607, "Unwanted", "permission_denied", "USER_REJECTED"),
    _answer("rejected", 608, "Rejected", "permission_denied", "USER_REJECTED"),
    _answer("proxy_authentication_required", 407, "Proxy Authentication Required", "unauthenticated", "USER_REJECTED"),
    _answer("unsupported_media_type", 415, "Unsupported Media Type", "invalid_argument", "USER_REJECTED"),
    _answer("not_acceptable_here", 488, "Not Acceptable Here", "invalid_argument", "USER_REJECTED"),
    _answer("address_incomplete", 484, "Address Incomplete", "invalid_argument", "USER_REJECTED"),
    _answer("request_terminated", 487, "Request Terminated", "aborted", "USER_REJECTED"),
    _answer("internal_server_error", 500, "Server Internal Error", "failed_precondition", "UNKNOWN_REASON"),
    _answer("bad_gateway", 502, "Bad Gateway", "failed_precondition", "UNKNOWN_REASON"),
    _answer("service_unavailable", 503, "Service Unavailable", "failed_precondition", "UNKNOWN_REASON"),
    _answer("cps_limit_exceeded", 503, "CPS limit exceeded", "failed_precondition", "USER_REJECTED"),
    _answer("concurrent_limit", 503, "Concurrent call limit exceeded", "failed_precondition", "USER_REJECTED"),
    _fault("bad_trunk_credentials", "failed_precondition", "max auth retry attempts reached", "USER_REJECTED"),
    # Ring timeout; also what a caller gets when the room is deleted or the participant removed while it rings.
    _fault("ring_timeout", "canceled", "sip request timed out", "USER_UNAVAILABLE"),
    _fault("ring_timeout_race", "failed_precondition", "context deadline exceeded", "UNKNOWN_REASON"),
    _fault(
        "no_final_response", "canceled", "transaction failed to complete (1 intermediate responses)", "USER_UNAVAILABLE"
    ),
    _fault("shutting_down", "canceled", "service shutting down", "USER_UNAVAILABLE"),
    _fault("bad_address", "invalid_argument", "lookup sip.invalid: no such host", sent=False),
    _fault("network_error", "failed_precondition", "write: connection reset by peer"),
    _fault("network_error_before_invite", "unavailable", "dial: connection refused", sent=False),
    _fault("no_sip_server", "unavailable", "no response from servers", sent=False),
    _fault("request_timed_out", "deadline_exceeded", "request timed out", "CONNECTION_TIMEOUT"),
    _fault("trunk_unknown", "not_found", "requested sip trunk does not exist", sent=False),
    _fault("room_join_failed", "internal", "update room failed: room join failed", sent=False),
)

OUTCOMES: Final = MappingProxyType({row.name: row for row in _ROWS})
"""Every row by name."""
