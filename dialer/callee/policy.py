"""The figures the core decides by, each with its reason; campaigns set the rest in their rules."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from schemas.events import Rules

POLICY_VERSION: Final = "s1"
"""Cited by every permit. S1 has no calling hours: `window` says so, and the process refuses real phones."""
WINDOW: Final = "none"
OPENINGS_MAX: Final = 10
"""Openings that cost no ring: beyond it the agents are taken to be gone."""
LIFETIME_MAX: Final = timedelta(hours=24)
"""A call without `not_after` expires after this."""
AGENT_READY_TIMEOUT: Final = timedelta(seconds=30)
"""Room asked for to agent ready: `create_room` (10 s), dispatch, join, synthesis."""
READY_MAX: Final = timedelta(seconds=240)
"""How long an attempt waits for the trunk's turn: LiveKit closes a room without a callee after 300 s."""
RING_MARGIN: Final = timedelta(seconds=10)
"""A phone seen to ring is given the ring timeout from then on, and this much: what is told of it may be a backlog's."""
DIAL_MARGIN: Final = timedelta(seconds=25)
"""A dial request outlives the ring timeout by 15 s at most; 10 s more for its outcome to arrive."""
TALK_MARGIN: Final = timedelta(seconds=30)
"""LiveKit ends a call at its maximum duration; this much later we do."""
SETTLE_GRACE: Final = timedelta(seconds=10)
"""After the fence, how long the dial's outcome and the agent's last word are waited for."""
LEG_MAX: Final = timedelta(seconds=80)
"""No LiveKit request outlives this (reference/livekit.md 4.4)."""
UNDIALED_FENCE_MAX: Final = timedelta(seconds=120)
"""A fence of an attempt that never dialed is given up after this: no leg can be in it."""
ADOPT_GRACE: Final = timedelta(seconds=5)
"""After a take-over nothing on the phone is overdue for so long: LiveKit is asked, and what was seen meanwhile is read."""
FENCE_MIN: Final = timedelta(seconds=30)
"""A fence is tried for so long however late it begins, as after an outage: two answers 1 s apart, and the backlog."""
FACTS_COPIED_FOR: Final = timedelta(hours=24)
"""Late facts of a closed call are copied for so long (recordings end after calls)."""
BACKOFF_MAX_S: Final = 60


def backoff(times: int) -> timedelta:
    """Return the wait after the n-th opening that cost no ring: 1, 2, 4 … 60 s."""
    return timedelta(seconds=min(BACKOFF_MAX_S, 2 ** max(0, min(times, 10) - 1)))


def longest_leg(dialed_at: datetime, rules: Rules) -> datetime:
    """Return when the last possible leg of a dial is certainly gone."""
    return dialed_at + LEG_MAX + timedelta(seconds=rules.ring_timeout_s + rules.max_call_duration_s)
