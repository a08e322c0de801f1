"""A one-way call: wait for the answer, speak the message, be sure that it was heard.

Delivered means: every frame played out, and the callee there to the end of it. With `answering_machine: off` nothing is
listened to; with a policy the agent listens while it speaks, and only a machine stops the message. Source: design §6.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from livekit import rtc

from agent.attending import Attending
from agent.ear import Ear
from agent.ending import Ended, Reason, reached, reason_of
from agent.leg import Ending, Leg, first_of
from agent.reception import LAST_WORD_S, TAIL_S, Policy, Reception
from agent.recording import Recorder
from agent.reporter import Reporter
from agent.speech import Spoken, synthesize
from agent.voice import Played, Voice
from runtime.settings import Settings
from schemas.brief import Brief
from schemas.facts import CalleeHungUp, ConversationStarted, NotificationDelivered

LISTENER_TIMEOUT_S: Final = 5.0
SETTLE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """All that a one-way call may say, as sound, before anybody is rung."""

    message: Spoken
    policy: Policy


async def prepare(brief: Brief, settings: Settings) -> Script:
    """Synthesise what the call may say. Raises: SpeechFailed."""
    words, machine = brief.words, brief.conversation.machine
    texts = {"message": brief.message}
    if listens(brief):
        texts |= {"voicemail": words.voicemail or "", "introduction": words.introduction or ""}
    named = {name: text for name, text in texts.items() if text}
    sounds = await asyncio.gather(*(synthesize(text, brief.language, settings) for text in named.values()))
    spoken = dict(zip(named, sounds, strict=True))
    message = spoken["message"]
    policy = Policy(
        machine=machine, voicemail=spoken.get("voicemail"), introduction=spoken.get("introduction", message)
    )
    return Script(message=message, policy=policy)


def listens(brief: Brief) -> bool:
    """Tell whether the call needs an ear."""
    return brief.conversation.machine != "off"


def attend(
    room: rtc.Room, brief: Brief, settings: Settings, on_words: Callable[[str], None] | None = None
) -> Attending | None:
    """Subscribe to the callee's sound where the campaign asks for it; None where it does not, and nothing is heard."""
    if not listens(brief):
        return None
    return Attending(Ear.attach(room, brief.callee_identity), settings, brief.language, on_words)


async def run(
    brief: Brief,
    leg: Leg,
    voice: Voice,
    script: Script,
    reporter: Reporter,
    recorder: Recorder,
    attending: Attending | None,
) -> Reason:
    """Take the call from readiness to its end; whoever is still on the line then is hung up on by the caller of this."""
    try:
        await reached(leg, brief.ring_timeout_s)
    except Ended as ended:
        return ended.reason
    try:
        async with asyncio.timeout(brief.max_call_duration_s):
            if attending is not None:
                attending.start()  # before the recording, which may take a second: a machine speaks at once
            if not await recorder.answered(voice):
                return reason_of(leg, "failed")
            if attending is None:
                return await _deliver(leg, voice, script.message, reporter)
            reception = Reception(attending, script.policy, voice, leg, reporter)
            return await _deliver_to_person(leg, voice, script.message, reporter, reception)
    except TimeoutError:
        return "too_long"
    finally:
        if attending is not None:
            await attending.close()


async def _deliver(leg: Leg, voice: Voice, message: Spoken, reporter: Reporter) -> Reason:
    """Speak the message to whoever answered, and listen to nobody."""
    if not await voice.has_listener(leg.over, LISTENER_TIMEOUT_S):
        return _early(leg, 0, reporter)
    played = await voice.play(message, leg.over, lambda: _started(leg, reporter))
    return await _delivered(leg, played, reporter)


async def _deliver_to_person(
    leg: Leg, voice: Voice, message: Spoken, reporter: Reporter, reception: Reception
) -> Reason:
    """Speak the message while listening: a machine stops it, and nothing else does."""
    if not await voice.has_listener(leg.over, LISTENER_TIMEOUT_S):
        return _early(leg, 0, reporter)
    first = iter([lambda: _started(leg, reporter)])
    while True:
        watching = asyncio.create_task(reception.machine(), name="watch for a machine")
        judged = asyncio.create_task(reception.judged.wait(), name="wait for a verdict")
        try:
            played = await voice.play(message, first_of(leg.over, watching), next(first, lambda: None))
            if played.whole and not reception.judged.is_set():
                # It was short, and who hears it is not known yet: a machine's greeting may be longer than it.
                await first_of(leg.over, watching, judged)
            if leg.over.done() or not watching.done():
                return await _delivered(leg, played, reporter)
            machine = watching.result()
        finally:
            watching.cancel()
            judged.cancel()
        met = await reception.meet(machine)
        if met == "left":
            return _early(leg, reception.spoken_ms, reporter)
        if met != "person":
            await reporter.settled(SETTLE_S)
            return met


def _started(leg: Leg, reporter: Reporter) -> None:
    took_ms = round((time.monotonic() - leg.answered_at) * 1000)
    reporter.say(ConversationStarted, answer_to_audio_ms=took_ms)


async def _delivered(leg: Leg, played: Played, reporter: Reporter) -> Reason:
    """Say that the message was delivered, if it was."""
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
    return reason_of(leg, "failed")
