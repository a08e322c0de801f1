"""Everything that can happen to a callee: each input has a cause (its id), a time, and says which call it speaks of.

The shell makes these from commands, stops, facts, outcomes, grants and timers; the same input again has the same id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.commands import Consent
from schemas.events import Rules
from schemas.facts import FactBody
from schemas.observations import DialOutcome
from schemas.outcomes import Refusal
from schemas.values import Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The definition was found and the message rendered."""

    campaign_hash: str
    rules: Rules
    message: Sealed
    message_length: int
    words: Sealed | None = None


Verdict = Prepared | Refusal
"""What the shell made of a call's campaign definition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What all inputs have: `id` is the cause written into events, `at` the shell's clock."""

    id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceCall(Input):
    """A valid request; `verdict` is there at once where the definition was in the cache."""

    call_id: str
    request_id: str
    campaign_id: str
    to: Sealed
    variables: Sealed
    body_hash: str
    region: str
    zones: tuple[str, ...]
    priority: int
    not_before: datetime | None
    not_after: datetime
    remember_until: datetime
    consent: Consent | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Input):
    """A stop: this call shall not be made, or be hung up."""

    call_id: str
    reason: str
    remember_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppress(Input):
    """A stop: this person shall not be rung."""

    scope: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift(Input):
    """A stop taken back: this person may be rung again."""

    scope: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed(Input):
    """The time `deadline` named has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defined(Input):
    """The definition's look-up answered."""

    call_id: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotGranted(Input):
    """The pacer has room for one more attempt of this call."""

    call_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OfAttempt(Input):
    """What inputs about an attempt have."""

    call_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAnswered(OfAttempt):
    """`create_room` answered: with the room's sid, or a code."""

    ok: bool
    room: str
    room_sid: str
    agent_name: str
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnGranted(OfAttempt):
    """It is this attempt's turn on the trunk; `control` names the control state it was granted under."""

    trunk: str
    caller_id: str
    control: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FactSeen(OfAttempt):
    """The agent's fact, with the source and id it will have on the log."""

    fact: FactBody
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialled(OfAttempt):
    """The one dial request of this attempt came to an end."""

    outcome: DialOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class LegSeen(OfAttempt):
    """LiveKit lists the callee's leg, and how its `sip.callStatus` stands: the reconciler."""

    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LegGone(OfAttempt):
    """LiveKit says the callee's participant, or the whole room, is not there: a webhook, or the reconciler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSilent(OfAttempt):
    """The agent has not renewed its readiness for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced(OfAttempt):
    """The room is certainly gone: `delete_room` answered ok or not_found twice, 1 s apart, and no leg between."""


CallInput = (
    Defined
    | SlotGranted
    | RoomAnswered
    | TurnGranted
    | FactSeen
    | Dialled
    | LegSeen
    | LegGone
    | AgentSilent
    | Fenced
    | Cancel
    | Suppress
    | DeadlinePassed
)
"""Inputs that the phase table has a row for, for every phase."""

AnyInput = PlaceCall | Lift | CallInput
