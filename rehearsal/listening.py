"""Recognition by marks: one audio stream in, Deepgram's live-transcription messages out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from rehearsal import hearing, marks
from rehearsal.espeak import Samples, resample, synthesize
from rehearsal.marks import Mark, Side

CONFIDENCE_MIN: Final = 0.6
"""Least resemblance of what was heard to the text that the marks name; below it the transcript is empty."""
UTTERANCE_MAX_S: Final = 120
QUIET_S: Final = 1.2
"""Silence after which an utterance is over though its end was not heard: a mark may be damaged as any sound may."""
SOUND_MIN: Final = 130  # of 32768 (-48 dBFS)
NAMELESS_S: Final = 0.75
"""Sound that goes on so long without a mark at its beginning is speech whose beginning was damaged: a voice activity
detector would have told of it."""
MARK_TAIL_MS: Final = 100  # after an end mark, the last of it
EMPTY_RESULT_EVERY_S: Final = 5.0  # Deepgram tells that it heard nothing, too
_RATE = 16_000


class Listener:
    """One `/v1/listen` stream: keeps the audio since the open beginning, at most `UTTERANCE_MAX_S`."""

    def __init__(
        self,
        sample_rate: int,
        language: str,
        text_of: Callable[[int], str | None],
        *,
        vad_events: bool,
        utterance_end: bool,
    ) -> None:
        self._rate, self._language, self._text_of = sample_rate, language, text_of
        self._vad_events, self._utterance_end = vad_events, utterance_end
        self._request_id = secrets.token_hex(8)
        self._decoder = marks.Decoder(sample_rate)
        self._kept: list[Samples] = []
        self._kept_from = self._heard = 0  # samples since the stream's start
        self._last_result_at = 0
        self._before_s = 0.0  # what was heard before the last Finalize
        self._begin: Mark | None = None
        self._loud_from: int | None = None
        """Where the sound that goes on began, as long as nothing is recognised of it."""
        self._loud_until = 0
        self._told = False
        """Whether this speech was told to have started."""
        self._odd = b""

    async def hear(self, pcm: bytes) -> list[dict[str, Any]]:
        """Take audio (s16le mono); returns the messages that it gives rise to."""
        pcm = self._odd + pcm
        whole = len(pcm) // 2 * 2
        self._odd = pcm[whole:]
        samples = np.frombuffer(pcm[:whole], dtype="<i2")
        self._kept.append(samples)
        loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > SOUND_MIN)
        if len(loud):
            if self._loud_from is None:
                self._loud_from = self._heard + int(loud[0])
            self._loud_until = self._heard + int(loud[-1]) + 1
        self._heard += len(samples)
        return await self._tell(self._decoder.feed(samples))

    async def finalize(self) -> list[dict[str, Any]]:
        """Say what is known of the audio up to here."""
        messages = await self._tell(self._decoder.flush())
        self._decoder = marks.Decoder(self._rate)
        messages.append(self._results("", self._heard, self._heard, 0.0, from_finalize=True))
        self._before_s += self._heard / self._rate
        self._kept, self._begin, self._loud_from, self._told = [], None, None, False
        self._kept_from = self._heard = self._last_result_at = self._loud_until = 0
        return messages

    def metadata(self) -> dict[str, Any]:
        """The message that closes a stream."""
        return {"type": "Metadata", "request_id": self._request_id, "channels": 1, "duration": self._before_s}

    async def _tell(self, found: list[Mark]) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        for mark in found:
            if mark.side is Side.BEGIN:
                self._begin = mark
                messages += self._started(mark.start)
            elif self._begin is not None and self._begin.code != mark.code:
                continue  # the one or the other is no mark: silence decides
            elif (begin := self._begin or self._damaged(mark)) is not None:
                messages += await self._recognised(begin, mark)
        if self._begin is None and self._loud_for_s > NAMELESS_S:
            messages += self._started(self._loud_from or 0)
        if self._is_quiet():
            if self._begin is not None:
                until = max(self._loud_until, self._begin.end)
                unheard = Mark(code=self._begin.code, side=Side.END, start=until, end=until)
                messages += await self._recognised(self._begin, unheard)
            elif self._told and self._loud_from is not None:
                messages += self._over("", self._loud_from, self._loud_until, 0.0)
            self._loud_from = None
        if (
            self._begin is None
            and not self._told
            and (self._heard - self._last_result_at) / self._rate >= EMPTY_RESULT_EVERY_S
        ):
            messages.append(self._results("", self._last_result_at, self._heard, 0.0))
        self._forget()
        return messages

    @property
    def _loud_for_s(self) -> float:
        return 0.0 if self._loud_from is None else (self._loud_until - self._loud_from) / self._rate

    def _is_quiet(self) -> bool:
        """Tell whether what was loud has been silent for long enough to be over."""
        until = max(self._loud_until, self._begin.end if self._begin is not None else 0)
        return self._heard - until > QUIET_S * self._rate

    def _damaged(self, end: Mark) -> Mark | None:
        """Return where the beginning of an utterance must lie of which only the end was understood."""
        if self._loud_from is None or self._loud_for_s < NAMELESS_S:
            return None
        begun = self._loud_from + marks.MARK_MS * self._rate // 1000
        if begun >= end.start:
            return None
        return Mark(code=end.code, side=Side.BEGIN, start=self._loud_from, end=begun)

    def _started(self, at: int) -> list[dict[str, Any]]:
        if self._told or not self._vad_events:
            return []
        self._told = True
        return [{"type": "SpeechStarted", "channel": [0], "timestamp": self._before_s + at / self._rate}]

    async def _recognised(self, begin: Mark, end: Mark) -> list[dict[str, Any]]:
        text = self._text_of(begin.code)
        heard = np.concatenate(self._kept)[begin.end - self._kept_from : end.start - self._kept_from]
        confidence = 0.0
        if text is not None:
            confidence = await asyncio.to_thread(_confidence, heard, self._rate, text, self._language)
        transcript = text if text is not None and confidence >= CONFIDENCE_MIN else ""
        self._begin, self._loud_from = None, None
        if self._loud_until > end.end + MARK_TAIL_MS * self._rate // 1000:
            self._loud_from = end.end  # somebody goes on
        return self._over(transcript, begin.end, end.start, confidence)

    def _over(self, transcript: str, start: int, end: int, confidence: float) -> list[dict[str, Any]]:
        """Say what was said, and that it is over."""
        self._told = False
        messages = [self._results(transcript, start, end, confidence)]
        if self._utterance_end:
            messages.append(
                {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": self._before_s + end / self._rate}
            )
        return messages

    def _results(
        self, text: str, start: int, end: int, confidence: float, *, from_finalize: bool = False
    ) -> dict[str, Any]:
        self._last_result_at = self._heard
        start_s, duration_s = self._before_s + start / self._rate, (end - start) / self._rate
        words, step_s = text.split(), duration_s / max(1, len(text.split()))
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": start_s,
            "duration": duration_s,
            "is_final": True,
            "speech_final": bool(text) or end > start,
            "from_finalize": from_finalize,
            "metadata": {"request_id": self._request_id},
            "channel": {
                "alternatives": [
                    {
                        "transcript": " ".join(words),
                        "confidence": round(confidence, 3),
                        "words": [
                            {
                                "word": word.strip(".,;:!?¿¡").lower(),
                                "punctuated_word": word,
                                "start": round(start_s + i * step_s, 3),
                                "end": round(start_s + (i + 1) * step_s, 3),
                                "confidence": round(confidence, 3),
                            }
                            for i, word in enumerate(words)
                        ],
                    }
                ]
            },
        }

    def _forget(self) -> None:
        """Drop audio that nothing needs any more: before what goes on, and before a mark that may be on its way."""
        if self._begin is not None and self._heard - self._begin.start > UTTERANCE_MAX_S * self._rate:
            self._begin = None
        if self._loud_from is not None and self._heard - self._loud_from > UTTERANCE_MAX_S * self._rate:
            self._loud_from = self._heard
        needed = self._heard - 2 * self._rate
        if self._loud_from is not None:
            needed = min(needed, self._loud_from)
        if self._begin is not None:
            needed = min(needed, self._begin.start)
        while self._kept and self._kept_from + len(self._kept[0]) <= needed:
            self._kept_from += len(self._kept.pop(0))


def _confidence(heard: Samples, sample_rate: int, text: str, language: str) -> float:
    """How much a stretch of sound resembles a text, in the best of the languages that may have spoken it."""
    sound = resample(heard, sample_rate, _RATE)
    languages = dict.fromkeys([language, "en-US", "es"])
    for spoken in languages:
        whole = hearing.resemblance(sound, synthesize(text, _RATE, spoken)).whole
        if whole >= CONFIDENCE_MIN:
            return whole
    return 0.0
