"""From a request to a ready agent: everything that costs no ring."""

from __future__ import annotations

from datetime import datetime

from dialer.callee.evolve import Copied
from dialer.callee.inputs import (
    AgentSilent,
    DeadlinePassed,
    Defined,
    LegGone,
    PlaceCall,
    Prepared,
    RoomAnswered,
    SlotGranted,
    TurnGranted,
)
from dialer.callee.policy import AGENT_READY_TIMEOUT, POLICY_VERSION, READY_MAX, WINDOW
from dialer.callee.state import Call, Callee, Phase, active_call
from schemas.events import (
    AgentDispatched,
    AgentUnavailable,
    AttemptOpened,
    CallDeferred,
    CallPrepared,
    CallRefused,
    CallRequested,
    Decision,
    DialStarted,
    FenceStarted,
    Permit,
    RoomCreated,
    RoomFailed,
)
from schemas.outcomes import Deferral, FenceReason, Refusal
from schemas.values import split_call_id

Decisions = list[Decision | Copied]


def requested(callee: Callee, given: PlaceCall, now: datetime) -> Decisions:
    """Make a call of a request, and refuse it at once where it cannot be made."""
    found: Decisions = [
        CallRequested(
            request_id=given.request_id,
            campaign_id=given.campaign_id,
            to=given.to,
            variables=given.variables,
            body_hash=given.body_hash,
            region=given.region,
            zones=given.zones,
            priority=given.priority,
            not_before=given.not_before,
            not_after=given.not_after,
            remember_until=given.remember_until,
            consent=given.consent,
        )
    ]
    if split_call_id(given.call_id)[1] in callee.cancels:
        return [*found, CallRefused(reason=Refusal.CANCELLED)]
    if callee.suppressed is not None:
        return [*found, CallRefused(reason=Refusal.SUPPRESSED)]
    if given.not_after <= now:
        return [*found, CallRefused(reason=Refusal.EXPIRED)]
    if given.verdict is None:
        return found
    due = given.not_before or now
    return [*found, *_on_verdict(callee, given.verdict, due, now)]


def defined(callee: Callee, call: Call, given: Defined, now: datetime) -> Decisions:
    """Go on with a call whose definition was looked up."""
    return _on_verdict(callee, given.verdict, call.due, now)


def _on_verdict(callee: Callee, verdict: Prepared | Refusal, due: datetime, now: datetime) -> Decisions:
    if isinstance(verdict, Refusal):
        return [CallRefused(reason=verdict)]
    prepared = CallPrepared(
        campaign_hash=verdict.campaign_hash,
        rules=verdict.rules,
        message=verdict.message,
        message_length=verdict.message_length,
        words=verdict.words,
    )
    if due > now:
        return [prepared, CallDeferred(not_before=due, reason=Deferral.NOT_BEFORE)]
    if active_call(callee) is not None:
        return [prepared, CallDeferred(not_before=now, reason=Deferral.CALLEE_BUSY)]
    return [prepared]


def next_up(callee: Callee, now: datetime) -> Call | None:
    """Return the waiting call that may be tried now: the callee is free; priority first, then age."""
    best: Call | None = None
    for call in callee.calls.values():
        if call.phase is Phase.WAITING:
            if call.due <= now and (best is None or _rank(call) < _rank(best)):
                best = call
        elif call.phase is not Phase.REQUESTED:
            return None
    return best


def _rank(call: Call) -> tuple[int, datetime, str]:
    return (-call.priority, call.requested_at, call.call_id)


def slot_granted(callee: Callee, call: Call, given: SlotGranted, now: datetime) -> Decisions:
    """Open the next attempt, if it is still this call's turn among the callee's calls."""
    del given
    if next_up(callee, now) is not call or now >= call.not_after:
        return []
    return [AttemptOpened(attempt=call.openings + 1)]


def room_answered(callee: Callee, call: Call, given: RoomAnswered, now: datetime) -> Decisions:
    """Take the room, or give the attempt up."""
    del callee, now
    if call.attempt is None or call.attempt.number != given.attempt:
        return []
    if not given.ok:
        return [
            RoomFailed(attempt=given.attempt, code=given.code),
            FenceStarted(attempt=given.attempt, reason=FenceReason.ROOM_FAILED),
        ]
    return [
        RoomCreated(attempt=given.attempt, room=given.room, room_sid=given.room_sid),
        AgentDispatched(attempt=given.attempt, agent_name=given.agent_name),
    ]


def turn_granted(callee: Callee, call: Call, given: TurnGranted, now: datetime) -> Decisions:
    """Start the dial and say why it is allowed (promise 3)."""
    assert call.attempt is not None
    assert callee.suppressed is None, "a suppression fences every active call"
    if call.attempt.number != given.attempt:
        return []
    if now >= call.not_after:
        return [FenceStarted(attempt=given.attempt, reason=FenceReason.EXPIRED)]
    permit = Permit(
        policy=POLICY_VERSION,
        window=WINDOW,
        zones=call.zones,
        region=call.region,
        consent_id=call.consent_id,
        consent_kind=call.consent_kind,
        attempts_before=call.dials,
        openings_before=call.openings - 1,
        suppressed=False,
        control=given.control,
    )
    return [DialStarted(attempt=given.attempt, trunk=given.trunk, caller_id=given.caller_id, permit=permit)]


def room_lost(callee: Callee, call: Call, given: LegGone | AgentSilent, now: datetime) -> Decisions:
    """Give the attempt up: its room or its agent went before anything rang."""
    del callee, now
    if call.attempt is None or call.attempt.number != given.attempt:
        return []
    return agent_unavailable(given.attempt)


def agent_unavailable(attempt: int) -> Decisions:
    """Say that no agent will speak in this attempt, and take its room down."""
    return [
        AgentUnavailable(attempt=attempt),
        FenceStarted(attempt=attempt, reason=FenceReason.AGENT_UNAVAILABLE),
    ]


def opening_deadline(call: Call) -> datetime:
    """Return when an attempt without a ready agent, or without its turn, is given up, or the call expires."""
    assert call.attempt is not None
    patience = READY_MAX if call.phase is Phase.READY else AGENT_READY_TIMEOUT
    return min(call.not_after, call.attempt.opened_at + patience)


def too_late(callee: Callee, call: Call, given: DeadlinePassed, now: datetime) -> Decisions:
    """Give up waiting for the agent, or for the trunk's turn, or expire."""
    del callee, given
    assert call.attempt is not None
    attempt = call.attempt.number
    if now >= call.not_after:
        return [FenceStarted(attempt=attempt, reason=FenceReason.EXPIRED)]
    if now < opening_deadline(call):
        return []
    if call.phase is Phase.READY:
        return [FenceStarted(attempt=attempt, reason=FenceReason.TURN_OVERDUE)]
    return agent_unavailable(attempt)
