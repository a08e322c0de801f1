"""Asks LiveKit before anything is ended that this process does not see for itself: legs that were adopted, silent agents.

1. One look proves nothing: a leg is gone, or alone, when two looks in a row say so, `LOOK_EVERY_S` apart.
2. Where LiveKit cannot say (it is down, or asks a node that is), the agent's renewals say: it is in the room with the leg.
3. A list that shows what is no more (a ghost, reference/livekit.md 4.9) keeps nothing alive: the agent's word ends the call.
Source: design §5 (take-over, dial), promises 2 and 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dialer.agents import SILENT_AFTER_S
from dialer.callee import inputs as i
from dialer.callee.owed import ON_THE_PHONE, Adopt
from dialer.callee.witnessed import ANSWERED
from dialer.gate import READINESS_AGE_MAX_S
from dialer.telephony import Leg
from schemas.values import attempt_id, callee_identity, callee_of, room_name

if TYPE_CHECKING:
    from dialer.effector import Shared
    from dialer.ownership import Ownership

LOOK_EVERY_S: Final = 2.0
LOOKS: Final = 2
LOST_AFTER_S: Final = 22.0
"""An agent that has been silent for so long is lost whatever LiveKit lists: it notices a dead machine after 21 s."""
_TOLD: Final = ANSWERED | {"ringing"}


async def adopt(ownership: Ownership, shared: Shared, callee_key: str, effect: Adopt) -> None:
    """Look after a leg whose dial request answers to nobody here: it goes on while it is there, and an agent with it."""
    room, identity = room_name(effect.call_id, effect.attempt), callee_identity(effect.call_id, effect.attempt)
    told, absent, alone = "", 0, 0
    while _on_the_phone(ownership, callee_key, effect):
        listed = await shared.telephony.legs(room)
        leg = next((one for one in listed or () if one.identity == identity), None)
        unheard = ownership.agents.age_s(effect.call_id, effect.attempt) > READINESS_AGE_MAX_S
        absent = absent + 1 if leg is None and (listed is not None or unheard) else 0
        alone = alone + 1 if leg is not None and unheard and not _has_agent(listed) else 0
        if absent == LOOKS:
            ownership.offer(callee_key, _gone(shared, effect))
            return
        if alone == LOOKS:
            lose(ownership, shared, effect.call_id, effect.attempt)
            return
        if leg is not None and leg.call_status in _TOLD - {told}:
            told = leg.call_status
            ownership.offer(callee_key, _seen(shared, effect, told))
        await shared.clock.sleep(LOOK_EVERY_S)


async def doubt(ownership: Ownership, shared: Shared, call_id: str, attempt: int) -> None:
    """Ask LiveKit after an agent that has fallen silent: what is read of it may lag, where it is listed it is not lost yet."""
    listed = await shared.telephony.legs(room_name(call_id, attempt))
    silent_s = ownership.agents.age_s(call_id, attempt)
    if silent_s > LOST_AFTER_S or (silent_s > SILENT_AFTER_S and listed is not None and not _has_agent(listed)):
        lose(ownership, shared, call_id, attempt)


def lose(ownership: Ownership, shared: Shared, call_id: str, attempt: int) -> None:
    """Tell the core that the agent is lost."""
    name, now = f"silent/{attempt_id(call_id, attempt)}", shared.clock.now()
    ownership.offer(callee_of(call_id), i.AgentSilent(id=name, at=now, call_id=call_id, attempt=attempt))


def _on_the_phone(ownership: Ownership, callee_key: str, effect: Adopt) -> bool:
    callee = ownership.committed(callee_key) if ownership.alive else None
    call = callee.calls.get(effect.call_id) if callee is not None else None
    if call is None or call.attempt is None or call.attempt.number != effect.attempt:
        return False
    return call.phase in ON_THE_PHONE


def _has_agent(listed: tuple[Leg, ...] | None) -> bool:
    return any(leg.kind == "agent" for leg in listed or ())


def _gone(shared: Shared, effect: Adopt) -> i.LegGone:
    name, now = f"adopt/{attempt_id(effect.call_id, effect.attempt)}", shared.clock.now()
    return i.LegGone(id=name, at=now, call_id=effect.call_id, attempt=effect.attempt)


def _seen(shared: Shared, effect: Adopt, status: str) -> i.LegSeen:
    name, now = f"adopt/{attempt_id(effect.call_id, effect.attempt)}/{status}", shared.clock.now()
    return i.LegSeen(id=name, at=now, call_id=effect.call_id, attempt=effect.attempt, status=status)
