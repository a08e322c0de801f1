"""A message that was not heard whole must never pass as heard."""

from __future__ import annotations

import av
import numpy as np
import pytest

from rehearsal import ear, hearing, marks
from rehearsal.espeak import Samples, resample, synthesize
from rehearsal.hearing import Verdict, compare

TEXT = "Hello Ann, your prescription is ready at Main Street."
LONG = "This is a reminder that a refill is due for you at the pharmacy on Oak Avenue, please call us back."
RATE = 16_000


def through_opus(samples: Samples, sample_rate: int, bit_rate: int = 24_000) -> Samples:
    """The sound after libopus in its telephone mode, at 16 kHz."""
    encoder, decoder = av.CodecContext.create("libopus", "w"), av.CodecContext.create("libopus", "r")
    encoder.sample_rate = decoder.sample_rate = 48_000
    encoder.layout = decoder.layout = "mono"
    encoder.format, encoder.bit_rate, encoder.options = "s16", bit_rate, {"application": "voip"}
    sound, heard = resample(samples, sample_rate, 48_000), []
    sound = np.concatenate([sound, np.zeros(960 - len(sound) % 960 + 960, dtype=np.int16)])
    for number, part in enumerate(sound.reshape(-1, 960)):
        frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, number * 960
        for packet in encoder.encode(frame):
            for out in decoder.decode(packet):
                piece = out.to_ndarray().reshape(-1)
                heard.append(
                    piece if piece.dtype == np.int16 else np.clip(piece * 32768, -32768, 32767).astype(np.int16)
                )
    return resample(np.concatenate(heard), 48_000, RATE)


def sent(speech_of: str, named: str, language: str = "en-US") -> Samples:
    """An utterance that says one thing and is marked as another."""
    return marks.enclose(synthesize(speech_of, 24_000, language), named, 24_000)


@pytest.mark.parametrize(("text", "language"), [(TEXT, "en-US"), (LONG, "en-US"), ("Su receta está lista.", "es")])
def test_a_message_that_came_through_opus_is_the_same(text: str, language: str) -> None:
    """Correlation at least 0.9 and the length within 150 ms, with room to spare."""
    heard = compare(through_opus(sent(text, text, language), 24_000), RATE, text, language)
    assert heard.verdict is Verdict.SAME, heard
    assert heard.marks_ok and heard.correlation >= 0.97 and abs(heard.length_error_ms) < 50 and heard.reason == ""


@pytest.mark.parametrize("gone", range(len(LONG.split())), ids=LONG.split())
def test_any_missing_word_fails(gone: int) -> None:
    """Not one word of a sentence may be left out, not even the shortest."""
    words = LONG.split()
    rest = " ".join(words[:gone] + words[gone + 1 :])
    assert compare(through_opus(sent(rest, LONG), 24_000), RATE, LONG).verdict is Verdict.DIFFERENT


def test_a_silent_stretch_of_the_same_length_fails() -> None:
    """200 ms of silence, wherever at least 100 ms of them hit speech (in a pause they erase nothing): length is right."""
    sound = through_opus(sent(TEXT, TEXT), 24_000)
    begin, end = marks.decode(sound, RATE)
    tried = 0
    for start in range(begin.end, end.start - RATE // 5, RATE // 20):
        loud = hearing.features(sound[begin.end : end.start]).mean(axis=1) > 0.15
        first = (start - begin.end) * 100 // RATE
        if loud[first : first + 20].sum() < 10:
            continue
        erased, tried = sound.copy(), tried + 1
        erased[start : start + RATE // 5] = 0
        assert compare(erased, RATE, TEXT).verdict is Verdict.DIFFERENT, (start - begin.end) / RATE
    assert tried > 30


def test_silence_in_place_of_the_speech_fails() -> None:
    """Marks alone are no message."""
    silence = marks.enclose(np.zeros(len(synthesize(TEXT, 24_000)), dtype=np.int16), TEXT, 24_000)
    assert compare(through_opus(silence, 24_000), RATE, TEXT).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(("one", "other"), [("Ann", "Dan"), ("Main", "Oak"), ("prescription", "subscription")])
def test_another_name_under_the_right_marks_fails(one: str, other: str) -> None:
    """The sound is judged, not only the marks."""
    heard = compare(through_opus(sent(TEXT.replace(one, other), TEXT), 24_000), RATE, TEXT)
    assert heard.marks_ok and heard.verdict is Verdict.DIFFERENT, heard


def test_another_text_fails() -> None:
    """Another message with its own marks."""
    heard = compare(through_opus(sent(LONG, LONG), 24_000), RATE, TEXT)
    assert heard.verdict is Verdict.DIFFERENT and heard.reason == "the marks name another text"


def test_a_cut_end_and_a_cut_beginning_fail() -> None:
    """Each end has its mark."""
    sound = through_opus(sent(TEXT, TEXT), 24_000)
    assert compare(sound[: -RATE // 2], RATE, TEXT).reason == "the end is missing"
    assert compare(sound[RATE // 4 :], RATE, TEXT).reason == "the beginning is missing"


def test_nothing_heard_fails() -> None:
    """Silence, and an empty recording."""
    for sound in (np.zeros(5 * RATE, dtype=np.int16), np.zeros(0, dtype=np.int16)):
        assert compare(sound, RATE, TEXT).verdict is Verdict.DIFFERENT


def test_a_message_heard_twice_fails() -> None:
    """Once, whole: nobody is told the same thing twice."""
    sound = sent(TEXT, TEXT)
    heard = compare(through_opus(np.concatenate([sound, sound]), 24_000), RATE, TEXT)
    assert heard.verdict is Verdict.DIFFERENT and not heard.marks_ok


def test_what_a_network_does_to_sound_still_passes() -> None:
    """A lost packet, 20 ms stretched by a jitter buffer, a clock 0.1 % off, half the level, narrow band."""
    sound = through_opus(sent(TEXT, TEXT), 24_000)
    middle = len(sound) // 2
    lost = sound.copy()
    lost[middle : middle + RATE // 50] = 0
    stretched = np.concatenate([sound[:middle], sound[middle - RATE // 50 :]])
    drifted, quiet = resample(sound, RATE, RATE + 16), (sound // 2).astype(np.int16)
    narrow = resample(resample(sound, RATE, 8_000), 8_000, RATE)
    for heard in (lost, stretched, drifted, quiet, narrow):
        assert compare(heard, RATE, TEXT).verdict is Verdict.SAME


@pytest.mark.livekit
@pytest.mark.realtime
async def test_a_message_through_a_real_room_is_the_same(network) -> None:
    """Agent, Opus, the real server, a phone: what was said is what was heard."""
    room = await network.room("hearing")
    agent = await network.agent(room)
    await network.dial("+12125550101", room)
    await agent.say(TEXT)
    await network.hang_up(room)
    await network.ended(room)
    heard = ear.heard_of(network.directory, room)
    assert heard is not None
    verdict = compare(heard.samples, ear.SAMPLE_RATE, TEXT)
    assert verdict.verdict is Verdict.SAME, verdict
    assert compare(heard.samples, ear.SAMPLE_RATE, LONG).verdict is Verdict.DIFFERENT
    assert [begin.code for begin, _ in hearing.utterances(heard.samples, ear.SAMPLE_RATE)] == [marks.code_of(TEXT)]
