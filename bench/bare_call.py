"""What a call cannot cost less than: a room, a source with frames of 100 ms and a listener, without any of our code.

`bare_source` speaks; with an ear it hears the far end as well and sends what it hears to the recogniser. `bare_far_end`
is who it speaks to, in all the rooms. `bare_reply` is a turn without a room: the stand-ins alone, one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import numpy as np
import orjson
from livekit import api, rtc

from bench.child import answer, lines
from rehearsal import espeak, marks

RATE: Final = 24_000
EAR_RATE: Final = 16_000
FRAME_MS: Final = 100
EAR_FRAME_MS: Final = 50
QUEUE_MS: Final = 500
SETTLE_S: Final = 2.0
TURN_TIMEOUT_S: Final = 10.0
TEXT: Final = "This is somebody who speaks for as long as it takes, about nothing in particular, and does not stop. "
PAUSE_MS: Final = 60
MARK_MS: Final = PAUSE_MS + marks.MARK_MS
"""What a phone's words are followed by (rehearsal/marks.enclose): a pause and the mark that lets them be recognised."""


def token(asked: dict[str, Any], room: str, identity: str) -> str:
    """Return the key to a room."""
    grants = api.VideoGrants(room_join=True, room=room)
    return api.AccessToken(asked["key"], asked["secret"]).with_identity(identity).with_grants(grants).to_jwt()


async def _publish(room: rtc.Room) -> rtc.AudioSource:
    """Publish as the agent does: one voice, no redundancy, silence sent too."""
    source = rtc.AudioSource(RATE, 1, queue_size_ms=QUEUE_MS)
    track = rtc.LocalAudioTrack.create_audio_track("bare", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=False)
    options.audio_encoding.max_bitrate = 32_000
    publication = await room.local_participant.publish_track(track, options)
    await publication.wait_for_subscription()
    return source


async def _speak(source: rtc.AudioSource, seconds: float) -> None:
    size = RATE * FRAME_MS // 1000
    words = espeak.synthesize(TEXT, RATE, "en-US")
    frames = [words[at : at + size].tobytes() for at in range(0, len(words) - size, size)]
    for number in range(round(seconds * 1000 / FRAME_MS)):
        await source.capture_frame(rtc.AudioFrame(frames[number % len(frames)], RATE, 1, size))
    await source.wait_for_playout()


def _hear(participant: rtc.RemoteParticipant) -> rtc.AudioStream:
    return rtc.AudioStream.from_participant(
        participant=participant,
        track_source=rtc.TrackSource.SOURCE_MICROPHONE,
        sample_rate=EAR_RATE,
        num_channels=1,
        frame_size_ms=EAR_FRAME_MS,
    )


async def _recognise(room: rtc.Room, url: str) -> None:
    """Send the far end's sound to the recogniser, and read what it says."""
    while not room.remote_participants:
        await asyncio.sleep(0.05)
    stream = _hear(next(iter(room.remote_participants.values())))
    async with _listening(url) as socket:
        reading = asyncio.create_task(_read(socket))
        try:
            async for event in stream:
                await socket.send_bytes(event.frame.data.tobytes())
        finally:
            reading.cancel()


async def _read(socket: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in socket:
        pass


def _listening(url: str) -> Any:
    asked = "encoding=linear16&sample_rate=16000&channels=1&language=en-US&vad_events=true"
    return _Socket(f"{url}?{asked}")


class _Socket:
    """A WebSocket of the speech service, with its session."""

    def __init__(self, url: str) -> None:
        self._url, self._http = url, aiohttp.ClientSession()

    async def __aenter__(self) -> aiohttp.ClientWebSocketResponse:
        return await self._http.ws_connect(self._url, headers={"Authorization": "Token bench"})

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()


async def bare_source() -> None:
    """Answer one parent's question: what speaking for so many seconds costs, `cpu_s`."""
    reader = await lines()
    asked = orjson.loads(await reader.readline())
    room = rtc.Room()
    options = rtc.RoomOptions(auto_subscribe=bool(asked["listen_url"]))
    await room.connect(asked["url"], token(asked, asked["room"], "bare"), options)
    hearing = asyncio.create_task(_recognise(room, asked["listen_url"])) if asked["listen_url"] else None
    source = await _publish(room)
    await asyncio.sleep(SETTLE_S)
    began, used = time.monotonic(), time.process_time()
    await _speak(source, asked["seconds"])
    cpu_s, seconds = time.process_time() - used, time.monotonic() - began
    if hearing is not None:
        assert not hearing.done(), "nothing was heard"
        hearing.cancel()
    answer(cpu_s=cpu_s, seconds=seconds)
    await room.disconnect()


async def bare_far_end() -> None:
    """Be in all the rooms, listen and speak, until the parent has had enough."""
    reader = await lines()
    asked = orjson.loads(await reader.readline())
    speaking = []
    for name in asked["rooms"]:
        room = rtc.Room()
        await room.connect(asked["url"], token(asked, name, "far-end"), rtc.RoomOptions(auto_subscribe=True))
        source = rtc.AudioSource(RATE, 1, queue_size_ms=QUEUE_MS)
        track = rtc.LocalAudioTrack.create_audio_track("far", source)
        await room.local_participant.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        )
        speaking.append((room, asyncio.create_task(_speak(source, asked["seconds"]))))
    answer(ready=True)
    await reader.read()
    for room, task in speaking:
        task.cancel()
        await room.disconnect()


