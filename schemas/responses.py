"""What the HTTP API answers: bodies of 202, of the read routes, and RFC 9457 problems.

Source: design §9; RFC 9457.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schemas.outcomes import Status

PROBLEM_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """202: the request is on its topic, acknowledged by the broker."""

    call_id: str | None
    callee_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallView:
    """One call as the read side knows it."""

    call_id: str
    campaign_id: str | None
    request_id: str | None
    status: Status
    outcome: str | None
    attribution: str | None
    attempts: int
    dials: int
    requested_at: datetime | None
    updated_at: datetime
    ended_at: datetime | None
    answered_at: datetime | None
    next_at: datetime | None
    sip_status: int | None
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPage:
    """A page of calls, newest first; `cursor` asks for the next one, None at the end."""

    calls: list[CallView]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One record of a call's timeline; sealed fields are shown as `sealed`."""

    sequence: int
    at: datetime
    type: str
    source: str
    id: str
    cause: str | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All a call's records on the log, in order."""

    call_id: str
    events: list[EventView]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """RFC 9457: names the field and the rule, never the value."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    rule: str | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
