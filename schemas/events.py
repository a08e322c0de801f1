"""What was decided: the payloads of THE LOG, `dialer.events`, in the order a call meets them.

These classes are the storage format: a field may be added with a default, never renamed or dropped. The envelope
(`schemas/envelope.py`) carries call, time, sequence and cause. Source: design §4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from pydantic import AwareDatetime

from schemas.commands import Consent
from schemas.conversation import Conversation
from schemas.outcomes import Attribution, Deferral, FenceReason, Outcome, Refusal, Withdrawal
from schemas.values import Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The part of a campaign's definition that the core decides by; shared by all calls of one definition."""

    attempts_max: int
    busy_s: int
    no_answer_s: int
    trunk_failed_s: int
    agent_lost_s: int
    unknown_after_s: int | None
    ring_timeout_s: int
    max_call_duration_s: int
    trunk: str
    type: str = "one_way"
    language: str = "en-US"
    conversation: Conversation | None = None
    """What the agent must know beyond the message; None for a plain one-way call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Why a dial was allowed: every figure and version the decision stood on (promise 3)."""

    policy: str
    window: str
    zones: tuple[str, ...]
    region: str
    consent_id: str | None
    consent_kind: str | None
    attempts_before: int
    openings_before: int
    suppressed: bool
    control: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long the parts of a call took, in seconds; None where the part never was."""

    waited_s: float | None = None
    rang_s: float | None = None
    talked_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequested:
    """A valid request became a call."""

    TYPE: ClassVar[str] = "dialer.event.call_requested.v1"
    request_id: str
    campaign_id: str
    to: Sealed
    variables: Sealed
    body_hash: str
    region: str
    zones: tuple[str, ...]
    priority: int
    not_before: AwareDatetime | None
    not_after: AwareDatetime
    remember_until: AwareDatetime
    consent: Consent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPrepared:
    """The definition is known and the message rendered."""

    TYPE: ClassVar[str] = "dialer.event.call_prepared.v1"
    campaign_hash: str
    rules: Rules
    message: Sealed
    message_length: int
    words: Sealed | None = None
    """What is said beyond the message (`schemas/conversation.Words`), where the definition has such words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRefused:
    """Terminal: the call ended before its first room was asked for."""

    TYPE: ClassVar[str] = "dialer.event.call_refused.v1"
    reason: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDeferred:
    """The call waits, and says for what."""

    TYPE: ClassVar[str] = "dialer.event.call_deferred.v1"
    not_before: AwareDatetime
    reason: Deferral


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOpened:
    """A slot was granted: this attempt's room is asked for next. From here on the call ends by `CallEnded`."""

    TYPE: ClassVar[str] = "dialer.event.attempt_opened.v1"
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomCreated:
    """The attempt's room stands."""

    TYPE: ClassVar[str] = "dialer.event.room_created.v1"
    attempt: int
    room: str
    room_sid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomFailed:
    """The room could not be had, or (`taken_over`) its owner changed before it was answered for; nothing rang."""

    TYPE: ClassVar[str] = "dialer.event.room_failed.v1"
    attempt: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDispatched:
    """An agent was asked into the room, in the same request that made it."""

    TYPE: ClassVar[str] = "dialer.event.agent_dispatched.v1"
    attempt: int
    agent_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentJoined:
    """An agent is in the room and ready to speak."""

    TYPE: ClassVar[str] = "dialer.event.agent_joined.v1"
    attempt: int
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentUnavailable:
    """No agent became ready in time; nothing rang."""

    TYPE: ClassVar[str] = "dialer.event.agent_unavailable.v1"
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLost:
    """The agent of this attempt is gone before its work was done."""

    TYPE: ClassVar[str] = "dialer.event.agent_lost.v1"
    attempt: int
    answered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DialStarted:
    """The INVITE of this attempt may go out now, and says why it may."""

    TYPE: ClassVar[str] = "dialer.event.dial_started.v1"
    attempt: int
    trunk: str
    caller_id: str
    permit: Permit


