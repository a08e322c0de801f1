"""What was seen from outside the room: LiveKit's webhooks, translated, and outcomes of effects whose owner is gone.

On `dialer.observations` beside the agent's facts. Webhooks are hints (LiveKit drops them): nothing waits for one.
Source: design §3; reference/livekit.md 4.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

Attempt = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomFinished:
    """LiveKit closed the attempt's room."""

    TYPE: ClassVar[str] = "livekit.observation.room_finished.v1"
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantJoined:
    """A participant of the attempt's room became active."""

    TYPE: ClassVar[str] = "livekit.observation.participant_joined.v1"
    attempt: Attempt
    kind: Literal["sip", "agent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantLeft:
    """A participant of the attempt's room is gone; `reason` is LiveKit's DisconnectReason."""

    TYPE: ClassVar[str] = "livekit.observation.participant_left.v1"
    attempt: Attempt
    kind: Literal["sip", "agent"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialOutcome:
    """How the one `CreateSIPParticipant` of an attempt answered (reference/livekit.md 4.4).

    `result`: `answered`; `failed` with the carrier's words; `withheld`: the gate let nothing out; `unclear`: no answer
    that says whether the phone rang.
    """

    TYPE: ClassVar[str] = "dialer.observation.dial_outcome.v1"
    attempt: Attempt
    result: Literal["answered", "failed", "withheld", "unclear"]
    sip_status: int | None = None
    code: str = ""
    phrase: str = ""
    withheld: str = ""


Observation = RoomFinished | ParticipantJoined | ParticipantLeft | DialOutcome
OBSERVATIONS: Final[dict[str, type[Any]]] = {o.TYPE: o for o in Observation.__args__}
