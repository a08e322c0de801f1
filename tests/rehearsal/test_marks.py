"""Marks name a text so that a stand-in can truly hear it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehearsal import marks
from rehearsal.espeak import resample, synthesize
from rehearsal.marks import CODES, Side, code_of, decode, encode

TEXT = "Hello Ann, your prescription is ready at Main Street."


def both(sample_rate: int, code: int) -> np.ndarray:
    pause = np.zeros(sample_rate // 2, dtype=np.int16)
    return np.concatenate([pause, encode(code, Side.BEGIN, sample_rate), pause, encode(code, Side.END, sample_rate)])


def read(samples: np.ndarray, sample_rate: int) -> list[tuple[int, Side]]:
    return [(mark.code, mark.side) for mark in decode(samples, sample_rate)]


@settings(max_examples=150, deadline=None)
@given(code=st.integers(0, CODES - 1), rate=st.sampled_from([8_000, 16_000, 24_000, 48_000]))
def test_every_code_is_read_back_with_its_side(code: int, rate: int) -> None:
    """Encode then decode is the identity, at every rate that a telephone or WebRTC uses."""
    assert read(both(rate, code), rate) == [(code, Side.BEGIN), (code, Side.END)]


@settings(max_examples=60, deadline=None)
@given(code=st.integers(0, CODES - 1), level_db=st.floats(-36, 3), seed=st.integers(0, 1000))
def test_level_and_noise_do_not_change_what_is_read(code: int, level_db: float, seed: int) -> None:
    """From 36 dB down to clipping, with noise 26 dB under the tones."""
    noise = np.random.default_rng(seed).normal(0, 300, 3 * 16_000)[: len(both(16_000, code))]
    sound = np.clip((both(16_000, code) + noise) * 10 ** (level_db / 20), -32768, 32767).astype(np.int16)
    assert read(sound, 16_000) == [(code, Side.BEGIN), (code, Side.END)]


@pytest.mark.parametrize("piece", [80, 160, 317, 800, 4000])
def test_a_stream_in_pieces_reads_like_the_whole(piece: int) -> None:
    """The decoder does not care how audio is cut."""
    sound = both(16_000, code_of(TEXT))
    decoder, found = marks.Decoder(16_000), []
    for start in range(0, len(sound), piece):
        found += decoder.feed(sound[start : start + piece])
    assert found + decoder.flush() == decode(sound, 16_000)


def test_positions_enclose_the_speech() -> None:
    """The speech lies between the end of the first mark and the start of the second, to 10 ms."""
    speech = synthesize(TEXT, 16_000)
    begin, end = decode(marks.enclose(speech, TEXT, 16_000), 16_000)
    assert abs((end.start - begin.end) - (len(speech) + (2 * 60 + marks.GAP_MS) * 16)) < 160


def test_a_stretched_or_shrunk_mark_is_still_read() -> None:
    """A jitter buffer repeats or drops some 10 ms; a clock runs 0.1 % off."""
    sound = both(16_000, code_of(TEXT))
    wanted = read(sound, 16_000)
    middle = 16_000 // 2 + 200 * 16
    assert read(np.concatenate([sound[:middle], sound[middle - 160 :]]), 16_000) == wanted
    assert read(np.concatenate([sound[:middle], sound[middle + 160 :]]), 16_000) == wanted
    settling = sound[: middle + 640]  # 40 ms of a tone again: a loaded machine's jitter buffer at the start of a stream
    assert read(np.concatenate([settling, sound[middle:]]), 16_000) == wanted
    assert read(resample(sound, 16_000, 16_016), 16_000) == wanted


def test_a_beginning_is_never_an_end() -> None:
    """The check digit tells the two apart for every first tone."""
    for code in range(0, CODES, 997):
        assert [mark.side for mark in decode(encode(code, Side.BEGIN, 16_000), 16_000)] == [Side.BEGIN]


def test_speech_and_noise_hold_no_marks() -> None:
    """Nothing is heard where nothing was marked."""
    texts = (
        TEXT,
        "The quick brown fox jumps over the lazy dog.",
        "Please call us back at your convenience, thank you.",
    )
    for text in texts:
        assert decode(synthesize(text, 16_000), 16_000) == []
    assert decode(np.random.default_rng(1).normal(0, 3000, 20 * 16_000).astype(np.int16), 16_000) == []


def test_half_a_mark_is_no_mark() -> None:
    """A cut beginning or end is not guessed."""
    mark = encode(code_of(TEXT), Side.BEGIN, 16_000)
    assert decode(mark[: len(mark) * 4 // 6], 16_000) == []
    assert decode(mark[len(mark) * 2 // 6 :], 16_000) == []


def test_blanks_case_and_punctuation_do_not_change_the_code() -> None:
    """A plugin sends word by word; the words name the text."""
    assert code_of("Hello  Ann,\nyour order") == code_of("hello ann your order ")
    assert code_of("Hello Ann") != code_of("Hello Dan")