# -- a turn without a room --------------------------------------------------------------------------------------------


async def bare_reply() -> None:
    """Answer one parent's question: from the end of words to the first sound of a reply, the stand-ins alone, in ms."""
    reader = await lines()
    asked = orjson.loads(await reader.readline())
    found: dict[str, list[float]] = {"reply": [], "heard": [], "llm": [], "tts": []}
    async with aiohttp.ClientSession() as http:
        for _ in range(asked["turns"]):
            for name, took_ms in (await _turn(asked, http)).items():
                found[name].append(took_ms)
    answer(**found)


async def _turn(asked: dict[str, Any], http: aiohttp.ClientSession) -> dict[str, float]:
    async with asyncio.timeout(TURN_TIMEOUT_S), _listening(asked["listen_url"]) as socket:
        sound = marks.enclose(espeak.synthesize(asked["text"], EAR_RATE, "en-US"), asked["text"], EAR_RATE)
        words_end_at = time.monotonic() + len(sound) / EAR_RATE - MARK_MS / 1000
        sending = asyncio.create_task(_say(socket, sound))
        text = ""
        while not text:
            told = orjson.loads((await socket.receive()).data)
            if told.get("type") == "Results":
                text = told["channel"]["alternatives"][0]["transcript"]
        heard_at = time.monotonic()
        sentence = ""
        async for token_ in _ask(http, asked, text):
            sentence += token_
            if sentence.rstrip().endswith((".", "?")):
                break
        said_at = time.monotonic()
        await _first_sound(asked["speak_url"], sentence)
        sound_at = time.monotonic()
        sending.cancel()
    return {
        "reply": (sound_at - words_end_at) * 1000,
        "heard": (heard_at - words_end_at) * 1000,
        "llm": (said_at - heard_at) * 1000,
        "tts": (sound_at - said_at) * 1000,
    }


async def _say(socket: aiohttp.ClientWebSocketResponse, sound: espeak.Samples) -> None:
    """Send a sound as a microphone would, and silence after it."""
    size, began = EAR_RATE * EAR_FRAME_MS // 1000, time.monotonic()
    sound = np.concatenate([sound, np.zeros(EAR_RATE, dtype=np.int16)])
    for number, at in enumerate(range(0, len(sound), size), 1):
        await asyncio.sleep(max(0.0, began + number * EAR_FRAME_MS / 1000 - time.monotonic()))
        await socket.send_bytes(sound[at : at + size].tobytes())


async def _ask(http: aiohttp.ClientSession, asked: dict[str, Any], text: str) -> AsyncIterator[str]:
    body = {"model": asked["model"], "stream": True, "messages": [{"role": "user", "content": text}]}
    headers = {"Idempotency-Key": f"bare-{time.monotonic_ns()}"}
    async with http.post(f"{asked['brain_url']}/chat/completions", json=body, headers=headers) as response:
        async for line in response.content:
            if line.startswith(b"data: {"):
                yield orjson.loads(line[6:])["choices"][0]["delta"].get("content", "")


async def _first_sound(url: str, sentence: str) -> None:
    async with _Socket(f"{url}?encoding=linear16&sample_rate={RATE}&model=aura-2-andromeda-en") as socket:
        await socket.send_json({"type": "Speak", "text": sentence})
        await socket.send_json({"type": "Flush"})
        while (message := await socket.receive()).type is not aiohttp.WSMsgType.BINARY:
            assert message.type is aiohttp.WSMsgType.TEXT, "the speech service closed"
