"""A one-way call with `answering_machine: off`: wait for the answer, speak the message, be sure that it was heard.

Delivered means: every frame played out, and the callee there to the end of it. Source: design §6.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, Literal

from agent.leg import Ending, Leg
from agent.recording import Recorder
from agent.reporter import Reporter
from agent.speech import Spoken
from agent.voice import Voice
from schemas.brief import Brief
from schemas.facts import CalleeHungUp, ConversationStarted, NotificationDelivered

CALLEE_TIMEOUT_S: Final = 330.0
"""Readiness to the callee's participant: the call may queue for its trunk all that time. The dialer takes the room down
after 240 s, LiveKit after 300 s; this is for a room that neither of them ends."""
GRACE_S: Final = 60.0
"""How much longer than the ring itself the agent waits for the answer."""
LISTENER_TIMEOUT_S: Final = 5.0
LAST_WORD_S: Final = 0.3
"""What is played out is heard this much later at most: network, jitter buffers, the phone."""
TAIL_S: Final = 1.0
"""Silence before the hang-up, the last word's way to the phone included."""
SETTLE_S: Final = 2.0

Reason = Literal["delivered", "callee_left", "no_callee", "failed", "cancelled", "too_long"]


async def run(brief: Brief, leg: Leg, voice: Voice, message: Spoken, reporter: Reporter, recorder: Recorder) -> Reason:
    """Take the call from readiness to its end; whoever is still on the line then is hung up on by the caller of this."""
    if not await leg.comes(leg.seen, CALLEE_TIMEOUT_S):
        return _reason(leg, "no_callee")
    if not await leg.comes(leg.answered, brief.ring_timeout_s + GRACE_S):
        return _reason(leg, "too_long")
    try:
        async with asyncio.timeout(brief.max_call_duration_s):
            if not await recorder.answered(voice):
                return _reason(leg, "failed")
            return await _deliver(leg, voice, message, reporter)
    except TimeoutError:
        return "too_long"


async def _deliver(leg: Leg, voice: Voice, message: Spoken, reporter: Reporter) -> Reason:
    over: asyncio.Future[Any] = leg.over
    if not await voice.has_listener(over, LISTENER_TIMEOUT_S):
        return _early(leg, 0, reporter)

    def started() -> None:
        took_ms = round((time.monotonic() - leg.answered_at) * 1000)
        reporter.say(ConversationStarted, answer_to_audio_ms=took_ms)

    played = await voice.play(message, over, started)
    if not played.whole or not await leg.lasts(LAST_WORD_S):
        return _early(leg, played.spoken_ms, reporter)
    reporter.say(NotificationDelivered, spoken_ms=played.spoken_ms)
    await leg.lasts(TAIL_S - LAST_WORD_S)
    await reporter.settled(SETTLE_S)
    return "delivered"


def _early(leg: Leg, spoken_ms: int, reporter: Reporter) -> Reason:
    """Say who ended it before the message was over."""
    if leg.over.done() and leg.over.result() is Ending.CALLEE_LEFT:
        reporter.say(CalleeHungUp, spoken_ms=spoken_ms)
    return _reason(leg, "failed")


def _reason(leg: Leg, otherwise: Reason) -> Reason:
    if not leg.over.done():
        return otherwise
    reasons: dict[Ending, Reason] = {
        Ending.CALLEE_LEFT: "callee_left",
        Ending.ROOM_CLOSED: "cancelled",
        Ending.ROOM_LOST: "failed",
    }
    return reasons[leg.over.result()]
