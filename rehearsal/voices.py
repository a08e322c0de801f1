"""Is this voice in that mix? Each thing that was said is looked for where it must be, by its band energies.

What is compared is as in `hearing`: codecs and levels change samples, not those. An utterance is judged by the moments at
which nobody else spoke; where there are too few of them, by all of its moments, against a lower limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rehearsal.espeak import Samples
from rehearsal.hearing import Features, features

SAMPLE_RATE: Final = 16_000
ALONE_MIN: Final = 0.6
"""Least correlation of what was said alone."""
OVERLAID_MIN: Final = 0.45
"""The same of what was said while the other spoke."""
LAG_MAX_S: Final = 0.9
"""How far something may lie from its place: the recorder hears it later than it was sent, and began not quite when it was told."""
MARGIN_S: Final = 0.3
"""What lies so near to either end of the recording is not looked for."""
_HOP_S: Final = 0.01
_SOUNDING_MIN: Final = 0.15
_PAUSE: Final = 30  # hops: a longer pause ends an utterance
_LENGTH_MIN: Final = 30  # hops that are judged at least
_SPREAD: Final = 15  # hops around the other's sound that are not "alone"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How much of a voice is in a mix: of so many utterances so many, and the correlation of the worst of these."""

    utterances: int
    found: int
    worst: float

    @property
    def whole(self) -> bool:
        """Tell whether all that was said is there; True as well where nothing was said."""
        return self.found == self.utterances


def held(mix: Samples, voice: Samples, other: Samples, began_s: float) -> Held:
    """Look for a voice; `began_s` is where the mix begins on the time axis that `voice` and `other` share."""
    ours, theirs, mixed = features(voice), features(other), features(mix)
    if not len(ours) or not len(mixed):
        return Held(utterances=0, found=0, worst=1.0)
    start = round(began_s / _HOP_S)
    sounding = ours.mean(axis=1) > _SOUNDING_MIN
    alone = sounding & ~_spread(theirs, len(ours))
    place = np.arange(len(ours)) - start
    margin = round(MARGIN_S / _HOP_S)
    inside = (place >= margin) & (place < len(mixed) - margin)
    fits: list[tuple[float, float]] = []
    for first, last in _utterances(sounding):
        span = np.arange(first, last)
        for moments, limit in ((alone & inside, ALONE_MIN), (sounding & inside, OVERLAID_MIN)):
            chosen = span[moments[first:last]]
            if len(chosen) >= _LENGTH_MIN:
                fits.append((_fit(ours, mixed, chosen, start), limit))
                break
    worst = min((fit for fit, _ in fits), default=1.0)
    return Held(utterances=len(fits), found=sum(fit >= limit for fit, limit in fits), worst=round(worst, 3))


def _spread(theirs: Features, length: int) -> Mask:
    """Where the other speaks, and a little before and after."""
    speaks = np.zeros(length, dtype=bool)
    known = theirs[:length].mean(axis=1) > _SOUNDING_MIN if len(theirs) else speaks[:0]
    speaks[: len(known)] = known
    near: Mask = np.convolve(speaks, np.ones(2 * _SPREAD + 1), mode="same") > 0
    return near


def _utterances(sounding: Mask) -> list[tuple[int, int]]:
    """The stretches of sound, (first, last + 1) in hops."""
    at = np.flatnonzero(sounding)
    if not len(at):
        return []
    breaks = np.flatnonzero(np.diff(at) > _PAUSE)
    firsts = [at[0], *at[breaks + 1]]
    lasts = [*at[breaks], at[-1]]
    return [(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]


def _fit(ours: Features, mixed: Features, chosen: npt.NDArray[np.int64], start: int) -> float:
    """The best correlation over all lags."""
    wanted = ours[chosen]
    reach, best = round(LAG_MAX_S / _HOP_S), 0.0
    for lag in range(-reach, reach + 1):
        where = chosen - start + lag
        inside = (where >= 0) & (where < len(mixed))
        if inside.sum() >= _LENGTH_MIN:
            best = max(best, _correlation(wanted[inside], mixed[where[inside]]))
    return best


def _correlation(a: Features, b: Features) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0
