"""Which events an auditor hears of, under which name, with which figures: one frozen table, pure.

`conversation_started` belongs to two-way calls: the greeting was played to its end. `amd_hangup` is a job's last word that
it hung up on a machine. A suppression that was heard in a call names that call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Final

from schemas.events import CallAnswered, CalleeSuppressed, CallEnded, CallRefused, CallRequested
from schemas.facts import (
    AgentApiFailed,
    AgentCrashed,
    CalleeHungUp,
    ConversationEnded,
    ConversationStarted,
    NotificationDelivered,
    RecordingCompleted,
    VoicemailLeft,
)
from schemas.values import call_of_fact, scrub

Detail = Callable[[Any], dict[str, Any]]
"""Payload -> closed words and figures."""


Condition = Callable[[Any], bool]


def _always(_: object) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Line:
    """One audit record that an event gives rise to, where its condition holds."""

    name: str
    detail: Detail
    told: Condition = _always


def _nothing(_: CallAnswered | AgentCrashed | ConversationEnded) -> dict[str, Any]:
    return {}


def _greeted(event: ConversationStarted) -> bool:
    return event.greeting_ms is not None


def _greeting(event: ConversationStarted) -> dict[str, Any]:
    return {"answer_to_audio_ms": event.answer_to_audio_ms, "greeting_ms": event.greeting_ms}


def _hung_up_on_a_machine(event: ConversationEnded) -> bool:
    return event.reason == "machine_hung_up"


def _recorded(event: RecordingCompleted) -> dict[str, Any]:
    return {"path": event.path, "duration_ms": event.duration_ms, "size_bytes": event.size_bytes}


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


def _spoken(event: NotificationDelivered | CalleeHungUp | VoicemailLeft) -> dict[str, Any]:
    return {"spoken_ms": event.spoken_ms}


def _api_failed(event: AgentApiFailed) -> dict[str, Any]:
    return {"service": event.service, "code": scrub(event.code)}


def _ended(event: CallEnded) -> dict[str, Any]:
    return {"outcome": event.outcome, "attribution": event.attribution, **asdict(event.durations)}


def _suppressed(event: CalleeSuppressed) -> dict[str, Any]:
    return {"scope": event.scope, "reason": event.reason, "heard_in": call_of_fact(event.stop_id)}


LINES: Final[Mapping[str, tuple[Line, ...]]] = MappingProxyType(
    {
        CallRequested.TYPE: (Line("call_requested", _requested),),
        CallRefused.TYPE: (Line("call_refused", _refused),),
        CallAnswered.TYPE: (Line("call_answered", _nothing),),
        ConversationStarted.TYPE: (Line("conversation_started", _greeting, _greeted),),
        NotificationDelivered.TYPE: (Line("notification_delivered", _spoken),),
        CalleeHungUp.TYPE: (Line("user_hangup", _spoken),),
        VoicemailLeft.TYPE: (Line("voicemail_left", _spoken),),
        ConversationEnded.TYPE: (Line("amd_hangup", _nothing, _hung_up_on_a_machine),),
        RecordingCompleted.TYPE: (Line("recording_completed", _recorded),),
        AgentApiFailed.TYPE: (Line("error_http", _api_failed),),
        AgentCrashed.TYPE: (Line("error_exception", _nothing),),
        CallEnded.TYPE: (Line("call_ended", _ended),),
        CalleeSuppressed.TYPE: (Line("callee_suppressed", _suppressed),),
    }
)
"""Type of an event or fact -> its audit records, in order; a type that is not here has none."""
