"""What is known of one callee: a fold of the log, and nothing else.

`Callee` is also the snapshot on `dialer.callees`: fields may be added with a default, never renamed, and a default never
changes, for what stands at it is not written (`dialer/writing`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from schemas.events import Rules
from schemas.outcomes import Attribution, FenceReason, Outcome
from schemas.values import Sealed

CALLS_OPEN_MAX: Final = 20
CALLS_REMEMBERED_MAX: Final = 2000
STOPS_SEEN_MAX: Final = 64
SNAPSHOT_VERSION: Final = 1
QUIET: Final = timedelta(hours=1)
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


_NOTHING: Final[dict[str, Any]] = {}
"""State is never changed in place, so that one empty dict does for all; 64 bytes each."""


def nothing() -> dict[str, Any]:
    """Return the one empty dict."""
    return _NOTHING


class Phase(StrEnum):
    """Where an open call stands; the table in `table.py` has a row for each with every input."""

    REQUESTED = "requested"
    """The campaign's definition is being looked up."""
    WAITING = "waiting"
    """Ready to be tried at `due`, when a slot is granted and no other call of the callee is under way."""
    OPENING = "opening"
    """The room is asked for."""
    GATHERING = "gathering"
    """The room stands; the agent is awaited."""
    READY = "ready"
    """The agent is ready; the trunk's turn is awaited."""
    DIALING = "dialing"
    """`DialStarted` is committed: the INVITE may go out."""
    RINGING = "ringing"
    ANSWERED = "answered"
    FENCING = "fencing"
    """The room is being taken down; then the attempt is judged."""


ACTIVE: Final = frozenset(Phase) - {Phase.REQUESTED, Phase.WAITING}
"""Phases in which a room may exist: one call of a callee at a time is in any of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One opening of a call: one room, at most one INVITE."""

    number: int
    opened_at: datetime
    room_stands: bool = False
    job_id: str = ""
    ready_at: datetime | None = None
    dialed_at: datetime | None = None
    ringing_at: datetime | None = None
    answered_at: datetime | None = None
    fencing_since: datetime | None = None
    fenced_at: datetime | None = None
    reason: FenceReason | None = None
    settled: bool = False
    """The dial request's end is known: answered, failed or withdrawn."""
    withdrawn: bool = False
    failed: Outcome | None = None
    failed_by: Attribution | None = None
    failed_sent: bool = True
    retry: str = ""
    """Which delay of the rules a failure takes; empty: none."""
    delivered: bool = False
    came_to: Outcome | None = None
    """What the agent says the answered call came to, apart from a delivered message; an opt-out outweighs the rest."""
    hung_up: bool = False
    agent_failed: bool = False
    agent_done: bool = False
    """The agent's last word is in, or its crash."""
    unseen: bool = False
    """The agent's last word: it never saw a leg, and never looked away."""
    unanswered: bool = False
    """The agent saw the leg to its end, and nobody had taken the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One open call."""

    call_id: str
    campaign_id: str
    to: Sealed
    variables: Sealed | None
    body_hash: str
    region: str
    zones: tuple[str, ...]
    priority: int
    not_after: datetime
    remember_until: datetime
    requested_at: datetime
    phase: Phase
    due: datetime
    consent_id: str | None = None
    consent_kind: str | None = None
    campaign_hash: str = ""
    rules: Rules | None = None
    message: Sealed | None = None
    words: Sealed | None = None
    openings: int = 0
    openings_spent: int = 0
    """Openings that count against `openings_max`: withdrawn dials do not."""
    dials: int = 0
    withdrawals: int = 0
    attempt: Attempt | None = None
    dialed: tuple[int, ...] = ()
    """Attempts whose INVITE went out, or may have: `dials` of them."""
    unknown: tuple[int, ...] = ()
    """Attempts of which nobody could say what became of them; one that is heard of late is taken out."""
    cancelled: bool = False
    answered_before: bool = False
    """An earlier attempt was answered, as was heard of late: no further attempt may follow (promise 2)."""
    suppressed: bool = False
    """A suppression was accepted while this call was open: lifting it later does not bring the call back."""
    facts: dict[str, str] = field(default_factory=nothing)
    """Per `{attempt}/{job}`: bitmap, in hex, of the fact numbers that are on the log (JSON's integers end at 64 bits)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What is kept of a call that ended, so that its repetition is refused: about 40 bytes."""

    body_hash: str
    until: datetime
    ended_at: datetime
    facts: dict[str, str] = field(default_factory=nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Callee:
    """Everything the owner knows of one person, by pseudonym."""

    callee_key: str
    v: int = SNAPSHOT_VERSION
    sequence: int = 0
    now: datetime | None = None
    """Time of the last event: an owner's clock never goes behind it."""
    suppressed: str | None = None
    """Reason of the suppression in force."""
    calls: dict[str, Call] = field(default_factory=nothing)
    closed: dict[str, Closed] = field(default_factory=nothing)
    """By request hash."""
    cancels: dict[str, datetime] = field(default_factory=nothing)
    """Cancels that came before their call, by request hash, until when they are remembered."""
    stops_seen: tuple[str, ...] = ()
    """Ids of the last stops, oldest first: a stop that is delivered again changes nothing."""


def active_call(callee: Callee) -> Call | None:
    """Return the one call of the callee that may have a room."""
    for call in callee.calls.values():
        if call.phase in ACTIVE:
            return call
    return None


def is_forgettable(callee: Callee, now: datetime) -> bool:
    """Tell whether nothing is left to remember, so that the snapshot may become a tombstone.

    Not before an hour after the last event: a callee that comes again begins at `first_sequence`, and must be past it.
    """
    if callee.calls or callee.suppressed is not None or callee.now is None or callee.now + QUIET > now:
        return False
    return all(c.until <= now for c in callee.closed.values()) and all(
        until <= now for until in callee.cancels.values()
    )


def first_sequence(now: datetime) -> int:
    """Return what a callee's counter begins after: milliseconds since 2026, so that it grows over a tombstone, too.

    Ids of events hang on the counter, and the log is for ever; 12 digits last until 2057.
    """
    return max(0, int((now - EPOCH).total_seconds() * 1000))
