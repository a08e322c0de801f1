"""How a call ends, as the job's last word has it, and the ways out of a conversation."""

from __future__ import annotations

from typing import Final, Literal

from agent.leg import Ending, Leg

Reason = Literal[
    "delivered",
    "conversed",
    "voicemail_left",
    "machine_hung_up",
    "opted_out",
    "transferred",
    "callee_left",
    "no_callee",
    "failed",
    "cancelled",
    "too_long",
]
CALLEE_TIMEOUT_S: Final = 330.0
"""Readiness to the callee's participant: the call may queue for its trunk all that time. The dialer takes the room down
after 240 s, LiveKit after 300 s; this is for a room that neither of them ends."""
GRACE_S: Final = 60.0
"""How much longer than the ring itself the agent waits for the answer."""


class Ended(Exception):
    """The conversation is over; nothing more is to be said."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def reason_of(leg: Leg, otherwise: Reason) -> Reason:
    """Return what the leg's end means; `otherwise` where it has not ended."""
    if not leg.over.done():
        return otherwise
    reasons: dict[Ending, Reason] = {
        Ending.CALLEE_LEFT: "callee_left",
        Ending.ROOM_CLOSED: "cancelled",
        Ending.ROOM_LOST: "failed",
    }
    return reasons[leg.over.result()]


async def reached(leg: Leg, ring_timeout_s: float) -> None:
    """Wait for the answer. Raises: Ended where none comes."""
    if not await leg.comes(leg.seen, CALLEE_TIMEOUT_S):
        raise Ended(reason_of(leg, "no_callee"))
    if not await leg.comes(leg.answered, ring_timeout_s + GRACE_S):
        raise Ended(reason_of(leg, "too_long"))
