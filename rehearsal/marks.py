"""In-band marks: a short tune before and after an utterance that names its text, so that a stand-in can truly hear.

No small recogniser understands espeak, so every utterance carries its name: six dual tones of 60 ms (20 ms apart)
before the speech and six after it. Both spell the same code of the text; the last tone is a check digit that differs
between the two, so that a beginning is never taken for an end. Consecutive tones always differ, so a jitter buffer that
stretches one cannot make two of it. All tones lie between 600 and 3000 Hz: they pass Opus and a telephone line.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from rehearsal.espeak import Samples

ROWS_HZ: Final = (683.0, 827.0, 1003.0, 1213.0)
COLUMNS_HZ: Final = (1511.0, 1823.0, 2207.0, 2657.0)
TONES = 6
TONE_MS, GAP_MS, RAMP_MS = 60, 20, 4
STEP_MS = TONE_MS + GAP_MS
MARK_MS = TONES * STEP_MS
CODES = 16 * 15**4
"""How many texts have different codes (810,000); texts that share one are told apart by their sound."""

_DIGITS = 15  # a tone is one of the 15 that differ from its predecessor
_END_SHIFT = 7  # check digit of an end minus that of a beginning, mod 15
_LEVEL = 0.18  # of full scale, each of the two tones
_WINDOW_MS, _HOP_MS = 45, 5
_PURITY_MIN = 0.55  # share of a window's power that lies in its two tones
_DOMINANCE = 4.0  # power of the best row (column) over the second best
_TWIST_MAX = 20.0  # power ratio between the two tones
_FLOOR_DBFS = -55.0
_MERGE_MS = 50  # the same tone after a hole this long is still the same tone: consecutive tones differ
_STEP_MIN_MS, _STEP_MAX_MS = 45, 170  # a jitter buffer at the start of a stream was seen to stretch a step to 125 ms


class Side(enum.StrEnum):
    """Which end of an utterance a mark stands at."""

    BEGIN = "begin"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A decoded mark: its code, its side, and where it lies (samples from the start of what was decoded)."""

    code: int
    side: Side
    start: int
    end: int


def code_of(text: str) -> int:
    """The code of a text: from the hash of its words alone, so that blanks, case and punctuation do not matter."""
    words = "".join(c if c.isalnum() else " " for c in unicodedata.normalize("NFKC", text).casefold()).split()
    return int.from_bytes(hashlib.sha256(" ".join(words).encode()).digest()[:8], "big") % CODES


