"""What the agent says while it says it: sound that grows sentence by sentence, can be held, and knows how far it came.

A sentence's sound is padded to whole frames. What of a sentence that was cut off counts as said goes by its words'
length in letters: the recogniser's and the voice's own clocks are not to be had.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from livekit import rtc

from agent.speech import SAMPLE_BYTES, SAMPLE_RATE, Spoken
from agent.voice import FRAME_MS, Voice

_FRAME_SAMPLES: Final = SAMPLE_RATE * FRAME_MS // 1000
_FRAME_BYTES: Final = _FRAME_SAMPLES * SAMPLE_BYTES
_LEAST_WORD_MS: Final = 80
"""A sentence of which less was heard was not begun."""


@dataclass(slots=True)
class _Sentence:
    text: str
    pcm: bytearray = field(default_factory=bytearray)
    whole: bool = False

    @property
    def frames(self) -> int:
        """Return how many frames can be played now; the last one only when it is whole."""
        count, rest = divmod(len(self.pcm), _FRAME_BYTES)
        return count + bool(rest and self.whole)

    def frame(self, number: int) -> bytes:
        return bytes(self.pcm[number * _FRAME_BYTES : (number + 1) * _FRAME_BYTES]).ljust(_FRAME_BYTES, b"\0")

    def said(self, played_ms: int) -> str:
        """Return the words that were heard in so many milliseconds."""
        length_ms = len(self.pcm) * 1000 // (SAMPLE_RATE * SAMPLE_BYTES)
        if self.whole and played_ms >= length_ms:
            return self.text
        if played_ms < _LEAST_WORD_MS or not length_ms:
            return ""
        letters, words = round(len(self.text) * played_ms / length_ms), self.text.split()
        kept: list[str] = []
        while words and len(" ".join([*kept, words[0]])) <= letters:
            kept.append(words.pop(0))
        return " ".join(kept)


class Utterance:
    """One thing to say, in sentences; it may be added to until `finish`."""

    def __init__(self, news: asyncio.Event) -> None:
        self._news = news
        self._sentences: list[_Sentence] = []
        self.finished = False
        self.grown = asyncio.Event()
        """Set when there may be more to play; whoever plays it takes it back."""

    @classmethod
    def of(cls, text: str, sound: Spoken, news: asyncio.Event) -> Utterance:
        """Return one that is there from the beginning."""
        utterance = cls(news)
        utterance.begin(text)
        utterance.feed(sound.pcm)
        utterance.end()
        utterance.finish()
        return utterance

    def begin(self, text: str) -> None:
        """Begin a sentence, after a short pause where it is not the first."""
        pause = _FRAME_BYTES if self._sentences else 0
        self._sentences.append(_Sentence(text, bytearray(pause)))

    def feed(self, pcm: bytes) -> None:
        """Add sound to it."""
        self._sentences[-1].pcm += pcm
        self._tell()

    def end(self) -> None:
        """End the sentence."""
        self._sentences[-1].whole = True
        self._tell()

    def finish(self) -> None:
        """Say that no sentence follows; one that is not whole stays as it is."""
        for sentence in self._sentences:
            sentence.whole = True
        self.finished = True
        self._tell()

    def _tell(self) -> None:
        self.grown.set()
        self._news.set()

    @property
    def frames(self) -> int:
        """Return how many frames can be played now."""
        return sum(sentence.frames for sentence in self._sentences)

    def frame(self, number: int) -> bytes | None:
        """Return a frame; None where it is not there (yet)."""
        for sentence in self._sentences:
            if number < sentence.frames:
                return sentence.frame(number)
            if not sentence.whole:
                return None
            number -= sentence.frames
        return None

    def said(self, played_ms: int) -> str:
        """Return the words that were heard in so many milliseconds."""
        heard: list[str] = []
        for sentence in self._sentences:
            heard.append(sentence.said(played_ms))
            played_ms -= sentence.frames * FRAME_MS
            if played_ms <= 0:
                break
        return " ".join(words for words in heard if words)


class Playing:
    """An utterance on its way to the callee; `news` is set whenever something about it changed."""

    def __init__(self, voice: Voice, utterance: Utterance, news: asyncio.Event) -> None:
        self._voice, self._source, self._utterance, self._news = voice, voice.source, utterance, news
        self._handed = 0
        self._held_at = 0.0
        self._held = self._stopped = self._begun = False
        self._changed = utterance.grown
        self.whole = False
        """Whether all of it was played out."""
        self.began: Callable[[], None] = lambda: None
        """Called when the first frame was handed over."""
        self._task = asyncio.create_task(self._run(), name="playing")
        self._task.add_done_callback(lambda _: news.set())

    @property
    def done(self) -> bool:
        """Tell whether nothing more will be played."""
        return self._task.done()

    @property
    def played_ms(self) -> int:
        """Return how much was played out so far."""
        return max(0, self._handed * FRAME_MS - round(self._source.queued_duration * 1000))

    @property
    def said(self) -> str:
        """Return the words that were heard so far."""
        return self._utterance.said(self.played_ms)

    @property
    def sound_at(self) -> float:
        """Return when it was last to be heard, monotonic seconds."""
        return self._held_at if self._held else time.monotonic()

    def hold_while(self, spoken_into: bool) -> None:
        """Be silent at once and remember where, or speak on from there."""
        if spoken_into and not self._held:
            self._hold()
        elif self._held and not spoken_into:
            self._held = False
            self._changed.set()

    async def stop(self) -> None:
        """Be silent for good."""
        if not self.done:
            self._stopped = True
            self._hold()
        await self._task

    def _hold(self) -> None:
        self._handed = self.played_ms // FRAME_MS
        self._source.clear_queue()
        if not self._held:
            self._held, self._held_at = True, time.monotonic()
        self._changed.set()

    async def _run(self) -> None:
        while not self._stopped:
            self._changed.clear()
            frame = None if self._held else self._utterance.frame(self._handed)
            if frame is not None:
                await self._hand_over(frame)
            elif self._held or not self._utterance.finished:
                await self._changed.wait()
            elif await self._played_out():
                self.whole = True
                return

    async def _hand_over(self, frame: bytes) -> None:
        self._handed += 1
        await self._voice.capture(rtc.AudioFrame(frame, SAMPLE_RATE, 1, _FRAME_SAMPLES))
        if self._held:  # it was on its way when silence was asked for
            self._source.clear_queue()
        elif not self._begun:
            self._begun = True
            self.began()

    async def _played_out(self) -> bool:
        """Wait for the end of the queue; False where something else came first."""
        playout: asyncio.Future[Any] = asyncio.ensure_future(self._source.wait_for_playout())
        changed: asyncio.Future[Any] = asyncio.ensure_future(self._changed.wait())
        await asyncio.wait({playout, changed}, return_when=asyncio.FIRST_COMPLETED)
        played = playout.done() and not self._held
        for waiting in (playout, changed):
            waiting.cancel()
        return played
