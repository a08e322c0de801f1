"""The mix and the MP3: pure sound, no room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rehearsal import espeak, marks, mp3
from rehearsal.mixing import Mixer

RATE = mp3.SAMPLE_RATE


def tone(hz: float, seconds: float, level: float = 0.3) -> espeak.Samples:
    return (np.sin(2 * np.pi * hz * np.arange(round(RATE * seconds)) / RATE) * level * 32767).astype(np.int16)


def test_tracks_are_summed_where_they_were_laid() -> None:
    """Two tones that overlap by half: each alone at its end, both in the middle."""
    mixer = Mixer(RATE)
    first, second = tone(440, 1.0), tone(1000, 1.0)
    mixer.lay(0, first)
    mixer.lay(RATE // 2, second)
    mixed = mixer.take(RATE * 3 // 2)
    assert np.array_equal(mixed[: RATE // 2], first[: RATE // 2])
    assert np.array_equal(mixed[RATE // 2 : RATE], first[RATE // 2 :] + second[: RATE // 2])
    assert np.array_equal(mixed[RATE:], second[RATE // 2 :])


def test_a_sum_that_is_too_loud_is_limited_and_does_not_wrap() -> None:
    """Three shouting tracks stay at full scale."""
    mixer = Mixer(RATE)
    for _ in range(3):
        mixer.lay(0, np.full(RATE, 20_000, dtype=np.int16))
    assert set(mixer.take(RATE).tolist()) == {32_767}


def test_what_is_taken_is_taken_once_in_pieces_of_any_size() -> None:
    """The mix is one sound however it is taken, also beyond the window, and what comes too late is left out."""
    mixer, sound = Mixer(RATE), tone(440, 1.0)
    mixer.lay(0, sound)
    parts = [mixer.take(until) for until in (100, 100, 7_000, RATE)]
    assert np.array_equal(np.concatenate(parts), sound)
    assert not mixer.take(RATE * 12).any()
    mixer.lay(RATE * 12 - 10, np.full(20, 5, dtype=np.int16))
    assert mixer.take(RATE * 12 + 20).tolist() == [5] * 10 + [0] * 10


def test_an_mp3_is_as_long_as_what_was_written_and_its_marks_are_read(tmp_path: Path) -> None:
    """Encoded in pieces, decoded to another rate: the length within 50 ms, both marks in their places."""
    text = "Hello Ann, your prescription is ready."
    sound = marks.enclose(espeak.synthesize(text, RATE), text, RATE)
    file = mp3.Mp3File(tmp_path / "a.mp3")
    for start in range(0, len(sound), 30_011):
        file.write(sound[start : start + 30_011])
    file.close()
    heard = mp3.decode((tmp_path / "a.mp3").read_bytes(), 16_000)
    assert abs(len(heard) / 16_000 - len(sound) / RATE) < 0.05
    assert file.duration_s == pytest.approx(len(sound) / RATE)
    assert [(m.code, m.side) for m in marks.decode(heard, 16_000)] == [
        (marks.code_of(text), side) for side in (marks.Side.BEGIN, marks.Side.END)
    ]


@pytest.mark.parametrize("content", [b"", b"not an mp3", bytes(5_000)])
def test_what_is_no_mp3_is_not_decoded(content: bytes) -> None:
    """An empty file and garbage are said to be undecodable."""
    with pytest.raises(mp3.Undecodable):
        mp3.decode(content, 16_000)


def test_the_frame_that_begins_the_time_axis_is_on_it() -> None:
    """Its sound is as long ago as it lasts: none of it is lost, and nothing lies before it."""
    mixer, sound = Mixer(RATE), tone(440, 0.1)
    mixer.begin(0.1)
    mixer.track().lay(sound, RATE)
    mixed = mixer.take(mixer.now())
    first = int(np.flatnonzero(mixed)[0])
    assert np.array_equal(mixed[first - 1 :][: len(sound)], sound[: len(mixed) - first + 1])