def _symbols(code: int, side: Side) -> list[int]:
    symbols, rest = [code % 16], code // 16
    digits = [rest // _DIGITS**i % _DIGITS for i in range(4)]
    for digit in [*digits, _check(symbols[0], digits, side)]:
        symbols.append((symbols[-1] + 1 + digit) % 16)
    return symbols


def _check(first: int, digits: list[int], side: Side) -> int:
    weighted = first + sum((2 * i + 3) * digit for i, digit in enumerate(digits))
    return (weighted + (_END_SHIFT if side is Side.END else 0)) % _DIGITS


def _read(symbols: list[int]) -> tuple[int, Side] | None:
    digits = [(b - a - 1) % 16 for a, b in itertools.pairwise(symbols)]
    if any(digit >= _DIGITS for digit in digits):
        return None
    for side in Side:
        if digits[4] == _check(symbols[0], digits[:4], side):
            return symbols[0] + 16 * sum(digit * _DIGITS**i for i, digit in enumerate(digits[:4])), side
    return None


def encode(code: int, side: Side, sample_rate: int) -> Samples:
    """The mark as s16 samples at `sample_rate` Hz, `MARK_MS` long (the last gap included)."""
    tone, step, ramp = (sample_rate * ms // 1000 for ms in (TONE_MS, STEP_MS, RAMP_MS))
    sound = np.zeros(TONES * step)
    at = np.arange(tone) / sample_rate
    fade = np.ones(tone)
    fade[:ramp] = 0.5 - 0.5 * np.cos(np.pi * np.arange(ramp) / ramp)
    fade[-ramp:] = fade[:ramp][::-1]
    for i, symbol in enumerate(_symbols(code, side)):
        row, column = ROWS_HZ[symbol // 4], COLUMNS_HZ[symbol % 4]
        sound[i * step : i * step + tone] = fade * (np.sin(2 * np.pi * row * at) + np.sin(2 * np.pi * column * at))
    return (sound * _LEVEL * 32767).astype(np.int16)


@cache
def _probes(sample_rate: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Cosine and sine probes of the eight frequencies under a Hann window, and the window's square."""
    length = sample_rate * _WINDOW_MS // 1000
    window = np.hanning(length)
    phase = 2 * np.pi * np.outer(np.array(ROWS_HZ + COLUMNS_HZ), np.arange(length)) / sample_rate
    scale = np.sqrt(2.0) / window.sum()  # a sine of amplitude a gives power a*a/2
    cosine, sine = (window * np.cos(phase) * scale).T, (window * np.sin(phase) * scale).T
    return cosine.astype(np.float32), sine.astype(np.float32), (window**2 / (window**2).sum()).astype(np.float32)


def _classify(frames: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.int64]:
    """The symbol that each window (a row, full scale 1.0) holds, or -1."""
    cosine, sine, square = _probes(sample_rate)
    power = (frames @ cosine) ** 2 + (frames @ sine) ** 2
    total = (frames**2) @ square + 1e-12
    rows, columns = np.sort(power[:, :4], axis=1), np.sort(power[:, 4:], axis=1)
    high, low = rows[:, 3], columns[:, 3]
    clear = (
        (total > 10 ** (_FLOOR_DBFS / 10))
        & ((high + low) / total > _PURITY_MIN)
        & (high > _DOMINANCE * rows[:, 2])
        & (low > _DOMINANCE * columns[:, 2])
        & (np.maximum(high, low) < _TWIST_MAX * np.minimum(high, low))
    )
    return np.where(clear, power[:, :4].argmax(axis=1) * 4 + power[:, 4:].argmax(axis=1), -1)


@dataclass(slots=True)
class _Run:
    """Neighbouring windows that hold one symbol; centres in hops."""

    symbol: int
    first: int
    last: int

    @property
    def centre(self) -> float:
        return (self.first + self.last) / 2


class Decoder:
    """Finds marks in a stream of s16 samples, whatever the size of the pieces."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._hop = sample_rate * _HOP_MS // 1000
        self._length = sample_rate * _WINDOW_MS // 1000
        self._pending = np.zeros(0, dtype=np.float32)
        self._hops = 0
        self._runs: list[_Run] = []

    def feed(self, samples: Samples) -> list[Mark]:
        """Take the next samples; returns the marks that are complete by now, positions from the stream's start."""
        self._pending = np.concatenate([self._pending, samples.astype(np.float32) / 32768])
        if len(self._pending) < self._length:
            return []
        frames = np.lib.stride_tricks.sliding_window_view(self._pending, self._length)[:: self._hop]
        symbols = _classify(frames, self._rate)
        self._pending = self._pending[len(frames) * self._hop :]
        found: list[Mark] = []
        for symbol in symbols.tolist():
            if symbol >= 0:
                self._extend(symbol)
            if (mark := self._settled()) is not None:
                found.append(mark)
            self._hops += 1
        return found

    def flush(self) -> list[Mark]:
        """Say that nothing follows: returns a mark that stood at the very end."""
        return self.feed(np.zeros(self._rate * (_WINDOW_MS + 2 * _MERGE_MS) // 1000, dtype=np.int16))

    def _extend(self, symbol: int) -> None:
        last = self._runs[-1] if self._runs else None
        if last is not None and last.symbol == symbol and (self._hops - last.last) * _HOP_MS <= _MERGE_MS:
            last.last = self._hops
        else:
            self._runs = [*self._runs[-TONES:], _Run(symbol, self._hops, self._hops)]

    def _settled(self) -> Mark | None:
        """The mark that the last runs spell, once its last tone cannot grow any more."""
        if len(self._runs) < TONES or (self._hops - self._runs[-1].last) * _HOP_MS <= _MERGE_MS:
            return None
        runs = [run for run in self._runs if run.last > run.first][-TONES:]  # a lone window is a splash, not a tone
        steps = [(b.centre - a.centre) * _HOP_MS for a, b in itertools.pairwise(runs)]
        if len(runs) < TONES or not all(_STEP_MIN_MS <= step <= _STEP_MAX_MS for step in steps):
            return None
        if (read := _read([run.symbol for run in runs])) is None:
            return None
        self._runs = []
        half_window, half_tone = self._length // 2, self._rate * TONE_MS // 2000
        start = round(runs[0].centre * self._hop) + half_window - half_tone
        end = round(runs[-1].centre * self._hop) + half_window + half_tone
        return Mark(code=read[0], side=read[1], start=max(0, start), end=end)


def decode(samples: Samples, sample_rate: int) -> list[Mark]:
    """All marks in a recording, in order."""
    decoder = Decoder(sample_rate)
    return decoder.feed(samples) + decoder.flush()


def enclose(speech: Samples, text: str, sample_rate: int, pause_ms: int = 60) -> Samples:
    """The utterance as it is sent: mark, pause, speech, pause, mark."""
    pause = np.zeros(sample_rate * pause_ms // 1000, dtype=np.int16)
    code = code_of(text)
    return np.concatenate(
        [encode(code, Side.BEGIN, sample_rate), pause, speech, pause, encode(code, Side.END, sample_rate)]
    )
