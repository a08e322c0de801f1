"""A voicemail's beep, found in the sound itself: one steady tone, well above all else, of 120 ms or more.

Windows of 64 ms, 16 ms apart, at 16 kHz: long enough that two tones of a ring-back or of a rehearsal's mark stand apart,
and that a voice, whose pitch moves and which has overtones, is none. Tones survive G.711 and Opus nearly whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

SAMPLE_RATE: Final = 16_000
TONE_MIN_HZ: Final = 400.0
TONE_MAX_HZ: Final = 2_000.0
BEEP_MIN_S: Final = 0.12
BEEP_MAX_S: Final = 4.0
"""Longer is a dial tone, a fax or music."""
PURITY_MIN: Final = 0.85
"""Share of a window's power (100 Hz to 3,800 Hz) that lies in its one tone."""
DRIFT_MAX_HZ: Final = 20.0
SWELL_MAX_DB: Final = 6.0
"""How much the tone's level may change from one window to the next."""
MISSED_MAX: Final = 2
"""Windows amid a tone that may be something else."""
LEVEL_MIN_DBFS: Final = -45.0
LOUD_MIN_DBFS: Final = -48.0
"""What is quieter is silence, whatever the line's own noise."""
LOUD_ABOVE_FLOOR_DB: Final = 8.0
FLOOR_MIN_DBFS: Final = -60.0
FLOOR_RISES_DB_S: Final = 6.0
"""How fast the noise floor may be believed to rise; it falls at once."""

_WINDOW, _HOP = 1024, 256
_HOP_S: Final = _HOP / SAMPLE_RATE
_BIN_HZ: Final = SAMPLE_RATE / _WINDOW
_REACH = 2  # bins on either side of a peak that hold a Hann window's tone
_LOW, _HIGH = round(100 / _BIN_HZ), round(3_800 / _BIN_HZ)
_FIRST, _LAST = round(TONE_MIN_HZ / _BIN_HZ), round(TONE_MAX_HZ / _BIN_HZ)
_HANN: Final = np.hanning(_WINDOW).astype(np.float32)
_SCALE: Final = float(2.0 / (_HANN.astype(np.float64) ** 2).sum() / _WINDOW)
_WINDOW_S: Final = _WINDOW / SAMPLE_RATE
_WINDOWS_MIN: Final = 4
"""A tone of 120 ms fills (120 - 64) / 16 = 3.5 windows; its ends fill two more in part, which are pure as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beep:
    """One beep, in seconds on the clock of whoever fed the sound."""

    started_at: float
    ended_at: float
    hz: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tone:
    hz: float
    level_db: float


class Listener:
    """Finds beeps in a stream of 16 kHz samples, whatever the size of the pieces, and says how long it has been quiet."""

    def __init__(self) -> None:
        self._pending: Samples = np.zeros(0, dtype=np.int16)
        self._run: list[_Tone] = []
        self._missed = 0
        self._floor_db = FLOOR_MIN_DBFS + LOUD_ABOVE_FLOOR_DB
        self.loud_at: float | None = None
        """When something was last heard that is no silence; None: never."""
        self.heard_until: float | None = None
        """How far the sound was looked at."""

    def feed(self, samples: Samples, at: float) -> Beep | None:
        """Take the next samples; `at` is when the last of them was heard. Returns a beep that ended in them."""
        self._pending = np.concatenate([self._pending, samples])
        found: Beep | None = None
        while len(self._pending) >= _WINDOW:
            left_s = (len(self._pending) - _WINDOW) / SAMPLE_RATE
            found = self._look(self._pending[:_WINDOW], at - left_s) or found
            self._pending = self._pending[_HOP:]
        return found

    def _look(self, window: Samples, until: float) -> Beep | None:
        sound = window.astype(np.float32) / 32768
        spectrum = np.fft.rfft(sound * _HANN)
        power = (spectrum.real**2 + spectrum.imag**2) * _SCALE
        self._level(float(power[_LOW:].sum()), until)
        tone = _tone(power)
        if tone is not None:
            self.loud_at = until  # however faint
        if tone is not None and self._goes_on(tone):
            self._run.append(tone)
            self._missed = 0
            return None
        self._missed += 1
        if self._run and self._missed <= MISSED_MAX:
            return None  # a crackle amid a tone is not its end
        run, self._run = self._run, [tone] if tone is not None else []
        ended_at = until - self._missed * _HOP_S - _WINDOW_S / 2
        self._missed = 0
        return _beep(run, ended_at)

    def _level(self, power: float, until: float) -> None:
        level_db = 10 * float(np.log10(power + 1e-12))
        self._floor_db = max(FLOOR_MIN_DBFS, min(level_db, self._floor_db + FLOOR_RISES_DB_S * _HOP_S))
        self.heard_until = until
        if level_db > max(LOUD_MIN_DBFS, self._floor_db + LOUD_ABOVE_FLOOR_DB):
            self.loud_at = until

    def _goes_on(self, tone: _Tone) -> bool:
        if not self._run:
            return True
        last = self._run[-1]
        return abs(tone.hz - self._run[0].hz) <= DRIFT_MAX_HZ and abs(tone.level_db - last.level_db) <= SWELL_MAX_DB


def _tone(power: npt.NDArray[np.floating[Any]]) -> _Tone | None:
    """Return the one tone that a window holds, if it holds no more."""
    peak = _FIRST + int(power[_FIRST : _LAST + 1].argmax())
    around = power[peak - _REACH : peak + _REACH + 1]
    alone, total = float(around.sum()), float(power[_LOW:_HIGH].sum())
    level_db = 10 * float(np.log10(alone + 1e-12))
    if level_db < LEVEL_MIN_DBFS or alone < PURITY_MIN * total:
        return None
    bins = np.arange(peak - _REACH, peak + _REACH + 1)
    return _Tone(hz=float((bins * around).sum()) / alone * _BIN_HZ, level_db=level_db)


def _beep(run: list[_Tone], ended_at: float) -> Beep | None:
    """Return the beep that a finished run of windows was."""
    if len(run) < _WINDOWS_MIN:
        return None
    length_s = len(run) * _HOP_S + _WINDOW_S / 2
    if length_s + _HOP_S < BEEP_MIN_S or length_s > BEEP_MAX_S:
        return None
    hz = float(np.median([tone.hz for tone in run]))
    return Beep(started_at=ended_at - length_s, ended_at=ended_at, hz=hz)
