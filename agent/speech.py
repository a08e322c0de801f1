"""Synthesis: the whole message as PCM before anybody is rung, by livekit-plugins-deepgram.

The WebSocket form is used: it takes text word by word, so that no limit on one request's length applies, and its
`Flushed` proves that the audio is whole. Source: developers.deepgram.com, text-to-speech; reference/livekit.md 3.3.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
from livekit.agents import APIConnectOptions, APIError, APIStatusError, APITimeoutError
from livekit.plugins import deepgram

from runtime.settings import Settings

SAMPLE_RATE: Final = 24_000
SAMPLE_BYTES: Final = 2
ANSWER_TIMEOUT_S: Final = 5.0
"""The longest silence of the service, connecting included."""
WAITED_FOR_TIMEOUT_S: Final = 1.5
"""The same, where the callee waits for the sentence."""
TRIES: Final = 3
RETRY_PAUSE_S: Final = 0.3
SYNTHESIS_TIMEOUT_S: Final = 16.0
"""All tries together: below the dialer's own wait for a ready agent, so that it hears why."""
AUDIO_MAX_S: Final = 900
VOICES: Final = {"en": "aura-2-andromeda-en", "es": "aura-2-celeste-es"}
"""Deepgram's voice for a language (the part of the tag before the hyphen)."""


class SpeechFailed(Exception):
    """The service did not speak: `code` says how, and never what."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Spoken:
    """A message as sound: 16 bit, mono, at `SAMPLE_RATE`."""

    pcm: bytes

    @property
    def duration_ms(self) -> int:
        """Return how long it lasts."""
        return len(self.pcm) * 1000 // (SAMPLE_RATE * SAMPLE_BYTES)


async def synthesize(text: str, language: str, settings: Settings) -> Spoken:
    """Speak a text, with a bounded number of tries. Raises: SpeechFailed."""
    async with speaker(language, settings) as voice:
        return await voice.whole(text)


class Speaker:
    """One voice, with its connections kept open between sentences."""

    def __init__(self, tts: deepgram.TTS) -> None:
        self._tts = tts

    async def whole(self, text: str) -> Spoken:
        """Speak a text, with a bounded number of tries. Raises: SpeechFailed."""
        failure = SpeechFailed("timeout")
        try:
            async with asyncio.timeout(SYNTHESIS_TIMEOUT_S):
                for last in range(1, TRIES + 1):
                    try:
                        async with contextlib.aclosing(self._once(text, ANSWER_TIMEOUT_S)) as pieces:
                            return Spoken(b"".join([piece async for piece in pieces]))
                    except SpeechFailed as error:
                        failure = error
                        if last < TRIES:
                            await asyncio.sleep(RETRY_PAUSE_S)
        except TimeoutError:
            pass
        raise failure

    async def pieces(self, text: str) -> AsyncGenerator[bytes, None]:
        """Speak a sentence while somebody waits: sound as it comes, one more try where none came. Raises: SpeechFailed."""
        for last in (False, True):
            came = False
            try:
                async with contextlib.aclosing(self._posted(text)) as pieces:
                    async for piece in pieces:
                        came = True
                        yield piece
            except SpeechFailed:
                if came or last:
                    raise
            else:
                return

    async def _posted(self, text: str) -> AsyncGenerator[bytes, None]:
        """Speak a sentence by a request of its own: a WebSocket that idled between two turns may be dead by now."""
        options = APIConnectOptions(max_retry=0, timeout=WAITED_FOR_TIMEOUT_S)
        came = False
        try:
            async with self._tts.synthesize(text, conn_options=options) as stream:
                pieces = aiter(stream)
                while True:
                    async with asyncio.timeout(WAITED_FOR_TIMEOUT_S):
                        piece = await anext(pieces, None)
                    if piece is None:
                        break
                    came = True
                    yield bytes(piece.frame.data.cast("B"))
        except APIError as error:
            raise SpeechFailed(_code(error)) from None
        except TimeoutError:
            raise SpeechFailed("timeout") from None
        if not came:
            raise SpeechFailed("no_audio")

    async def _once(self, text: str, timeout_s: float) -> AsyncGenerator[bytes, None]:
        length = 0
        # One try at a time and none of the library's own: its warning about a retry quotes the text.
        options = APIConnectOptions(max_retry=0, timeout=timeout_s)
        try:
            async with self._tts.stream(conn_options=options) as stream:
                stream.push_text(text)
                stream.end_input()
                async for piece in stream:
                    pcm = bytes(piece.frame.data.cast("B"))
                    length += len(pcm)
                    if length > AUDIO_MAX_S * SAMPLE_RATE * SAMPLE_BYTES:
                        raise SpeechFailed("too_long")
                    yield pcm
        except APIError as error:
            raise SpeechFailed(_code(error)) from None  # its text may quote the message
        if not length:
            raise SpeechFailed("no_audio")


@contextlib.asynccontextmanager
async def speaker(language: str, settings: Settings) -> AsyncIterator[Speaker]:
    """Give the voice of a language for as long as it is needed. Raises: SpeechFailed, `no_voice`."""
    voice = VOICES.get(language.partition("-")[0])
    if voice is None:
        raise SpeechFailed("no_voice")
    async with aiohttp.ClientSession() as http:
        tts = deepgram.TTS(
            model=voice,
            encoding="linear16",
            sample_rate=SAMPLE_RATE,
            api_key=settings.deepgram_api_key.reveal() or "none",
            base_url=settings.speak_url,
            http_session=http,
        )
        try:
            yield Speaker(tts)
        finally:
            await tts.aclose()


def _code(error: APIError) -> str:
    if isinstance(error, APIStatusError):
        return f"status_{error.status_code}"
    if isinstance(error, APITimeoutError):
        return "timeout"
    return "connection" if error.retryable else "refused"
