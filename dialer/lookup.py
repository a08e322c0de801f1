"""Looks a campaign's definition up while its call waits; unreachable delays only the calls that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from dialer.callee import inputs as i
from dialer.callee.inputs import Verdict
from dialer.callee.state import Call
from dialer.campaigns import Definition, NotFound, Unreachable
from dialer.prepare import open_variables, prepare
from dialer.unsealing import broken
from runtime.seal import SealBroken
from schemas.outcomes import Refusal

if TYPE_CHECKING:
    from dialer.effector import Shared
    from dialer.ownership import Ownership

BACKOFF_S: Final = 1.0
BACKOFF_MAX_S: Final = 30.0


async def look_up(ownership: Ownership, shared: Shared, callee_key: str, call: Call) -> None:
    """Find the definition, however long it takes; the call's own expiry withdraws this."""
    backoff_s = BACKOFF_S
    while ownership.alive:
        found = await shared.campaigns.find(call.campaign_id)
        match found:
            case Definition():
                try:
                    verdict = _verdict(ownership, shared, callee_key, call, found)
                except SealBroken:
                    broken(call.call_id)
                    return  # nothing is decided by what cannot be read: the call waits for its expiry, or for a repair
            case NotFound():
                verdict = Refusal.UNKNOWN_CAMPAIGN
            case Unreachable():
                await shared.clock.sleep(backoff_s)
                backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)
                continue
            case _:
                assert_never(found)
        defined = i.Defined(
            id=f"definition/{call.call_id}", at=shared.clock.now(), call_id=call.call_id, verdict=verdict
        )
        ownership.offer(callee_key, defined)
        return


def _verdict(ownership: Ownership, shared: Shared, callee_key: str, call: Call, found: Definition) -> Verdict:
    key = ownership.keys.find(callee_key)
    variables = None if call.variables is None else open_variables(key, callee_key, call.variables)
    if key is None or variables is None:
        return Refusal.MISSING_VARIABLE
    return prepare(found, variables, call.region, key, callee_key, shared.clock.random_bytes)
