"""A phone plays its script: it listens to the room, speaks, presses keys and hangs up, as a person or a machine would."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, assert_never

import numpy as np
from livekit import rtc

from rehearsal import voice
from rehearsal.ear import RECORDING_MAX_S, Ear
from rehearsal.espeak import Samples
from rehearsal.marks import Mark, Side
from rehearsal.script import (
    LANGUAGES,
    AwaitKey,
    Beep,
    HangUp,
    Hear,
    Interrupt,
    Pause,
    Press,
    Record,
    Say,
    Script,
    Step,
)
from rehearsal.talk import SAMPLE_RATE, Talk

LOOK_EVERY_S: Final = 0.05
KEY_MS: Final = 100.0
"""A key's tone on the line."""
_SOUNDING_S: Final = 0.2
_DTMF: Final = "0123456789*#ABCD"
"""RFC 4733: the place of a key is its event's code."""


_Holds = Callable[[], bool]


class GaveUp(Exception):
    """The phone waited in vain, and hangs up."""


class Performance:
    """One script on one line; what happens is written into `talk`."""

    def __init__(self, script: Script, language: str, source: rtc.AudioSource, room: rtc.Room, talk: Talk) -> None:
        """`language`: one of `script.LANGUAGES`."""
        self._script, self._language = script, language
        self._source, self._room, self.talk = source, room, talk
        self.ear: Ear | None = None
        self.said: list[tuple[int, Samples]] = []
        """What was sent: its place on the axis of the answer, in samples, and its sound."""
        self._heard_until = 0.0
        self._keys = asyncio.Queue[str](maxsize=64)
        room.on("sip_dtmf_received", self._on_key)

    def answered(self, ear: Ear) -> None:
        """Begin to listen: the axis of time is the ear's."""
        self.ear = ear

    async def run(self) -> None:
        """Play it; returns when the phone hangs up, and never when the script leaves that to the caller."""
        try:
            for step in self._script.steps:
                if isinstance(step, HangUp):
                    break
                await self._do(step)
            else:
                self.talk.finished = True
                await asyncio.get_running_loop().create_future()
            self.talk.finished = True
        except GaveUp:
            return

    def on_mark(self, mark: Mark, first: int) -> None:
        """Write down a mark that the far end sent."""
        what = "mark_begin" if mark.side is Side.BEGIN else "mark_end"
        begin, end = ((first + at) * 1000 / SAMPLE_RATE for at in (mark.start, mark.end))
        self.talk.add(what, str(mark.code), begin, end)

    def over(self) -> None:
        """Write down that the line is gone."""
        if self.ear is not None:
            self.talk.over_ms = round(self._ms(), 1)

    def recording(self) -> Samples:
        """Return all that was said, on the axis of the answer."""
        length = min(max((at + len(sound) for at, sound in self.said), default=0), RECORDING_MAX_S * SAMPLE_RATE)
        whole = np.zeros(length, dtype=np.int16)
        for at, sound in self.said:
            room = max(0, min(len(sound), length - at))
            whole[at : at + room] = sound[:room]
        return whole

    # -- steps --------------------------------------------------------------------------------------------------------

    async def _do(self, step: Step) -> None:
        match step:
            case Say():
                language = LANGUAGES[self._language]
                sound = await asyncio.to_thread(voice.spoken, step.lines[self._language], language)
                await self._send("say", step.lines[self._language], sound)
            case Beep():
                await self._send("beep", "", voice.beep(step.ms))
            case Pause():
                await asyncio.sleep(step.seconds)
            case Hear():
                await self._hear(step)
            case Interrupt():
                await self._until(lambda: self._sounding_s() >= step.after_s, step.within_s)
            case Record():
                self._now("record")
                await asyncio.sleep(step.seconds)
                raise GaveUp
            case Press():
                await self._press(step.key)
            case AwaitKey():
                await self._await_key(step)
            case HangUp():
                raise GaveUp
            case _:
                assert_never(step)

    async def _send(self, what: str, text: str, sound: Samples) -> None:
        began_ms = self._ms()
        self.said.append((round(began_ms * SAMPLE_RATE / 1000), sound))
        await voice.send(sound, self._source)
        self.talk.add(what, text, began_ms, began_ms + len(sound) * 1000 / SAMPLE_RATE)
        if self._sounding_s() < 0:  # who was spoken over and fell silent is waited for; who goes on is heard out
            self._heard_until = self._listening().sounded_at

    async def _hear(self, step: Hear) -> None:
        """A turn of the far end's: sound since the last one, and then quiet."""
        ear = self._listening()

        def turn_over() -> bool:
            spoke = ear.sounded_at > self._heard_until
            return spoke and time.monotonic() - ear.sounded_at >= step.quiet_s

        await self._until(turn_over, step.within_s)
        self._heard_until = ear.sounded_at

    async def _until(self, holds: _Holds, within_s: float) -> None:
        """Wait for something that is heard; who speaks on is listened to. Raises: GaveUp."""
        ear, deadline = self._listening(), time.monotonic() + within_s
        while not holds():
            if time.monotonic() > max(deadline, ear.sounded_at + within_s):
                raise GaveUp
            await asyncio.sleep(LOOK_EVERY_S)

    def _sounding_s(self) -> float:
        ear = self._listening()
        now = time.monotonic()
        return now - ear.sounding_since if now - ear.sounded_at < _SOUNDING_S else -math.inf

    async def _press(self, key: str) -> None:
        """As livekit-sip does with a key of its caller's: a data packet to the room (pkg/sip/outbound.go)."""
        self._now("press", key)
        await self._room.local_participant.publish_dtmf(code=_DTMF.index(key), digit=key)
        await asyncio.sleep(KEY_MS / 1000)

    async def _await_key(self, step: AwaitKey) -> None:
        try:
            async with asyncio.timeout(step.within_s):
                await self._keys.get()
        except TimeoutError:
            raise GaveUp from None

    def _on_key(self, dtmf: rtc.SipDTMF) -> None:
        if self.ear is None:  # before the answer there is nobody
            return
        self._now("key", dtmf.digit)
        if not self._keys.full():
            self._keys.put_nowait(dtmf.digit)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _listening(self) -> Ear:
        assert self.ear is not None, "a script begins with the answer"
        return self.ear

    def _ms(self) -> float:
        return (time.monotonic() - self._listening().answered_at) * 1000

    def _now(self, what: str, text: str = "") -> None:
        self.talk.add(what, text, self._ms(), self._ms())
