"""What the agent saw: facts from inside the room, on `dialer.observations`, copied to the log by the owner.

A fact's envelope has `source` = `/agent/{attempt}/{job_id}`, `subject` = call_id, and `id` =
`{attempt id}/{job_id}/{number}`; facts of a job are numbered from 1 without gaps. Source: design §4, §6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from schemas.values import Sealed

Number = Annotated[int, Field(ge=1, le=1_000_000)]
AnswererCategory = Literal["human", "machine-vm", "machine-ivr", "machine-unavailable", "call-screening", "uncertain"]
CallStatus = Literal["dialing", "ringing", "automation", "active", "hangup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What every fact says: which attempt, which job, and its place in the job's own numbering."""

    attempt: Annotated[int, Field(ge=1)]
    job_id: Annotated[str, Field(min_length=1, max_length=64)]
    number: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReady(Fact):
    """The agent is in the room, its message synthesised: it can speak the moment the callee answers.

    Renewed every 2 s with `renewal` counting from 0; a renewal has number 1 as the first one has, refreshes the gate
    and is not copied to the log.
    """

    TYPE: ClassVar[str] = "agent.fact.agent_ready.v1"
    renewal: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeJoined(Fact):
    """The callee's participant is in the room. livekit-sip joins before the INVITE: this is not an answer."""

    TYPE: ClassVar[str] = "agent.fact.callee_joined.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeStatus(Fact):
    """`sip.callStatus` of the callee's participant changed."""

    TYPE: ClassVar[str] = "agent.fact.callee_status.v1"
    status: CallStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeLeft(Fact):
    """The callee's participant left; `reason` is LiveKit's DisconnectReason."""

    TYPE: ClassVar[str] = "agent.fact.callee_left.v1"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationStarted(Fact):
    """The agent began to speak: one-way, with the first word; two-way, when the whole greeting was played."""

    TYPE: ClassVar[str] = "agent.fact.conversation_started.v1"
    answer_to_audio_ms: int | None = None
    """From the answer to the first word."""
    greeting_ms: int | None = None
    """Two-way only: how long the greeting was, that was played to a callee who was there to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationDelivered(Fact):
    """The whole message was played to a callee who was there to its end."""

    TYPE: ClassVar[str] = "agent.fact.notification_delivered.v1"
    spoken_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswererDetected(Fact):
    """Who, or what, took the call, by which rule; `evidence` is a hash of what was heard, never the words."""

    TYPE: ClassVar[str] = "agent.fact.answerer_detected.v1"
    category: AnswererCategory
    rule: str
    evidence: str
    latency_ms: int
    """From the end of the first greeting to the verdict."""
    weight: int | None = None
    """Of the evidence, as the rules sum it."""
    words: int | None = None
    finals: int | None = None
    """How many results of the recogniser the words came in."""
    speech_ms: int | None = None
    """How long the opening lasted."""
    silence_before_ms: int | None = None
    """From the answer to its first word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoicemailLeft(Fact):
    """The whole voicemail message was played after the machine's greeting."""

    TYPE: ClassVar[str] = "agent.fact.voicemail_left.v1"
    spoken_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnTaken(Fact):
    """One turn of a conversation; the words are sealed under the callee's key."""

    TYPE: ClassVar[str] = "agent.fact.turn_taken.v1"
    speaker: Literal["agent", "callee"]
    text: Sealed
    spoken_ms: int | None = None
    reply_ms: int | None = None
    """Of an agent's turn: end of the callee's speech to the first audio of the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DtmfReceived(Fact):
    """The callee pressed a key; which one is sealed, for keys spell numbers."""

    TYPE: ClassVar[str] = "agent.fact.dtmf_received.v1"
    digit: Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTransferred(Fact):
    """The callee was handed over by SIP REFER (RFC 3515), and the transfer was taken."""

    TYPE: ClassVar[str] = "agent.fact.call_transferred.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStarted(Fact):
    """Egress took the recording."""

    TYPE: ClassVar[str] = "agent.fact.recording_started.v1"
    egress_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingCompleted(Fact):
    """The recording is in the bucket."""

    TYPE: ClassVar[str] = "agent.fact.recording_completed.v1"
    egress_id: str
    path: str
    duration_ms: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFailed(Fact):
    """There is no whole recording, or (`not_followed`) nobody waited for its end; `code` is a status or error code, never a text."""

    TYPE: ClassVar[str] = "agent.fact.recording_failed.v1"
    egress_id: str | None
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeHungUp(Fact):
    """The callee left before the message or the conversation was over."""

    TYPE: ClassVar[str] = "agent.fact.callee_hung_up.v1"
    spoken_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentApiFailed(Fact):
    """A service that the agent needs failed for good: the agent API, speech, or the relay it must talk through."""

    TYPE: ClassVar[str] = "agent.fact.agent_api_failed.v1"
    service: Literal["speak", "listen", "agent_api", "turn"]
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCrashed(Fact):
    """The job's process is gone without a word: said by the worker's parent process, numbered one past the last fact the parent saw."""

    TYPE: ClassVar[str] = "agent.fact.agent_crashed.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptOutHeard(Fact):
    """The callee asked not to be called again, aloud or by a key; `evidence` is the id of the pattern or the setting."""

    TYPE: ClassVar[str] = "agent.fact.opt_out_heard.v1"
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationEnded(Fact):
    """The job's last word: why it ended, whether it ever saw the callee's participant, and whether it looked away.

    `gap` is True where the agent was out of the room for a moment while the attempt ran, so that "not seen" proves
    nothing. `stayed` is True where the agent was there until the room was taken down: nothing can have come after it;
    None is a job of a version that did not say.
    """

    TYPE: ClassVar[str] = "agent.fact.conversation_ended.v1"
    reason: Literal[
        "delivered",
        "conversed",
        "voicemail_left",
        "machine_hung_up",
        "opted_out",
        "transferred",
        "callee_left",
        "no_callee",
        "failed",
        "cancelled",
        "too_long",
    ]
    callee_seen: bool
    gap: bool
    stayed: bool | None = None


FactBody = (
    AgentReady
    | CalleeJoined
    | CalleeStatus
    | CalleeLeft
    | ConversationStarted
    | NotificationDelivered
    | AnswererDetected
    | VoicemailLeft
    | TurnTaken
    | DtmfReceived
    | CallTransferred
    | RecordingStarted
    | RecordingCompleted
    | RecordingFailed
    | CalleeHungUp
    | AgentApiFailed
    | AgentCrashed
    | OptOutHeard
    | ConversationEnded
)
FACTS: Final[dict[str, type[Any]]] = {f.TYPE: f for f in FactBody.__args__}


def fact_source(attempt: int, job_id: str) -> str:
    """Return the CloudEvents `source` of a job's facts."""
    return f"/agent/{attempt}/{job_id}"
