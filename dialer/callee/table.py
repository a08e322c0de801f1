"""The phase table: what each phase makes of each input. A pair that means nothing is a row too, with its reason.

A rule gets the callee, the call, the input and the time, and returns what is to be recorded about that call. `leads_to`
names the phases a rule may leave the call in; the life-cycle page is drawn from it and a law checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dialer.callee import dialing, late, stopping
from dialer.callee import opening as op
from dialer.callee.evolve import Copied
from dialer.callee.facts import fact_seen
from dialer.callee.inputs import (
    AgentSilent,
    Cancel,
    DeadlinePassed,
    Defined,
    Dialled,
    FactSeen,
    Fenced,
    LegGone,
    LegSeen,
    RoomAnswered,
    SlotGranted,
    Suppress,
    TurnGranted,
)
from dialer.callee.state import Call, Callee, Phase
from schemas.events import Decision

Rule = Callable[[Callee, Call, Any, datetime], list[Decision | Copied]]
CLOSED: Final = "closed"


@dataclass(frozen=True, slots=True)
class Acts:
    """A row that decides something."""

    rule: Rule
    leads_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Nothing:
    """A row that decides nothing, and why."""

    reason: str


P = Phase
_BEFORE_ROOM: Final = (P.REQUESTED, P.WAITING)
_BEFORE_DIAL: Final = (P.OPENING, P.GATHERING, P.READY)
_ON_THE_PHONE: Final = (P.DIALING, P.RINGING, P.ANSWERED)
Row = Acts | Nothing


def _rows(phases: tuple[Phase, ...], kind: type[Any], row: Row) -> dict[tuple[Phase, type[Any]], Row]:
    return {(phase, kind): row for phase in phases}


def _stays_or(
    phases: tuple[Phase, ...], kind: type[Any], rule: Rule, *leads_to: str
) -> dict[tuple[Phase, type[Any]], Row]:
    return {(phase, kind): Acts(rule, (phase, *leads_to)) for phase in phases}


_ALL: Final = tuple(Phase)
_KNOWN = Nothing("the definition is known already")
_NO_SLOT = Nothing("no slot is waited for: the shell gives it back")
_NO_ROOM = Nothing("this attempt's room is not asked for, or was answered already")
_NO_TURN = Nothing("no turn is waited for: the shell gives it back")
_NO_DIAL = Nothing("no dial of this call was ever under way")
_NO_LEG_YET = Nothing("there is no leg to see yet")
_NO_LEG = Nothing("there is no leg to lose yet")
_NO_AGENT = Nothing("no agent is relied on now")
_NOT_FENCING = Nothing("no room is being taken down")

TABLE: Final[dict[tuple[Phase, type[Any]], Row]] = {
    **_rows(_ALL, Defined, _KNOWN),
    (P.REQUESTED, Defined): Acts(op.defined, (P.WAITING, CLOSED)),
    **_rows(_ALL, SlotGranted, _NO_SLOT),
    (P.WAITING, SlotGranted): Acts(op.slot_granted, (P.OPENING, P.WAITING)),
    **_rows(_ALL, RoomAnswered, _NO_ROOM),
    (P.OPENING, RoomAnswered): Acts(op.room_answered, (P.GATHERING, P.READY, P.FENCING)),
    **_rows(_ALL, TurnGranted, _NO_TURN),
    (P.READY, TurnGranted): Acts(op.turn_granted, (P.DIALING, P.FENCING)),
    **_stays_or((P.REQUESTED,), FactSeen, fact_seen),
    **_stays_or((P.WAITING,), FactSeen, fact_seen, CLOSED),
    **_stays_or((P.OPENING, P.READY, P.ANSWERED), FactSeen, fact_seen, P.FENCING),
    **_stays_or((P.GATHERING,), FactSeen, fact_seen, P.READY, P.FENCING),
    **_stays_or((P.DIALING,), FactSeen, fact_seen, P.RINGING, P.ANSWERED, P.FENCING),
    **_stays_or((P.RINGING,), FactSeen, fact_seen, P.ANSWERED, P.FENCING),
    (P.FENCING, FactSeen): Acts(fact_seen, (P.FENCING, P.WAITING, CLOSED)),
    (P.REQUESTED, Dialled): _NO_DIAL,
    **_stays_or((P.WAITING,), Dialled, late.outcome_heard, CLOSED),
    **_stays_or(_BEFORE_DIAL, Dialled, late.outcome_heard, P.FENCING),
    **_stays_or((P.DIALING, P.RINGING), Dialled, dialing.dialled, P.ANSWERED, P.FENCING),
    (P.ANSWERED, Dialled): Acts(late.outcome_heard, (P.ANSWERED,)),
    (P.FENCING, Dialled): Acts(dialing.settled, (P.FENCING, P.WAITING, CLOSED)),
    **_rows((*_BEFORE_ROOM, *_BEFORE_DIAL), LegSeen, _NO_LEG_YET),
    (P.DIALING, LegSeen): Acts(dialing.leg_seen, (P.RINGING, P.ANSWERED)),
    (P.RINGING, LegSeen): Acts(dialing.leg_seen, (P.ANSWERED,)),
    (P.ANSWERED, LegSeen): Nothing("it is known to be answered"),
    (P.FENCING, LegSeen): Acts(dialing.leg_seen_late, (P.FENCING, P.WAITING, CLOSED)),
    **_rows((*_BEFORE_ROOM, P.OPENING), LegGone, _NO_LEG),
    **_rows((P.GATHERING, P.READY), LegGone, Acts(op.room_lost, (P.FENCING,))),
    **_rows(_ON_THE_PHONE, LegGone, Acts(dialing.leg_gone, (P.FENCING,))),
    (P.FENCING, LegGone): Nothing("the room is being taken down anyway"),
    **_rows((*_BEFORE_ROOM, P.OPENING, P.GATHERING, P.FENCING), AgentSilent, _NO_AGENT),
    (P.READY, AgentSilent): Acts(op.room_lost, (P.FENCING,)),
    **_rows(_ON_THE_PHONE, AgentSilent, Acts(dialing.agent_lost, (P.FENCING,))),
    **_rows(_ALL, Fenced, _NOT_FENCING),
    (P.FENCING, Fenced): Acts(dialing.fenced, (P.FENCING, P.WAITING, CLOSED)),
    **_rows(_BEFORE_ROOM, Cancel, Acts(stopping.cancelled_waiting, (CLOSED,))),
    **_rows((*_BEFORE_DIAL, *_ON_THE_PHONE), Cancel, Acts(stopping.cancelled_active, (P.FENCING,))),
    (P.FENCING, Cancel): Acts(stopping.cancelled_fencing, (P.FENCING, CLOSED)),
    **_rows(_BEFORE_ROOM, Suppress, Acts(stopping.suppressed_waiting, (CLOSED,))),
    **_rows((*_BEFORE_DIAL, *_ON_THE_PHONE), Suppress, Acts(stopping.suppressed_active, (P.FENCING,))),
    (P.FENCING, Suppress): Nothing("the attempt is judged with the suppression in force"),
    **_stays_or(_BEFORE_ROOM, DeadlinePassed, stopping.expired_waiting, CLOSED),
    **_stays_or(_BEFORE_DIAL, DeadlinePassed, op.too_late, P.FENCING),
    **_stays_or(_ON_THE_PHONE, DeadlinePassed, dialing.too_long, P.FENCING),
    (P.FENCING, DeadlinePassed): Acts(dialing.fence_too_long, (P.FENCING, P.WAITING, CLOSED)),
}


def apply(callee: Callee, call: Call, given: Any, now: datetime) -> list[Decision | Copied]:
    """Look the row up and run it."""
    row = TABLE[call.phase, type(given)]
    return row.rule(callee, call, given, now) if isinstance(row, Acts) else []
