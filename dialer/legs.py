"""What is done about one attempt's room and leg: open, dial through the gate, adopt, fence.

`_through_gate` is the one caller of `Telephony.dial`: it asks the gate and sends with nothing awaited in between.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Final

from dialer import gate
from dialer.callee import inputs as i
from dialer.callee.owed import Adopt, Fence
from dialer.callee.state import Call
from dialer.prepare import open_message, open_number
from dialer.telephony import DialAnswer, DialRequest, RoomRequest
from dialer.trunks import caller_id_for
from runtime import metrics
from runtime.logs import Log
from schemas.brief import Brief
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
ADOPT_EVERY_S: Final = 2.0
MEMBERSHIP_MARGIN_S: Final = 3.0

log = Log("dialer.legs")


async def open_room(ownership: Ownership, shared: Shared, callee_key: str, call: Call) -> None:
    """Make the attempt's room with its agent dispatch, in one idempotent request."""
    assert call.attempt is not None
    assert call.rules is not None
    attempt, rules = call.attempt.number, call.rules
    room = room_name(call.call_id, attempt)
    key = ownership.keys.find(callee_key)
    message = None if call.message is None else open_message(key, callee_key, call.message)
    ok, sid, code = False, "", "key_gone"
    if key is not None and message is not None and ownership.alive:
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
    answered = i.RoomAnswered(
        id=f"room/{attempt_id(call.call_id, attempt)}",
        at=shared.clock.now(),
        call_id=call.call_id,
        attempt=attempt,
        ok=ok,
        room=room,
        room_sid=sid,
        agent_name=shared.agent_name,
        code=code,
    )
    ownership.offer(callee_key, answered)


async def dial(ownership: Ownership, shared: Shared, callee_key: str, call: Call, decided_at: float) -> DialOutcome:
    """Pass the gate and ring, or say why not; whatever happens, there is an outcome."""
    assert call.attempt is not None
    assert call.rules is not None
    attempt, rules = call.attempt.number, call.rules
    to = open_number(ownership.keys.find(callee_key), callee_key, call.to)
    trunk = shared.trunks.get(rules.trunk)
    trunk_id = shared.trunk_ids.get(rules.trunk)
    if to is None or trunk is None or trunk_id is None:
        code = "key_gone" if to is None else "no_such_trunk"
        return DialOutcome(attempt=attempt, result="failed", code="not_sent", phrase=code)
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
        readiness_age_s=ownership.agents.age_s(call.call_id, attempt),
        skew_s=ownership.agents.skew_s,
        draining=shared.draining,
        spend=lambda: shared.pacer.spend(attempt_id(call.call_id, attempt), clock.monotonic()),
    )


async def adopt(ownership: Ownership, shared: Shared, callee_key: str, effect: Adopt) -> None:
    """Look after a leg that another process dialed: it goes on while it is there."""
    room = room_name(effect.call_id, effect.attempt)
    identity = callee_identity(effect.call_id, effect.attempt)
    while ownership.alive:
        legs = await shared.telephony.legs(room)
        if legs is not None and not any(leg.identity == identity for leg in legs):
            gone = i.LegGone(
                id=f"adopt/{attempt_id(effect.call_id, effect.attempt)}",
                at=shared.clock.now(),
                call_id=effect.call_id,
                attempt=effect.attempt,
            )
            ownership.offer(callee_key, gone)
            return
        await shared.clock.sleep(ADOPT_EVERY_S)


async def fence(
    ownership: Ownership, shared: Shared, callee_key: str, effect: Fence, opening: asyncio.Task[None] | None
) -> None:
    """Take the room down until two answers, a second apart and with no leg between, say that it is gone."""
    room = room_name(effect.call_id, effect.attempt)
    if opening is not None:
        await asyncio.wait([opening])
    backoff_s = FENCE_APART_S
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
                metrics.ALARMS.labels("leg_in_fenced_room").inc()
                log.alarm(
                    "a leg came into a fenced room; it was hung up", call_id=effect.call_id, attempt=effect.attempt
                )
            if second == "not_found" and not seen:
                fenced = i.Fenced(
                    id=f"fence/{attempt_id(effect.call_id, effect.attempt)}",
                    at=shared.clock.now(),
                    call_id=effect.call_id,
                    attempt=effect.attempt,
                )
                ownership.offer(callee_key, fenced)
                return
        await shared.clock.sleep(backoff_s)
        backoff_s = min(FENCE_BACKOFF_MAX_S, backoff_s * 2)
