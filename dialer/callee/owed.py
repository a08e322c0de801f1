"""What the world is still owed: a reading of the state, so that nothing can be forgotten over a crash.

The shell keeps the set of effects that run and brings it in line with `owed` after every commit: what is new is
started, what is no longer owed is withdrawn. After a take-over `outstanding` is asked instead: what another process may
have asked of LiveKit is never asked again; its dial is adopted, an attempt whose room was not answered for is given up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dialer.callee.dialing import fence_deadline, phone_deadline
from dialer.callee.opening import next_up, opening_deadline
from dialer.callee.policy import ADOPT_GRACE
from dialer.callee.state import Call, Callee, Phase

ON_THE_PHONE: Final = frozenset({Phase.DIALING, Phase.RINGING, Phase.ANSWERED})
"""Phases in which a leg may be there, and shall be."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Find the campaign's definition, render the message, answer with `Defined`."""

    call_id: str
    campaign_id: str


@dataclass(frozen=True, slots=True)
class AskSlot:
    """Queue for a slot: concurrency of the trunk and the agents' capacity; answer with `SlotGranted`."""

    call_id: str
    trunk: str
    campaign_id: str
    priority: int


@dataclass(frozen=True, slots=True)
class OpenRoom:
    """Make the room with its agent dispatch, once; answer with `RoomAnswered`."""

    call_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class WatchAgent:
    """Say `AgentSilent` when the agent's readiness is not renewed."""

    call_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AskTurn:
    """Queue for the trunk's next turn; answer with `TurnGranted`."""

    call_id: str
    attempt: int
    trunk: str


@dataclass(frozen=True, slots=True)
class Dial:
    """Pass the gate and send the one INVITE of this attempt; answer with `Dialled`, whatever comes."""

    call_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Ask LiveKit after a leg that another process dialed; answer with `LegSeen`, or `LegGone` where it is not there."""

    call_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Take the room down until that is certain; answer with `Fenced`."""

    call_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up an attempt whose room another ownership asked for; answer with `RoomAnswered`, not ok.

    That request may still be on its way, and make the room again after a fence: nothing may ever be dialed into it.
    """

    call_id: str
    attempt: int


Effect = LookUp | AskSlot | OpenRoom | WatchAgent | AskTurn | Dial | Adopt | Abandon | Fence


def owed(callee: Callee, now: datetime) -> frozenset[Effect]:
    """Return everything that is owed for this callee now, for calls that this process has brought so far itself."""
    if not callee.calls:
        return frozenset()
    found: list[Effect] = []
    for call in callee.calls.values():
        found += _of(call)
    due = next_up(callee, now)
    if due is not None:
        assert due.rules is not None
        found.append(AskSlot(due.call_id, due.rules.trunk, due.campaign_id, due.priority))
    return frozenset(found)


def _of(call: Call) -> list[Effect]:
    if call.phase is Phase.REQUESTED:
        return [LookUp(call.call_id, call.campaign_id)]
    attempt = call.attempt
    if attempt is None:
        return []
    key, number = call.call_id, attempt.number
    assert call.rules is not None
    match call.phase:
        case Phase.OPENING:
            return [OpenRoom(key, number)]
        case Phase.READY:
            return [AskTurn(key, number, call.rules.trunk), WatchAgent(key, number)]
        case Phase.DIALING:
            return [Dial(key, number), WatchAgent(key, number)]
        case Phase.RINGING | Phase.ANSWERED:
            return [WatchAgent(key, number)]
        case Phase.FENCING if attempt.fenced_at is None:
            return [Fence(key, number)]
        case _:
            return []


_TAKEN_OVER: Final[Mapping[Phase, type[Adopt | Abandon]]] = {
    **dict.fromkeys(ON_THE_PHONE, Adopt),
    Phase.OPENING: Abandon,
}
"""What is owed of an attempt in these phases to an owner that did not bring it there."""


def outstanding(callee: Callee, now: datetime) -> frozenset[Effect]:
    """Return what is owed for a callee that was taken over: dials are adopted, rooms given up; neither is asked for."""
    found = {e for e in owed(callee, now) if not isinstance(e, Dial | OpenRoom)}
    for call in callee.calls.values():
        instead = _TAKEN_OVER.get(call.phase)
        if instead is not None:
            assert call.attempt is not None
            found.add(instead(call.call_id, call.attempt.number))
    return frozenset(found)


def deadline(callee: Callee, now: datetime) -> datetime | None:
    """Return when something becomes due by itself; a timer is a reading of the state."""
    return min((_deadline(call, now) for call in callee.calls.values()), default=None)


def first_deadline(callee: Callee, now: datetime) -> datetime | None:
    """Return the first deadline after a take-over: what is overdue on the phone is looked for before it is ended."""
    due = deadline(callee, now)
    adopts = any(call.phase in ON_THE_PHONE for call in callee.calls.values())
    return max(due, now + ADOPT_GRACE) if due is not None and adopts else due


def _deadline(call: Call, now: datetime) -> datetime:
    match call.phase:
        case Phase.REQUESTED:
            return call.not_after
        case Phase.WAITING:
            return call.due if now < call.due < call.not_after else call.not_after
        case Phase.OPENING | Phase.GATHERING | Phase.READY:
            return opening_deadline(call)
        case Phase.DIALING | Phase.RINGING | Phase.ANSWERED:
            return phone_deadline(call)
        case Phase.FENCING:
            return fence_deadline(call)
