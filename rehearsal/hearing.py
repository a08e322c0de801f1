"""Did this recording hold that message? Both marks must name it, and what lies between must sound like it.

The audio between the marks is compared with a reference synthesis by band energies (20 ms windows, 10 ms apart, 20 bands
from 150 to 3,600 Hz, logarithmic): codecs and levels change samples, not those. The reference is slid along the recording
window by window (a jitter buffer stretches and shrinks a little), and *each* window must fit, so that one missing word
fails the whole, however long the rest.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from rehearsal import marks
from rehearsal.espeak import Samples, resample, synthesize
from rehearsal.marks import Mark, Side

CORRELATION_MIN: Final = 0.9
"""Least correlation of the whole utterance with its reference."""
WINDOW_CORRELATION_MIN: Final = 0.72
"""Least correlation of any single window of `_WINDOW_MS` with speech in it (measured: whole messages 0.75 on a machine at
five times its load and 0.93 on an idle one, one wrong short word 0.69 at most)."""
LENGTH_ERROR_MAX_MS: Final = 150
HOLE_MAX_MS: Final = 60
"""Most silence where the reference speaks, in any `_WINDOW_MS`: three lost packets pass, a lost syllable does not."""

_RATE = 16_000
_FRAME_MS, _HOP_MS = 20, 10
_BANDS = 20
_LOWEST_HZ, _HIGHEST_HZ = 150.0, 3_600.0
_RANGE_DB = 36.0  # what lies further below the loudest band counts as silence
_WINDOW_MS, _WINDOW_HOP_MS = 320, 40
_LAG_MAX_MS = 200  # how far a window may lie from its nominal place
_LAG_STEP_MS = 20  # how much that may change from one window to the next
_LAG_PENALTY = 0.01  # per hop of such a change: a plain recording shall not be warped for nothing
_SPEECH_MIN = 0.06  # mean feature level (0..1) under which a window is a pause
_SPOKEN_MIN, _SILENT_MAX = 0.15, 0.05  # the same of a single frame: surely speech, surely silence

Features = npt.NDArray[np.float64]


class Verdict(enum.StrEnum):
    """What the comparison found."""

    SAME = "same"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A recording beside the message it should hold; `reason` says why in words, "" when the verdict is `SAME`."""

    marks_ok: bool
    correlation: float
    window_correlation_min: float
    length_error_ms: float
    verdict: Verdict
    reason: str


@cache
def _filterbank(frame: int, sample_rate: int) -> Features:
    """Triangular bands, evenly spaced on the mel scale."""

    def mel(hz: float) -> float:
        return 2595.0 * float(np.log10(1 + hz / 700.0))

    edges = 700.0 * (10 ** (np.linspace(mel(_LOWEST_HZ), mel(_HIGHEST_HZ), _BANDS + 2) / 2595.0) - 1)
    bins = np.fft.rfftfreq(2 * frame, 1 / sample_rate)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    bank: Features = np.maximum(0.0, np.minimum(rising, falling))
    bank /= bank.sum(axis=0) + 1e-9
    return bank


def features(samples: Samples, sample_rate: int = _RATE) -> Features:
    """Band energies over time (frames x bands), 0 for silence to 1 for the loudest band of the recording."""
    frame, hop = sample_rate * _FRAME_MS // 1000, sample_rate * _HOP_MS // 1000
    sound = samples.astype(np.float64) / 32768
    if len(sound) < frame:
        return np.zeros((0, _BANDS))
    frames = np.lib.stride_tricks.sliding_window_view(sound, frame)[::hop] * np.hanning(frame)
    power = np.abs(np.fft.rfft(frames, n=2 * frame)) ** 2 @ _filterbank(frame, sample_rate)
    decibel = 10 * np.log10(power + 1e-9)
    loudest = np.percentile(decibel.max(axis=1), 98)
    levels: Features = np.clip((decibel - (loudest - _RANGE_DB)) / _RANGE_DB, 0.0, 1.0)
    return levels


def _correlation(a: Features, b: Features) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def _fits(heard: Features, wanted: Features, starts: npt.NDArray[np.int64], lag: int, size: int) -> Features:
    """How well each window of the reference fits the recording at one lag; 1.0 where both are silent."""
    shifted = np.zeros_like(wanted)
    low, high = max(0, -lag), min(len(wanted), len(heard) - lag)
    if high > low:
        shifted[low:high] = heard[low + lag : high + lag]
    ends = np.minimum(starts + size, len(wanted))
    cells = (ends - starts) * _BANDS

    def sums(frames: Features) -> Features:
        running = np.concatenate([[0.0], np.cumsum(frames.sum(axis=1))])
        total: Features = running[ends] - running[starts]
        return total

    ours, theirs = sums(wanted), sums(shifted)
    product = sums(wanted * shifted) - ours * theirs / cells
    spread = (sums(wanted**2) - ours**2 / cells) * (sums(shifted**2) - theirs**2 / cells)
    fit: Features = product / np.sqrt(np.maximum(spread, 1e-9))
    return np.where(np.maximum(ours, theirs) / cells < _SPEECH_MIN, 1.0, fit)


