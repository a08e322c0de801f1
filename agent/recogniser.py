"""Recognition: frames in, what was said out, by livekit-plugins-deepgram; a lost connection is made again.

All times are monotonic seconds. `at` is when we knew; `started_at` and `ended_at` are when it was said, from the words'
own places in the audio. Source: developers.deepgram.com (live audio); reference/livekit.md 3.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, APIStatusError, APITimeoutError
from livekit.agents.stt import SpeechEvent, SpeechEventType
from livekit.plugins import deepgram

from runtime.settings import Settings

CONNECT_TIMEOUT_S: Final = 3.0
TRIES: Final = 3
"""Connections in a row that may fail; one that heard anything starts the count again."""
RETRY_PAUSE_S: Final = 0.2
ENDPOINTING_MS: Final = 300
"""Silence after which what was said is taken as finished."""
MODEL: Final = "nova-3"
LANGUAGES: Final = {"en": "en-US", "es": "es"}
"""Deepgram's name for a language (the part of the tag before the hyphen)."""


class RecogniserFailed(Exception):
    """The service did not listen: `code` says how, and never what was said."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody begins to speak, or something sounds like it."""

    at: float


@dataclass(frozen=True, slots=True)
class Hearing:
    """Words are being said; which, is not settled yet."""

    at: float


@dataclass(frozen=True, slots=True)
class Heard:
    """Words, settled; a turn may have several."""

    text: str
    at: float
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Whoever spoke has been silent for `ENDPOINTING_MS`; without a `Heard` before it, it was no speech."""

    at: float


Sound = SpeechStarted | Hearing | Heard | SpeechEnded


async def check(settings: Settings, language: str) -> None:
    """Find out before anybody is rung whether the recogniser takes a stream. Raises: RecogniserFailed."""
    asked = {"encoding": "linear16", "sample_rate": "16000", "channels": "1", "model": MODEL}
    asked["language"] = _known(language)
    key = settings.deepgram_api_key.reveal() or "none"
    failure = RecogniserFailed("timeout")
    for last in range(1, TRIES + 1):
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S), aiohttp.ClientSession() as http:
                headers = {"Authorization": f"Token {key}"}
                async with http.ws_connect(settings.listen_url, params=asked, headers=headers) as socket:
                    await socket.send_str('{"type":"CloseStream"}')
                return
        except aiohttp.WSServerHandshakeError as error:
            failure = RecogniserFailed(f"status_{error.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = RecogniserFailed("timeout" if isinstance(error, TimeoutError) else "connection")
        if last < TRIES:
            await asyncio.sleep(RETRY_PAUSE_S)
    raise failure from None


def _known(language: str) -> str:
    known = LANGUAGES.get(language.partition("-")[0])
    if known is None:
        raise RecogniserFailed("no_language")
    return known


async def recognise(
    frames: AsyncIterator[rtc.AudioFrame], settings: Settings, language: str
) -> AsyncGenerator[Sound, None]:
    """Recognise until the frames end, connecting at once. Raises: RecogniserFailed."""
    known, failures = _known(language), 0
    async with aiohttp.ClientSession() as http:
        service = _service(known, settings, http)
        while True:
            try:
                async with contextlib.aclosing(_stream(service, frames)) as sounds:
                    async for sound in sounds:
                        failures = 0
                        yield sound
            except APIError as error:
                failures += 1
                if failures >= TRIES:
                    raise RecogniserFailed(_code(error)) from None  # its text may quote what was said
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                return


def _service(language: str, settings: Settings, http: aiohttp.ClientSession) -> deepgram.STT:
    return deepgram.STT(
        model=MODEL,
        language=language,
        endpointing_ms=ENDPOINTING_MS,
        filler_words=False,
        api_key=settings.deepgram_api_key.reveal() or "none",
        base_url=settings.listen_url,
        http_session=http,
    )


async def _stream(service: deepgram.STT, frames: AsyncIterator[rtc.AudioFrame]) -> AsyncGenerator[Sound, None]:
    """One connection, from now on. Raises: APIError."""
    # One try at a time: the library's own reconnection would start the words' clock again without a word.
    options = APIConnectOptions(max_retry=0, timeout=CONNECT_TIMEOUT_S)
    began_at: float | None = None

    async def push() -> None:
        nonlocal began_at
        async for frame in frames:
            if began_at is None:
                began_at = time.monotonic() - frame.duration
            stream.push_frame(frame)
        stream.end_input()

    async with service.stream(conn_options=options) as stream:
        pushing = asyncio.create_task(push(), name="push audio")
        try:
            async for event in stream:
                if (sound := _sound(event, began_at)) is not None:
                    yield sound
        finally:
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)


def _sound(event: SpeechEvent, began_at: float | None) -> Sound | None:
    now = time.monotonic()
    match event.type:
        case SpeechEventType.START_OF_SPEECH:
            return SpeechStarted(now)
        case SpeechEventType.INTERIM_TRANSCRIPT:
            return Hearing(now)
        case SpeechEventType.END_OF_SPEECH:
            return SpeechEnded(now)
        case SpeechEventType.FINAL_TRANSCRIPT:
            words = event.alternatives[0]
            if began_at is None or words.end_time <= 0:
                return Heard(words.text, now, now, now)
            ended_at = min(now, began_at + words.end_time)
            return Heard(words.text, now, min(ended_at, began_at + words.start_time), ended_at)
        case _:
            return None


def _code(error: APIError) -> str:
    if isinstance(error, APIStatusError):
        return f"status_{error.status_code}"
    return "timeout" if isinstance(error, APITimeoutError) else "connection"
