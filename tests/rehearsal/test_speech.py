"""The speech service works with the real Deepgram plugin, and it truly hears."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import numpy as np
import pytest
from livekit import rtc
from livekit.agents import APIConnectOptions, APIStatusError, stt
from livekit.plugins import deepgram

from rehearsal import faults, hearing, marks, serving
from rehearsal.espeak import Samples, synthesize
from rehearsal.hearing import Verdict
from rehearsal.speech import TEXT_MAX, Phrases, Speech

TEXT = "Hello Ann, your prescription is ready at Main Street."
FACT_S = 15.0
ONCE = APIConnectOptions(max_retry=0, timeout=5.0)


@dataclass
class Service:
    host: str
    session: aiohttp.ClientSession

    def tts(self, **fields: object) -> deepgram.TTS:
        base_url = f"http://{self.host}/v1/speak"
        return deepgram.TTS(api_key="any", base_url=base_url, http_session=self.session, **fields)

    def stt(self, **fields: object) -> deepgram.STT:
        base_url = f"ws://{self.host}/v1/listen"
        return deepgram.STT(api_key="any", base_url=base_url, http_session=self.session, **fields)


async def serve(script: faults.Script) -> AsyncIterator[Service]:
    runner, port = await serving.start(Speech(script).app(), 0)
    async with aiohttp.ClientSession() as session:
        yield Service(f"127.0.0.1:{port}", session)
    await runner.cleanup()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """The service and a session."""
    async for served in serve(faults.Script()):
        yield served


def samples_of(frames: list[rtc.AudioFrame]) -> Samples:
    return np.concatenate([np.frombuffer(frame.data, dtype=np.int16) for frame in frames])


@pytest.mark.parametrize("rate", [16_000, 24_000])
async def test_the_plugin_synthesizes_at_once(service: Service, rate: int) -> None:
    """`synthesize`: POST, raw PCM."""
    tts = service.tts(sample_rate=rate)
    frames = [audio.frame async for audio in tts.synthesize(TEXT, conn_options=ONCE)]
    assert hearing.compare(samples_of(frames), rate, TEXT).verdict is Verdict.SAME
    await tts.aclose()


async def test_the_plugin_streams_word_by_word(service: Service) -> None:
    """`stream`: the marks enclose the whole segment, not each word."""
    tts = service.tts()
    async with tts.stream(conn_options=ONCE) as stream:
        for word in TEXT.split(" "):
            stream.push_text(word + " ")
        stream.end_input()
        frames = [audio.frame async for audio in stream]
    sound = samples_of(frames)
    assert len(hearing.utterances(sound, 24_000)) == 1
    assert hearing.compare(sound, 24_000, TEXT).verdict is Verdict.SAME
    await tts.aclose()


async def test_two_segments_share_one_connection(service: Service) -> None:
    """Each flush is an utterance with marks of its own."""
    tts = service.tts()
    for text in (TEXT, "Goodbye."):
        async with tts.stream(conn_options=ONCE) as stream:
            stream.push_text(text)
            stream.end_input()
            frames = [audio.frame async for audio in stream]
        assert hearing.compare(samples_of(frames), 24_000, text).verdict is Verdict.SAME
    await tts.aclose()


async def test_spanish_is_spoken_by_a_spanish_voice(service: Service) -> None:
    """The model's name ends with the language."""
    tts, text = service.tts(model="aura-2-celeste-es"), "Su receta está lista."
    frames = [audio.frame async for audio in tts.synthesize(text, conn_options=ONCE)]
    assert hearing.compare(samples_of(frames), 24_000, text, "es").verdict is Verdict.SAME
    assert hearing.compare(samples_of(frames), 24_000, text, "en-US").verdict is Verdict.DIFFERENT
    await tts.aclose()


async def listen(service: Service, sound: Samples) -> list[stt.SpeechEvent]:
    """What the real STT plugin makes of a recording (16 kHz), to the end of its stream."""
    plugin = service.stt()
    stream = plugin.stream(conn_options=ONCE)
    for start in range(0, len(sound), 800):
        part = sound[start : start + 800]
        stream.push_frame(rtc.AudioFrame(part.tobytes(), 16_000, 1, len(part)))
    stream.end_input()
    events = [event async for event in stream]
    await stream.aclose()
    return [event for event in events if event.type is not stt.SpeechEventType.RECOGNITION_USAGE]


async def register(service: Service, *phrases: str) -> None:
    async with service.session.post(f"http://{service.host}/rehearsal/phrases", json={"phrases": phrases}) as answer:
        assert (await answer.json())["codes"] == [marks.code_of(phrase) for phrase in phrases]


def marked(speech_of: str, named: str) -> Samples:
    silence = np.zeros(8_000, dtype=np.int16)
    return np.concatenate([silence, marks.enclose(synthesize(speech_of, 16_000), named, 16_000), silence])


