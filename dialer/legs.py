"""What is done about one attempt's room and leg: open, dial through the gate, fence.

`_through_gate` is the one caller of `Telephony.dial`: it asks the gate and sends with nothing awaited in between.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Final

from dialer import gate
from dialer.callee import inputs as i
from dialer.callee.owed import Abandon, Fence
from dialer.callee.state import Call, Phase
from dialer.telephony import DialAnswer, DialRequest, RoomRequest
from dialer.trunks import caller_id_for
from dialer.unsealing import Unreadable, message_of, number_of
from runtime import metrics
from runtime.logs import Log
from schemas.brief import Brief
from schemas.conversation import PLAIN
from schemas.observations import DialOutcome
from schemas.outcomes import Withdrawal
from schemas.steps import Step
from schemas.values import attempt_id, callee_identity, room_name

if TYPE_CHECKING:
    from dialer.effector import Shared
    from dialer.ownership import Ownership

EMPTY_TIMEOUT_S: Final = 300
DEPARTURE_TIMEOUT_S: Final = 20
GATE_EVERY_S: Final = 0.02
FENCE_APART_S: Final = 1.0
FENCE_BACKOFF_MAX_S: Final = 10.0
FENCE_ALARM_AFTER_S: Final = 20.0
"""A fence that is not confirmed by then is alarmed: the callee waits for it."""
STRAY_TRIES_MAX: Final = 8
OPEN_AGAIN_S: Final = 0.1
MEMBERSHIP_MARGIN_S: Final = 3.0
TAKEN_OVER: Final = "taken_over"
"""`room_failed` of an attempt whose owner changed before its room was answered for."""

log = Log("dialer.legs")


async def open_room(ownership: Ownership, shared: Shared, callee_key: str, call: Call) -> None:
    """Make the attempt's room with its agent dispatch, in one request, the only one ever for this room."""
    assert call.attempt is not None
    assert call.rules is not None
    attempt, rules = call.attempt.number, call.rules
    room = room_name(call.call_id, attempt)
    ok, sid, code = False, "", ""
    try:
        key, message, words = message_of(ownership.keys, callee_key, call)
    except Unreadable as unreadable:
        code = str(unreadable)
    else:
        if not await _may_open(ownership, shared, callee_key, call):
            return
        brief = Brief(
            call_id=call.call_id,
            attempt=attempt,
            campaign_id=call.campaign_id,
            campaign_hash=call.campaign_hash,
            type="two_way" if rules.type == "two_way" else "one_way",
            language=rules.language,
            message=message,
            callee_identity=callee_identity(call.call_id, attempt),
            ring_timeout_s=rules.ring_timeout_s,
            max_call_duration_s=rules.max_call_duration_s,
            data_key_id=key.key_id,
            data_key=base64.urlsafe_b64encode(key.secret).decode(),
            conversation=rules.conversation or PLAIN,
            words=words,
        )
        request = RoomRequest(
            name=room,
            agent_name=shared.agent_name,
            agent_metadata=shared.brief_box.seal(brief, shared.clock.random_bytes),
            room_metadata=f'{{"call_id":"{call.call_id}","attempt":{attempt}}}',
            empty_timeout_s=EMPTY_TIMEOUT_S,
            departure_timeout_s=DEPARTURE_TIMEOUT_S,
        )
        shared.clock.passing(Step.ROOM_ASKING)
        answer = await shared.telephony.create_room(request)
        shared.clock.passing(Step.ROOM_ANSWERED)
        ok, sid, code = answer.ok, answer.sid, answer.code
    ownership.offer(callee_key, _room_answered(shared, call.call_id, attempt, ok=ok, sid=sid, code=code))


def abandoned(shared: Shared, effect: Abandon) -> i.RoomAnswered:
    """Say of a room that another ownership asked for that nobody will know what became of it."""
    return _room_answered(shared, effect.call_id, effect.attempt, ok=False, sid="", code=TAKEN_OVER)