def _align(heard: Features, wanted: Features) -> list[tuple[int, int, float]]:
    """The best path of lags (Viterbi): (window's start, lag, fit) in hops, lag changing slowly."""
    size, hop = _WINDOW_MS // _HOP_MS, _WINDOW_HOP_MS // _HOP_MS
    reach, step = _LAG_MAX_MS // _HOP_MS, _LAG_STEP_MS // _HOP_MS
    starts = list(range(0, max(1, len(wanted) - size + 1), hop))
    if starts[-1] + size < len(wanted):
        starts.append(len(wanted) - size)
    lags = np.arange(-reach, reach + 1)
    fits = np.stack([_fits(heard, wanted, np.array(starts), int(lag), size) for lag in lags], axis=1)
    score, came_from = fits[0].copy(), np.zeros((len(starts), len(lags)), dtype=np.int64)
    for row in range(1, len(starts)):
        best, origin = np.full(len(lags), -np.inf), np.zeros(len(lags), dtype=np.int64)
        for change in range(-step, step + 1):
            source = np.arange(len(lags)) - change
            inside = (source >= 0) & (source < len(lags))
            gained = np.where(inside, score[np.clip(source, 0, len(lags) - 1)] - _LAG_PENALTY * abs(change), -np.inf)
            better = gained > best
            best[better], origin[better] = gained[better], source[better]
        score, came_from[row] = best + fits[row], origin
    path = [int(score.argmax())]
    for row in range(len(starts) - 1, 0, -1):
        path.append(int(came_from[row, path[-1]]))
    path.reverse()
    return [(start, int(lags[i]), float(fits[row, i])) for row, (start, i) in enumerate(zip(starts, path, strict=True))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resemblance:
    """How alike two recordings are: as a whole after alignment, in the window that fits worst, and the largest hole."""

    whole: float
    worst: float
    hole_ms: int


def resemblance(heard: Samples, wanted: Samples) -> Resemblance:
    """Compare two recordings (16 kHz)."""
    ours, theirs = features(wanted), features(heard)
    if not len(ours) or not len(theirs):
        return Resemblance(whole=0.0, worst=0.0, hole_ms=len(ours) * _HOP_MS)
    aligned = _align(theirs, ours)
    warped = np.zeros_like(ours)
    ends = [*(start for start, _, _ in aligned[1:]), len(ours)]
    for (start, lag, _), end in zip(aligned, ends, strict=True):
        rows = np.arange(start, end)
        source = rows + lag
        inside = (source >= 0) & (source < len(theirs))
        warped[rows[inside]] = theirs[source[inside]]
    silent = (ours.mean(axis=1) > _SPOKEN_MIN) & (warped.mean(axis=1) < _SILENT_MAX)
    hole = int(np.convolve(silent, np.ones(_WINDOW_MS // _HOP_MS, dtype=np.int64)).max())
    return Resemblance(
        whole=_correlation(ours, warped), worst=min(fit for _, _, fit in aligned), hole_ms=hole * _HOP_MS
    )


def utterances(samples: Samples, sample_rate: int) -> list[tuple[Mark, Mark]]:
    """The pairs of marks (begin, end) with one code that a recording holds, in order."""
    pairs: list[tuple[Mark, Mark]] = []
    begin: Mark | None = None
    for mark in marks.decode(samples, sample_rate):
        if mark.side is Side.BEGIN:
            begin = mark
        elif begin is not None and begin.code == mark.code:
            pairs.append((begin, mark))
            begin = None
    return pairs


def compare(heard_pcm: Samples, sample_rate: int, expected_text: str, language: str = "en-US") -> Heard:
    """Compare a recording (mono s16 at `sample_rate` Hz) with the message that it should hold exactly once, whole."""
    code = marks.code_of(expected_text)
    found = marks.decode(heard_pcm, sample_rate)
    ours = [mark for mark in found if mark.code == code]
    if [mark.side for mark in found if mark.code != code] or [m.side for m in ours] != [Side.BEGIN, Side.END]:
        return _different(_about_marks(found, code))
    begin, end = ours
    speech = synthesize(expected_text, _RATE, language)
    wanted = marks.enclose(speech, expected_text, _RATE)[marks.MARK_MS * _RATE // 1000 : -marks.MARK_MS * _RATE // 1000]
    between = resample(heard_pcm[begin.end : end.start], sample_rate, _RATE)
    gap = np.zeros(marks.GAP_MS * _RATE // 1000, dtype=np.int16)  # a mark ends with its last tone, its slot with a gap
    wanted = np.concatenate([gap, wanted])
    length_error_ms = (len(between) - len(wanted)) * 1000 / _RATE
    alike = resemblance(between, wanted)
    reason = ""
    if abs(length_error_ms) > LENGTH_ERROR_MAX_MS:
        reason = f"the speech is {length_error_ms:+.0f} ms off in length"
    elif alike.whole < CORRELATION_MIN:
        reason = f"the speech sounds different (correlation {alike.whole:.2f})"
    elif alike.hole_ms > HOLE_MAX_MS:
        reason = f"{alike.hole_ms} ms of the speech are silent"
    elif alike.worst < WINDOW_CORRELATION_MIN:
        reason = f"a part of the speech is missing or different (worst window {alike.worst:.2f})"
    return Heard(
        marks_ok=True,
        correlation=round(alike.whole, 4),
        window_correlation_min=round(alike.worst, 4),
        length_error_ms=round(length_error_ms, 1),
        verdict=Verdict.DIFFERENT if reason else Verdict.SAME,
        reason=reason,
    )


def _about_marks(found: list[Mark], code: int) -> str:
    """Say in words what is wrong with the marks."""
    if not found:
        return "no marks: nothing was spoken, or nothing came through"
    if all(mark.code != code for mark in found):
        return "the marks name another text"
    sides = [mark.side for mark in found if mark.code == code]
    if Side.BEGIN not in sides:
        return "the beginning is missing"
    if Side.END not in sides:
        return "the end is missing"
    return "the message was spoken more than once, or among others"


def _different(reason: str) -> Heard:
    return Heard(
        marks_ok=False,
        correlation=0.0,
        window_correlation_min=0.0,
        length_error_ms=0.0,
        verdict=Verdict.DIFFERENT,
        reason=reason,
    )
