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
        self._loud_until = 0
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
            self._loud_until = self._heard + int(loud[-1]) + 1
        self._heard += len(samples)
        return await self._tell(self._decoder.feed(samples))

    async def finalize(self) -> list[dict[str, Any]]:
        """Say what is known of the audio up to here."""
        messages = await self._tell(self._decoder.flush())
        self._decoder = marks.Decoder(self._rate)
        messages.append(self._results("", self._heard, self._heard, 0.0, from_finalize=True))
        self._before_s += self._heard / self._rate
        self._kept, self._begin = [], None
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
                if self._vad_events:
                    messages.append(
                        {"type": "SpeechStarted", "channel": [0], "timestamp": self._before_s + mark.start / self._rate}
                    )
            elif self._begin is not None and self._begin.code == mark.code:
                messages += await self._recognised(self._begin, mark)
                self._begin = None
        if self._begin is not None and self._heard - max(self._loud_until, self._begin.end) > QUIET_S * self._rate:
            until = max(self._loud_until, self._begin.end)
            unheard = Mark(code=self._begin.code, side=Side.END, start=until, end=until)
            messages += await self._recognised(self._begin, unheard)
            self._begin = None
        if self._begin is None and (self._heard - self._last_result_at) / self._rate >= EMPTY_RESULT_EVERY_S:
            messages.append(self._results("", self._last_result_at, self._heard, 0.0))
        if self._begin is None or self._heard - self._begin.start > UTTERANCE_MAX_S * self._rate:
            self._begin = None
            self._forget(keep_s=2.0)  # a mark may be on its way
        return messages

    async def _recognised(self, begin: Mark, end: Mark) -> list[dict[str, Any]]:
        text = self._text_of(begin.code)
        heard = np.concatenate(self._kept)[begin.end - self._kept_from : end.start - self._kept_from]
        confidence = 0.0
        if text is not None:
            confidence = await asyncio.to_thread(_confidence, heard, self._rate, text, self._language)
        transcript = text if text is not None and confidence >= CONFIDENCE_MIN else ""
        messages = [self._results(transcript, begin.end, end.start, confidence)]
        if self._utterance_end:
            messages.append(
                {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": self._before_s + end.start / self._rate}
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

    def _forget(self, keep_s: float = 0.0) -> None:
        """Drop audio that nothing needs any more."""
        while self._kept and self._heard - self._kept_from - len(self._kept[0]) >= keep_s * self._rate:
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
