"""Which events an auditor hears of, under which name, with which figures: one frozen table, pure.

`conversation_started` is not made yet: it belongs to two-way campaigns, and this version has none (design §4).
`amd_hangup` is a job's last word that it hung up on a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Final

from schemas.events import CallAnswered, CalleeSuppressed, CallEnded, CallRefused, CallRequested
from schemas.facts import AgentApiFailed, AgentCrashed, CalleeHungUp, NotificationDelivered
from schemas.values import scrub

Detail = Callable[[Any], dict[str, Any]]
"""Payload -> closed words and figures."""


@dataclass(frozen=True, slots=True)
class Line:
    """One audit record that an event gives rise to."""

    name: str
    detail: Detail


def _nothing(_: CallAnswered | AgentCrashed) -> dict[str, Any]:
    return {}


def _requested(event: CallRequested) -> dict[str, Any]:
    return {
        "region": event.region,
        "priority": event.priority,
        "not_before": event.not_before,
        "not_after": event.not_after,
        "consent_id": event.consent.id if event.consent else None,
        "consent_kind": event.consent.kind if event.consent else None,
    }


def _refused(event: CallRefused) -> dict[str, Any]:
    return {"reason": event.reason}


def _spoken(event: NotificationDelivered | CalleeHungUp) -> dict[str, Any]:
    return {"spoken_ms": event.spoken_ms}


def _api_failed(event: AgentApiFailed) -> dict[str, Any]:
    return {"service": event.service, "code": scrub(event.code)}


def _ended(event: CallEnded) -> dict[str, Any]:
    return {"outcome": event.outcome, "attribution": event.attribution, **asdict(event.durations)}


def _suppressed(event: CalleeSuppressed) -> dict[str, Any]:
    return {"scope": event.scope, "reason": event.reason}


LINES: Final[Mapping[str, tuple[Line, ...]]] = MappingProxyType(
    {
        CallRequested.TYPE: (Line("call_requested", _requested),),
        CallRefused.TYPE: (Line("call_refused", _refused),),
        CallAnswered.TYPE: (Line("call_answered", _nothing),),
        NotificationDelivered.TYPE: (Line("notification_delivered", _spoken),),
        CalleeHungUp.TYPE: (Line("user_hangup", _spoken),),
        AgentApiFailed.TYPE: (Line("error_http", _api_failed),),
        AgentCrashed.TYPE: (Line("error_exception", _nothing),),
        CallEnded.TYPE: (Line("call_ended", _ended),),
        CalleeSuppressed.TYPE: (Line("callee_suppressed", _suppressed),),
    }
)
"""Type of an event or fact -> its audit records, in order; a type that is not here has none."""
