"""Speaking and hearing at once: what is said is held when the callee speaks, given up when words come of it, gone on with
when they do not.

Everything that happens sets `news`; whoever waits, waits here, and whatever ends a conversation is raised from here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.callee_turns import CalleeTurns
from agent.ending import Ended, reason_of
from agent.history import History
from agent.leg import Leg
from agent.phrases import Name
from agent.speech import Spoken
from agent.utterance import Playing, Utterance
from agent.voice import Voice
from runtime.logs import Log

SILENT_LINE_S: Final = 4.0
"""Silence after the callee's last word that is a defect."""
TAIL_S: Final = 1.0
"""Silence before the hang-up, the last word's way to the phone included."""

log = Log("agent.exchange")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence that was synthesised before anybody was rung."""

    text: str
    sound: Spoken


@dataclass(slots=True, kw_only=True)
class Said:
    """What became of something to say."""

    words: str = ""
    played_ms: int = 0
    whole: bool = False
    began_at: float = 0.0
    """When its first frame was handed over, monotonic; 0: never."""


class Exchange:
    """One call's conversation, as a medium: who says what is decided elsewhere."""

    def __init__(self, leg: Leg, voice: Voice, history: History, sentences: Mapping[Name, Sentence]) -> None:
        self.leg, self._voice, self._history, self._sentences = leg, voice, history, sentences
        self.news = asyncio.Event()
        self.turns = CalleeTurns(self.news)
        self.check: Callable[[], None] = lambda: None
        """Called whenever something happened; may raise what ends the conversation."""
        self.tick_s: float | None = None
        """How often `check` is called where nothing happens; None: never."""
        self.sound_at = time.monotonic()
        """When the agent was last heard."""
        self._timed = 0.0
        """The end of the speech that a reply was timed for last."""
        self.spoken_ms = 0
        self.playing: Playing | None = None
        """What is being said."""
        leg.over.add_done_callback(lambda _: self.news.set())

    async def wait(self, until: float | None = None) -> None:
        """Wait for news, or for a time. Raises: Ended where the leg is over, and what `check` raises."""
        now = time.monotonic()
        times = [at for at in (until, self.turns.due_at) if at is not None]
        if self.tick_s is not None:
            times.append(now + self.tick_s)
        try:
            async with asyncio.timeout(max(0.0, min(times) - now) if times else None):
                await self.news.wait()
        except TimeoutError:
            pass
        self.news.clear()
        self.turns.tick(time.monotonic())
        if self.leg.over.done():
            raise Ended(reason_of(self.leg, "failed"))
        self.check()

    async def say(
        self,
        utterance: Utterance,
        *,
        interrupts: Callable[[CalleeTurns], bool] = lambda _: True,
        spoken_for: float | None = None,
        told: bool = True,
    ) -> Said:
        """Say it, until its end or the callee's words; what was heard of it goes to the history, also when this raises.

        `interrupts`: whether what the callee does counts. `spoken_for`: the end of the speech that this replies to; it is
        timed where it is the first that is said since.
        """
        said = Said()
        if spoken_for == self._timed:
            spoken_for = None
        self.playing = playing = Playing(self._voice, utterance, self.news)

        def began() -> None:
            said.began_at = time.monotonic()
            silent_s = said.began_at - max(spoken_for or 0.0, self.turns.quiet_since)
            if spoken_for is not None and silent_s > SILENT_LINE_S:
                log.warning("the line was silent", silent_ms=round(silent_s * 1000))

        playing.began = began
        try:
            while not playing.done:
                if interrupts(self.turns):
                    if self.turns.words_come:
                        break
                    playing.hold_while(self.turns.speaking)
                await self.wait()
        finally:
            await playing.stop()
            self.playing = None
            said.words, said.played_ms, said.whole = playing.said, playing.played_ms, playing.whole
            if said.began_at:
                self.sound_at, self._timed = playing.sound_at, spoken_for or self._timed
            self._note(said, spoken_for, told=told)
        return said

    async def phrase(self, name: Name, *, interruptible: bool = True, spoken_for: float | None = None) -> Said:
        """Say a sentence of the agent's own."""
        sentence = self._sentences[name]
        utterance = Utterance.of(sentence.text, sentence.sound, self.news)
        return await self.say(utterance, interrupts=lambda _: interruptible, spoken_for=spoken_for, told=name != "wait")

    async def farewell(self, name: Name) -> None:
        """Say the last sentence, and let it be heard to its end."""
        said = await self.phrase(name, interruptible=False)
        if said.whole:
            await self.leg.lasts(TAIL_S)

    def _note(self, said: Said, spoken_for: float | None, *, told: bool) -> None:
        if said.began_at:
            self.spoken_ms += said.played_ms
        if said.words:
            reply_ms = None if spoken_for is None else max(0, round((said.began_at - spoken_for) * 1000))
            self._history.agent(said.words, said.played_ms, whole=said.whole, reply_ms=reply_ms, told=told)