async def test_the_plugin_hears_what_was_registered(service: Service) -> None:
    """Start of speech, the final transcript with its words in time, end of speech."""
    await register(service, TEXT)
    events = await listen(service, marked(TEXT, TEXT))
    kinds = [event.type for event in events]
    start, final, end = (kinds.index(kind) for kind in (
        stt.SpeechEventType.START_OF_SPEECH, stt.SpeechEventType.FINAL_TRANSCRIPT, stt.SpeechEventType.END_OF_SPEECH
    ))  # fmt: skip
    assert start < final < end
    heard = events[final].alternatives[0]
    assert heard.text == TEXT and heard.confidence > 0.9 and len(heard.words or []) == len(TEXT.split())
    assert 0.9 < heard.start_time < 1.2 and 3.5 < heard.end_time < 4.2


async def test_what_it_has_spoken_it_understands(service: Service) -> None:
    """The agent's own words need not be registered."""
    tts = service.tts(sample_rate=16_000)
    frames = [audio.frame async for audio in tts.synthesize(TEXT, conn_options=ONCE)]
    events = await listen(service, samples_of(frames))
    assert [event.alternatives[0].text for event in events if event.alternatives] == [TEXT]
    await tts.aclose()


async def test_what_was_not_there_is_not_heard(service: Service) -> None:
    """No marks, no speech between them, a text it does not know, other words under the name, no end."""
    await register(service, TEXT)
    other = "Completely different words are being spoken over here instead of those."
    sounds = {
        "unmarked": synthesize(TEXT, 16_000),
        "silence": marks.enclose(np.zeros(48_000, dtype=np.int16), TEXT, 16_000),
        "unknown": marked(other, other),
        "other words": marked(other, TEXT),
        "cut end": marked(TEXT, TEXT)[:-16_000],
    }
    heard = await asyncio.gather(*(listen(service, sound) for sound in sounds.values()))  # each takes the plugin 5 s
    texts = [[event.alternatives[0].text for event in events if event.alternatives] for events in heard]
    assert dict(zip(sounds, texts, strict=True)) == {case: [] for case in sounds}


async def test_finalize_and_close_stream_are_answered(service: Service) -> None:
    """Raw protocol: KeepAlive, audio, Finalize → Results, CloseStream → Metadata, then the server closes."""
    url, headers = f"ws://{service.host}/v1/listen?sample_rate=16000", {"Authorization": "Token any"}
    async with service.session.ws_connect(url, headers=headers) as ws:
        await ws.send_json({"type": "KeepAlive"})
        await ws.send_bytes(bytes(1601))  # an odd number of bytes must not shift what follows
        await ws.send_json({"type": "Finalize"})
        results = await asyncio.wait_for(ws.receive_json(), FACT_S)
        assert results["type"] == "Results" and results["from_finalize"] and results["is_final"]
        assert results["channel"]["alternatives"][0]["transcript"] == ""
        await ws.send_json({"type": "CloseStream"})
        told = [json.loads(message.data)["type"] async for message in ws if message.type is aiohttp.WSMsgType.TEXT]
        assert told[-1] == "Metadata" and ws.closed


async def test_a_request_without_a_token_is_refused(service: Service) -> None:
    """401 before anything else."""
    for path in ("/v1/listen", "/v1/speak"):
        async with service.session.get(f"http://{service.host}{path}") as answer:
            assert answer.status == 401
    async with service.session.get(f"http://{service.host}/rehearsal/health") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("", {"text": ""}, 400),
        ("", {"txt": "a"}, 400),
        ("", {"text": "a" * (TEXT_MAX + 1)}, 413),
        ("?encoding=mp3", {"text": "a"}, 400),
        ("?sample_rate=11", {"text": "a"}, 400),
    ],
)
async def test_what_cannot_be_spoken_is_refused(service: Service, query: str, body: dict, status: int) -> None:
    """With Deepgram's error shape."""
    url, headers = f"http://{service.host}/v1/speak{query}", {"Authorization": "Token any"}
    async with service.session.post(url, json=body, headers=headers) as answer:
        assert answer.status == status and set(await answer.json()) == {"err_code", "err_msg"}


async def test_a_fault_on_order_reaches_the_plugin_as_an_error() -> None:
    """A dead speech service is seen, not silently skipped."""
    rule = faults.Rule(at="speech.speak", fault=faults.Fault(kind=faults.Kind.FAIL), nth=frozenset([1]))
    async for service in serve(faults.Script(rules=(rule,))):
        tts = service.tts()
        with pytest.raises(APIStatusError) as caught:
            [_ async for _ in tts.synthesize(TEXT, conn_options=ONCE)]
        assert caught.value.status_code == 503
        assert [_ async for _ in tts.synthesize(TEXT, conn_options=ONCE)]
        await tts.aclose()


def test_phrases_are_bounded() -> None:
    """The oldest go; a repetition renews."""
    phrases = Phrases(["first"])
    for number in range(10_500):
        phrases.add(f"phrase {number}")
    assert phrases.get(marks.code_of("first")) is None and phrases.get(marks.code_of("Phrase 10499!")) == "phrase 10499"


def test_help_teaches_the_options() -> None:
    """`--help` says how to point the plugin at it."""
    told = subprocess.run(
        [sys.executable, "-m", "rehearsal.speech", "--help"], capture_output=True, check=True, text=True
    )
    assert "base_url=http://127.0.0.1:PORT/v1/speak" in " ".join(told.stdout.split())
