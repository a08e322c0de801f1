"""What auditors and campaign owners read on `dialer.audit`: stable, small, without personal data.

Made from the log by `projections/audit_publisher`. Source: design §4 (audit names), §7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

AUDIT_NAMES: Final = (
    "call_requested",
    "call_refused",
    "call_answered",
    "conversation_started",
    "notification_delivered",
    "amd_hangup",
    "user_hangup",
    "error_http",
    "error_exception",
    "voicemail_left",
    "recording_completed",
    "call_ended",
    "callee_suppressed",
)
AUDIT_PREFIX: Final = "dialer.audit."


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One line for the auditor: the envelope names the call and the time; `detail` holds closed words and figures."""

    name: str
    callee_key: str
    call_id: str | None
    campaign_id: str | None
    request_id: str | None
    attempt: int | None
    detail: dict[str, Any]


def audit_type(name: str) -> str:
    """Return the CloudEvents type of an audit name."""
    return f"{AUDIT_PREFIX}{name}.v1"