def _room_answered(shared: Shared, call_id: str, attempt: int, *, ok: bool, sid: str, code: str) -> i.RoomAnswered:
    return i.RoomAnswered(
        id=f"room/{attempt_id(call_id, attempt)}",
        at=shared.clock.now(),
        call_id=call_id,
        attempt=attempt,
        ok=ok,
        room=room_name(call_id, attempt),
        room_sid=sid,
        agent_name=shared.agent_name,
        code=code,
    )


async def _may_open(ownership: Ownership, shared: Shared, callee_key: str, call: Call) -> bool:
    """Wait until this process is known to own the partition still; False where the attempt is not to be opened any more.

    One that slept may wake behind another owner's fence: a room that it made then would stand there for nobody.
    """
    assert call.attempt is not None
    while ownership.alive:
        callee = ownership.committed(callee_key)
        now = callee.calls.get(call.call_id) if callee is not None else None
        if now is None or now.phase is not Phase.OPENING or now.attempt is None:
            return False
        if shared.sight.membership_age_s() <= shared.session_timeout_s - MEMBERSHIP_MARGIN_S:
            return now.attempt.number == call.attempt.number
        await shared.clock.sleep(OPEN_AGAIN_S)
    return False


async def dial(ownership: Ownership, shared: Shared, callee_key: str, call: Call, decided_at: float) -> DialOutcome:
    """Pass the gate and ring, or say why not; whatever happens, there is an outcome."""
    assert call.attempt is not None
    assert call.rules is not None
    attempt, rules = call.attempt.number, call.rules
    try:
        to = number_of(ownership.keys, callee_key, call)
    except Unreadable as unreadable:
        return DialOutcome(attempt=attempt, result="failed", code="not_sent", phrase=str(unreadable))
    trunk = shared.trunks.get(rules.trunk)
    trunk_id = shared.trunk_ids.get(rules.trunk)
    if trunk is None or trunk_id is None:
        return DialOutcome(attempt=attempt, result="failed", code="not_sent", phrase="no_such_trunk")
    request = DialRequest(
        room=room_name(call.call_id, attempt),
        identity=callee_identity(call.call_id, attempt),
        attempt_id=attempt_id(call.call_id, attempt),
        to=to,
        trunk_id=trunk_id,
        caller_id=caller_id_for(trunk, call.call_id),
        ring_timeout_s=rules.ring_timeout_s,
        max_call_duration_s=rules.max_call_duration_s,
    )
    answer = await _through_gate(ownership, shared, callee_key, call, request, decided_at)
    if isinstance(answer, Withdrawal):
        return DialOutcome(attempt=attempt, result="withheld", withheld=answer.value)
    shared.clock.passing(Step.DIAL_ANSWERED)
    return DialOutcome(
        attempt=attempt, result=answer.result, sip_status=answer.sip_status, code=answer.code, phrase=answer.phrase
    )


async def _through_gate(
    ownership: Ownership, shared: Shared, callee_key: str, call: Call, request: DialRequest, decided_at: float
) -> DialAnswer | Withdrawal:
    while True:
        verdict, reason = gate.judge(_view(ownership, shared, callee_key, call, decided_at))
        if verdict is gate.Verdict.OPEN:
            metrics.GATE.labels("open").inc()
            shared.clock.passing(Step.DIAL_GATED)
            return await shared.telephony.dial(request)
        assert reason is not None
        # the last look comes before the dial is too old, so that what was waited for is the reason that is recorded
        waited_out = shared.clock.monotonic() - decided_at + GATE_EVERY_S > gate.DIAL_AGE_MAX_S
        if verdict is gate.Verdict.REFUSED or waited_out:
            metrics.GATE.labels(reason.value).inc()
            shared.pacer.withdraw(request.attempt_id)
            return reason
        await shared.clock.sleep(GATE_EVERY_S)


