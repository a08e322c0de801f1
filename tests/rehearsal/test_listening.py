"""What is recognised of a stream of sound, whatever became of its marks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rehearsal import marks
from rehearsal.espeak import Samples, synthesize
from rehearsal.listening import QUIET_S, Listener

RATE = 16_000
TEXT = "Tuesday is fine for me."
MARK, TONE = marks.MARK_MS * RATE // 1000, marks.STEP_MS * RATE // 1000


async def messages_of(sound: Samples) -> list[dict[str, Any]]:
    """Return what a stream gives rise to, in pieces of 50 ms."""
    listener = Listener(RATE, "en-US", {marks.code_of(TEXT): TEXT}.get, vad_events=True, utterance_end=True)
    found: list[dict[str, Any]] = []
    for start in range(0, len(sound), RATE // 20):
        found += await listener.hear(sound[start : start + RATE // 20].tobytes())
    return found


async def heard(sound: Samples) -> list[str]:
    """Return the transcripts of a stream."""
    results = [told for told in await messages_of(sound) if told["type"] == "Results" and told["duration"] > 0]
    return [told["channel"]["alternatives"][0]["transcript"] for told in results]


def spoken(*, begin: bool = True, end: bool = True, share: float = 1.0) -> Samples:
    """The utterance; a mark that is not whole lost its third tone to a jitter buffer."""
    whole = marks.enclose(synthesize(TEXT, RATE), TEXT, RATE)
    lost = slice(2 * TONE, 3 * TONE)
    if not begin:
        whole[lost] = 0
    if not end:
        whole[-MARK:][lost] = 0
    return whole[: int(len(whole) * share)]


def quiet(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), dtype=np.int16)


@pytest.mark.parametrize(
    ("sound", "transcripts"),
    [
        (np.concatenate([spoken(), quiet(2)]), [TEXT]),
        (np.concatenate([spoken(end=False), quiet(QUIET_S + 0.3)]), [TEXT]),
        (np.concatenate([quiet(3), spoken(begin=False), quiet(0.3)]), [TEXT]),
        (np.concatenate([spoken(), quiet(0.2), spoken(begin=False), quiet(0.3)]), [TEXT, TEXT]),
        (np.concatenate([spoken(begin=False, end=False), quiet(QUIET_S + 0.3)]), [""]),
        (np.concatenate([spoken(end=False), quiet(QUIET_S - 0.3)]), []),
        (np.concatenate([spoken(share=0.4), quiet(2)]), [""]),
    ],
    ids=[
        "whole",
        "its end damaged",
        "its beginning damaged",
        "the second's beginning",
        "both damaged",
        "not yet over",
        "cut short",
    ],
)
async def test_an_utterance_is_over_at_its_mark_or_in_silence(sound: Samples, transcripts: list[str]) -> None:
    """A damaged mark costs the time of a silence at most, not the words; half of them are none."""
    assert await heard(sound) == transcripts


async def test_speech_of_which_no_mark_is_understood_starts_and_ends_all_the_same() -> None:
    """As a voice activity detector has it: whoever listens knows that somebody speaks."""
    told = await messages_of(np.concatenate([spoken(begin=False, end=False), quiet(2)]))
    kinds = [m["type"] for m in told if m["type"] != "Results" or m["duration"] > 0]
    assert kinds == ["SpeechStarted", "Results", "UtteranceEnd"]


async def test_a_short_noise_is_no_speech() -> None:
    """A door, a cough: nobody is told that somebody speaks."""
    noise = np.random.default_rng(7).integers(-9000, 9000, RATE // 3).astype(np.int16)
    assert await messages_of(np.concatenate([quiet(1), noise, quiet(2)])) == []
