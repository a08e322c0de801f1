"""The beep, in sound: tones as mailboxes make them, over lines as they are, and all that is no beep."""

from __future__ import annotations

import time

import numpy as np
import pytest

from agent.answerer.beep import Beep, Listener, Samples
from bench.amd.telephone import RATE, VOICES, g711
from rehearsal import marks
from rehearsal.espeak import speak_as, synthesize

FRAME = RATE // 20
GREETINGS = {
    "en": "Hello, you have reached the smooth room of Lou and Sue. Who knew? We will call you soon. Oooh.",
    "es": "Hola, se ha comunicado con la casa de Lulú. Ahora no puedo contestar, uuuh, aaah.",
}


def tone(hz: float, seconds: float, level: float = 0.2) -> Samples:
    at = np.arange(round(seconds * RATE)) / RATE
    ramp = np.minimum(1.0, np.minimum(at, at[::-1]) / 0.004)
    return (np.sin(2 * np.pi * hz * at) * ramp * level * 32767).astype(np.int16)


def quiet(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), dtype=np.int16)


def noisy(samples: Samples, dbfs: float) -> Samples:
    noise = np.random.default_rng(1).normal(0, 32767 * 10 ** (dbfs / 20), len(samples))
    return np.clip(samples + noise, -32768, 32767).astype(np.int16)


def beeps(samples: Samples) -> list[Beep]:
    listener, found = Listener(), []
    for first in range(0, len(samples) - FRAME + 1, FRAME):
        beep = listener.feed(samples[first : first + FRAME], (first + FRAME) / RATE)
        if beep is not None:
            found.append(beep)
    return found


@pytest.mark.parametrize("hz", [420, 440, 850, 1000, 1004, 1400, 1980])
@pytest.mark.parametrize("seconds", [0.12, 0.2, 0.5, 1.5])
def test_a_tone_is_a_beep_wherever_it_lies(hz: float, seconds: float) -> None:
    """400 to 2,000 Hz, 120 ms and more, over G.711 with noise; its end is known within 40 ms."""
    line = np.concatenate([quiet(0.517), tone(hz, seconds), quiet(0.5)])
    found = beeps(g711(noisy(line, -50)))
    assert len(found) == 1
    assert abs(found[0].hz - hz) < 10
    assert abs(found[0].ended_at - (0.517 + seconds)) < 0.04
    assert abs(found[0].started_at - 0.517) < 0.06


def test_a_beep_after_speech_is_found_on_a_bad_line() -> None:
    """The greeting is no beep, its tone is."""
    speech = synthesize("Please leave a message after the tone.", RATE)
    line = np.concatenate([speech, quiet(0.3), tone(1000, 0.4, 0.1), quiet(0.5)])
    found = beeps(g711(noisy(line, -40)))
    assert len(found) == 1
    assert abs(found[0].ended_at - (len(speech) / RATE + 0.7)) < 0.05


@pytest.mark.parametrize(("language", "voice"), [(tag, voice) for tag, voices in VOICES.items() for voice in voices])
def test_no_voice_is_a_beep(language: str, voice: str) -> None:
    """Vowels drawn out, men and women, on a clean line and over G.711."""
    speech = speak_as(voice, GREETINGS[language], RATE)
    assert not beeps(speech)
    assert not beeps(g711(noisy(speech, -45)))


def dual(low: float, high: float, seconds: float) -> Samples:
    return (tone(low, seconds, 0.15).astype(np.int32) + tone(high, seconds, 0.15)).astype(np.int16)


@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(dual(440, 480, 2.0), id="ring-back (US)"),
        pytest.param(dual(480, 620, 0.5), id="busy"),
        pytest.param(dual(350, 440, 3.0), id="dial tone"),
        pytest.param(dual(770, 1336, 0.1), id="a key (DTMF 5)"),
        pytest.param(dual(697, 1209, 0.3), id="a long key (DTMF 1)"),
        pytest.param(tone(1000, 0.06), id="a click of a tone"),
        pytest.param(tone(2600, 0.4), id="too high"),
        pytest.param(tone(300, 0.4), id="too low"),
        pytest.param(tone(1000, 6.0), id="a tone that does not end"),
        pytest.param(tone(1000, 0.4, 0.001), id="too faint"),
    ],
)
def test_what_networks_and_keys_sound_is_no_beep(signal: Samples) -> None:
    """Two tones at once, too short, too long, too high, too low, too faint."""
    assert not beeps(np.concatenate([quiet(0.3), signal, quiet(0.5)]))


def test_the_marks_of_the_rehearsal_are_no_beep() -> None:
    """Dual tones of 60 ms: else every simulated person would beep."""
    for text in ("Hello?", "Yes, this is me.", "You have reached Ann."):
        assert not beeps(marks.enclose(synthesize(text, RATE), text, RATE))


def test_silence_is_known_on_a_noisy_line() -> None:
    """The line's own noise is no sound; speech over it is."""
    speech = synthesize("Please leave a message after the tone.", RATE)
    line = noisy(np.concatenate([quiet(1.0), speech, quiet(3.0)]), -48)
    listener = Listener()
    for first in range(0, len(line) - FRAME + 1, FRAME):
        listener.feed(line[first : first + FRAME], (first + FRAME) / RATE)
    assert listener.loud_at is not None
    assert abs(listener.loud_at - (1.0 + len(speech) / RATE)) < 0.25


def test_listening_costs_next_to_nothing() -> None:
    """A minute of sound, well below 2 % of a processor; the figure is printed."""
    line = noisy(np.concatenate([quiet(30), tone(1000, 0.5), quiet(29.5)]), -45)
    began = time.process_time()
    beeps(line)
    used = time.process_time() - began
    print(f"\n{used / 60:.4f} CPU s per second of sound")
    assert used < 60 * 0.02