def _view(ownership: Ownership, shared: Shared, callee_key: str, call: Call, decided_at: float) -> gate.View:
    assert call.attempt is not None
    attempt, clock, sight = call.attempt.number, shared.clock, shared.sight
    callee = ownership.committed(callee_key)
    mono = clock.monotonic()
    return gate.View(
        attempt=attempt,
        call=callee.calls.get(call.call_id) if callee is not None else None,
        owned=ownership.alive,
        membership_age_s=sight.membership_age_s(),
        membership_age_max_s=shared.session_timeout_s - MEMBERSHIP_MARGIN_S,
        dial_age_s=mono - decided_at,
        dial_age_wall_s=gate.wall_age_s(clock.now(), call.attempt.dialed_at),
        stops_age_s=sight.stops_age_s(ownership),
        control_age_s=sight.control_age_s(),
        stopped=sight.stopped(call.campaign_id),
        suppressed=callee is not None and callee.suppressed is not None,
        readiness_age_s=ownership.agents.readiness_age_s(call.call_id, attempt),
        skew_s=ownership.agents.skew_s,
        draining=shared.draining,
        spend=lambda: shared.pacer.spend(attempt_id(call.call_id, attempt), clock.monotonic()),
    )


async def fence(
    ownership: Ownership, shared: Shared, callee_key: str, effect: Fence, opening: asyncio.Task[None] | None
) -> None:
    """Take the room down until two answers, a second apart and with no leg between, say that it is gone."""
    room = room_name(effect.call_id, effect.attempt)
    if opening is not None:
        await asyncio.wait([opening])
    backoff_s, began, alarmed = FENCE_APART_S, shared.clock.monotonic(), False
    while ownership.alive:
        shared.clock.passing(Step.FENCE_ASKING)
        first = await shared.telephony.delete_room(room)
        shared.clock.passing(Step.FENCE_ANSWERED)
        if first != "failed":
            await shared.clock.sleep(FENCE_APART_S)
            legs = await shared.telephony.legs(room)
            second = await shared.telephony.delete_room(room)
            # where LiveKit cannot say (it cannot of a room that is gone, 4.9), two answers of delete_room are enough
            seen = any(leg.kind == "sip" for leg in legs or ())
            if seen:
                _alarm_leg(effect.call_id, effect.attempt)
            if second == "not_found" and not seen:
                fenced = i.Fenced(
                    id=f"fence/{attempt_id(effect.call_id, effect.attempt)}",
                    at=shared.clock.now(),
                    call_id=effect.call_id,
                    attempt=effect.attempt,
                )
                ownership.offer(callee_key, fenced)
                return
        if not alarmed and shared.clock.monotonic() - began > FENCE_ALARM_AFTER_S:
            alarmed = True
            metrics.ALARMS.labels("fence_unconfirmed").inc()
            log.alarm("a fence cannot be confirmed", call_id=effect.call_id, attempt=effect.attempt)
        await shared.clock.sleep(backoff_s)
        backoff_s = min(FENCE_BACKOFF_MAX_S, backoff_s * 2)


async def hang_up_stray(shared: Shared, call_id: str, attempt: int) -> None:
    """Hang up a leg that came into the room of an attempt that is over, where it is still there: the fence should hold."""
    room = room_name(call_id, attempt)
    if not any(leg.kind == "sip" for leg in await shared.telephony.legs(room) or ()):
        return
    _alarm_leg(call_id, attempt)
    backoff_s = FENCE_APART_S
    for _ in range(STRAY_TRIES_MAX):
        if await shared.telephony.delete_room(room) != "failed":
            return
        await shared.clock.sleep(backoff_s)
        backoff_s = min(FENCE_BACKOFF_MAX_S, backoff_s * 2)


def _alarm_leg(call_id: str, attempt: int) -> None:
    metrics.ALARMS.labels("leg_in_fenced_room").inc()
    log.alarm("a leg came into a fenced room; it is hung up", call_id=call_id, attempt=attempt)
