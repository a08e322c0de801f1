"""What is recognised of a stream of sound, whatever became of its marks."""

from __future__ import annotations

import numpy as np
import pytest

from rehearsal import marks
from rehearsal.espeak import Samples, synthesize
from rehearsal.listening import QUIET_S, Listener

RATE = 16_000
TEXT = "Tuesday is fine for me."
MARK = marks.MARK_MS * RATE // 1000


async def heard(sound: Samples) -> list[str]:
    """Return the transcripts of a stream, in pieces of 50 ms."""
    listener = Listener(RATE, "en-US", {marks.code_of(TEXT): TEXT}.get, vad_events=True, utterance_end=True)
    found: list[str] = []
    for start in range(0, len(sound), RATE // 20):
        for message in await listener.hear(sound[start : start + RATE // 20].tobytes()):
            if message["type"] == "Results" and message["duration"] > 0:
                found.append(message["channel"]["alternatives"][0]["transcript"])
    return found


def spoken(*, end: bool = True, share: float = 1.0) -> Samples:
    whole = marks.enclose(synthesize(TEXT, RATE), TEXT, RATE)
    kept = whole if end else whole[:-MARK]
    return kept[: int(len(kept) * share)]


def quiet(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), dtype=np.int16)


@pytest.mark.parametrize(
    ("sound", "transcripts"),
    [
        (np.concatenate([spoken(), quiet(2)]), [TEXT]),
        (np.concatenate([spoken(end=False), quiet(QUIET_S + 0.3)]), [TEXT]),
        (np.concatenate([spoken(end=False), quiet(QUIET_S - 0.3)]), []),
        (np.concatenate([spoken(share=0.4), quiet(2)]), [""]),
    ],
    ids=["whole", "its end not understood", "not yet over", "cut short"],
)
async def test_an_utterance_is_over_at_its_mark_or_in_silence(sound: Samples, transcripts: list[str]) -> None:
    """A damaged end costs the time of a silence, not the words; half of them are none."""
    assert await heard(sound) == transcripts