@dataclass(frozen=True, slots=True, kw_only=True)
class DialWithdrawn:
    """Known: the INVITE of this attempt was never sent."""

    TYPE: ClassVar[str] = "dialer.event.dial_withdrawn.v1"
    attempt: int
    reason: Withdrawal


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeRinging:
    """The callee's phone rings, as the agent in the room saw it."""

    TYPE: ClassVar[str] = "dialer.event.callee_ringing.v1"
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswered:
    """The callee, or something at the callee's number, answered."""

    TYPE: ClassVar[str] = "dialer.event.call_answered.v1"
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DialFailed:
    """The dial came to nothing, and what the carrier said of it."""

    TYPE: ClassVar[str] = "dialer.event.dial_failed.v1"
    attempt: int
    sip_status: int | None
    outcome: Outcome
    attribution: Attribution
    rule: str
    sent: bool
    """False where the failure is known to come before the INVITE (a stated failure before sending)."""
    retry: str = ""
    """Which of the rules' delays applies; empty: none, the call ends."""
    code: str = ""
    phrase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialUnknown:
    """Nobody can say what became of this dial; `alarm` where even the fence could not be confirmed."""

    TYPE: ClassVar[str] = "dialer.event.dial_unknown.v1"
    attempt: int
    alarm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceStarted:
    """The attempt's room is being taken down; what follows waits until that is certain."""

    TYPE: ClassVar[str] = "dialer.event.fence_started.v1"
    attempt: int
    reason: FenceReason


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceConfirmed:
    """The attempt's room is certainly gone, and no leg with it: nothing of this attempt can ring any more."""

    TYPE: ClassVar[str] = "dialer.event.fence_confirmed.v1"
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled:
    """A further attempt is due at `not_before`."""

    TYPE: ClassVar[str] = "dialer.event.retry_scheduled.v1"
    attempt: int
    """The attempt that ended; the next one has a higher number."""
    not_before: AwareDatetime
    outcome: Outcome | None
    """What the ended attempt came to; None where it cost no ring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCancelled:
    """A cancel was accepted; a step, not an end."""

    TYPE: ClassVar[str] = "dialer.event.call_cancelled.v1"
    stop_id: str
    reason: str
    remember_until: AwareDatetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """Terminal: the call is over."""

    TYPE: ClassVar[str] = "dialer.event.call_ended.v1"
    attempt: int
    outcome: Outcome
    attribution: Attribution
    durations: Durations = field(default_factory=Durations)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeSuppressed:
    """This person is rung no more."""

    TYPE: ClassVar[str] = "dialer.event.callee_suppressed.v1"
    stop_id: str
    scope: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionLifted:
    """This person may be rung again."""

    TYPE: ClassVar[str] = "dialer.event.suppression_lifted.v1"
    stop_id: str
    scope: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeErased:
    """The data key is gone. In the contract from the first version; not made yet."""

    TYPE: ClassVar[str] = "dialer.event.callee_erased.v1"
    stop_id: str
    reason: str


Decision = (
    CallRequested
    | CallPrepared
    | CallRefused
    | CallDeferred
    | AttemptOpened
    | RoomCreated
    | RoomFailed
    | AgentDispatched
    | AgentJoined
    | AgentUnavailable
    | AgentLost
    | DialStarted
    | DialWithdrawn
    | CalleeRinging
    | CallAnswered
    | DialFailed
    | DialUnknown
    | FenceStarted
    | FenceConfirmed
    | RetryScheduled
    | CallCancelled
    | CallEnded
    | CalleeSuppressed
    | SuppressionLifted
    | CalleeErased
)
DECISIONS: Final[dict[str, type[Any]]] = {d.TYPE: d for d in Decision.__args__}
TERMINAL: Final[tuple[type[Any], ...]] = (CallRefused, CallEnded)
