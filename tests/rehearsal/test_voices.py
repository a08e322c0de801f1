"""Whose voice is in a mix: two that take turns, two that speak at once, one that is missing, one that is another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rehearsal import mp3, voices
from rehearsal.espeak import Samples, resample
from rehearsal.voice import spoken

RATE = voices.SAMPLE_RATE
AGENT = ("Hello Ann, this is the clinic. Is this a good time?", "We have Tuesday at three. Does that suit you?")
PHONE = ("Yes, it is.", "No, Wednesday would be better for me.")
BEGAN_S = 0.8


def said(lines: tuple[str, ...], *at_s: float) -> Samples:
    axis = np.zeros(20 * RATE, dtype=np.int16)
    for line, start_s in zip(lines, at_s, strict=True):
        sound = spoken(line)
        axis[round(start_s * RATE) : round(start_s * RATE) + len(sound)] = sound
    return axis


def recorded(tmp_path: Path, *heard: tuple[Samples, float], began_s: float = BEGAN_S) -> Samples:
    """Each voice, so much later, mixed from `began_s` on, through an MP3."""
    mix = np.zeros(20 * RATE, dtype=np.int32)
    for sound, delay_s in heard:
        delay = round(delay_s * RATE)
        mix[delay:] += sound[: len(mix) - delay]
    samples = np.clip(mix[round(began_s * RATE) :], -32768, 32767).astype(np.int16)
    file = mp3.Mp3File(tmp_path / "mix.mp3")
    file.write(resample(samples, RATE, mp3.SAMPLE_RATE))
    file.close()
    return mp3.decode((tmp_path / "mix.mp3").read_bytes(), RATE)


TURNS = said(AGENT, 0.5, 9.0), said(PHONE, 5.5, 13.0)


def test_two_that_take_turns_are_both_there(tmp_path: Path) -> None:
    """The first words lie before the recording's begin, and are not asked for."""
    agent, phone = TURNS
    mix = recorded(tmp_path, (agent, 0.05), (phone, 0.2))
    for voice, other in ((agent, phone), (phone, agent)):
        found = voices.held(mix, voice, other, BEGAN_S)
        assert (found.utterances >= 2, found.whole) == (True, True)
        assert found.worst > 0.8


def test_two_that_speak_at_once_are_both_there(tmp_path: Path) -> None:
    """Every word of the one is overlaid by the other's."""
    agent, phone = said(AGENT, 1.0, 8.0), said(PHONE, 1.4, 8.3)
    mix = recorded(tmp_path, (agent, 0.05), (phone, 0.2), began_s=0.5)
    for voice, other in ((agent, phone), (phone, agent)):
        found = voices.held(mix, voice, other, 0.5)
        assert found.utterances and found.whole, found


@pytest.mark.parametrize("missing", ["agent", "phone"])
def test_one_that_is_missing_is_missed(tmp_path: Path, missing: str) -> None:
    """A recording of one side alone does not hold the other's voice."""
    agent, phone = TURNS
    mix = recorded(tmp_path, (agent, 0.05) if missing == "phone" else (phone, 0.2))
    there, gone = (agent, phone) if missing == "phone" else (phone, agent)
    assert voices.held(mix, there, gone, BEGAN_S).whole
    found = voices.held(mix, gone, there, BEGAN_S)
    assert found.utterances and not found.found, found


def test_other_words_are_not_these(tmp_path: Path) -> None:
    """Another call's recording holds neither voice, though people speak in it at the same moments."""
    agent, phone = TURNS
    others = said(
        ("What would you like to know about your order?", "Then it comes on the first of the month."), 0.5, 9.0
    )
    theirs = said(("Where is it?", "Thank you very much indeed."), 5.5, 13.0)
    mix = recorded(tmp_path, (others, 0.05), (theirs, 0.2))
    for voice, other in ((agent, phone), (phone, agent)):
        found = voices.held(mix, voice, other, BEGAN_S)
        assert found.utterances and not found.whole, found


def test_nothing_said_is_nothing_missed(tmp_path: Path) -> None:
    """A silent phone has no utterance to be found."""
    agent, _ = TURNS
    silent = np.zeros(0, dtype=np.int16)
    mix = recorded(tmp_path, (agent, 0.05))
    assert voices.held(mix, silent, agent, BEGAN_S) == voices.Held(utterances=0, found=0, worst=1.0)
    assert voices.held(mix, agent, silent, BEGAN_S).whole
