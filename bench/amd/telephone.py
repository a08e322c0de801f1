"""Openings as sound, as a telephone line carries them: voices of espeak-ng, a beep, G.711, noise."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.amd.grammar import Opening
from bench.amd.replaying import ENDPOINTING_S
from rehearsal.espeak import Samples, resample, speak_as

RATE: Final = 16_000
G711_RATE: Final = 8_000
VOICES: Final = {
    "en": ("en-us", "en-gb-x-rp", "en-us+f3", "en-us+m3", "en-gb-scotland", "en-us-nyc+f4"),
    "es": ("es", "es-419", "es+f2", "es-419+m4"),
}
SNR_DB: Final = (40.0, 25.0, 15.0)
"""Speech over noise: a good line, a fair one, a bad one."""
SPEECH_DBFS: Final = (-26.0, -16.0)
BEEPS_SHARE: Final = 0.75
"""Of voicemails, end their greeting with a beep."""
BEEP_HZ: Final = (440.0, 1_500.0)
BEEP_S: Final = (0.15, 0.8)
BEEP_DBFS: Final = (-26.0, -12.0)
BEFORE_BEEP_S: Final = (0.3, 1.4)
AFTER_S: Final = 8.0
_MU: Final = 255.0
_SILENT: Final = 200
"""Of 32768: what espeak leaves before and after its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sounding:
    """One opening as sound at `RATE`, and what is true of it, in seconds from the answer."""

    opening: Opening
    samples: Samples
    spoken: list[tuple[str, float, float]]
    """Utterances as a recogniser takes them: words, start, end."""
    beep: tuple[float, float] | None


def sounding(opening: Opening, chance: random.Random) -> Sounding:
    """Speak an opening over a line."""
    voice, level = chance.choice(VOICES[opening.language]), chance.uniform(*SPEECH_DBFS)
    parts = [_silence(opening.pick_up_s)]
    spoken: list[tuple[str, float, float]] = []
    for phrase, pause_s in zip(opening.phrases, (*opening.pauses_s, 0.0), strict=False):
        sound = _at_level(_trimmed(speak_as(voice, phrase, RATE)), level)
        starts = sum(map(len, parts)) / RATE
        ends = starts + len(sound) / RATE
        if spoken and starts - spoken[-1][2] < ENDPOINTING_S:
            spoken[-1] = (f"{spoken[-1][0]} {phrase}", spoken[-1][1], ends)
        else:
            spoken.append((phrase, starts, ends))
        parts += [sound, _silence(pause_s)]
    beep: tuple[float, float] | None = None
    if opening.category == "machine-vm" and chance.random() < BEEPS_SHARE:
        parts.append(_silence(chance.uniform(*BEFORE_BEEP_S)))
        tone = _at_level(_tone(chance.uniform(*BEEP_HZ), chance.uniform(*BEEP_S)), chance.uniform(*BEEP_DBFS))
        starts = sum(map(len, parts)) / RATE
        beep = (starts, starts + len(tone) / RATE)
        parts.append(tone)
    parts.append(_silence(AFTER_S))
    clean = np.concatenate(parts)
    noise = np.random.default_rng(chance.getrandbits(32)).normal(0, 1, len(clean))
    noisy = clean + noise * _rms_of_dbfs(level - chance.choice(SNR_DB))
    line = g711(np.clip(noisy, -32768, 32767).astype(np.int16))
    return Sounding(opening=opening, samples=line, spoken=spoken, beep=beep)


def g711(samples: Samples) -> Samples:
    """What µ-law at 8 kHz makes of a sound (ITU-T G.711, by its formula), back at `RATE`."""
    narrow = resample(samples, RATE, G711_RATE).astype(np.float64) / 32768
    pressed = np.sign(narrow) * np.log1p(_MU * np.abs(narrow)) / np.log1p(_MU)
    coded = np.round((pressed + 1) / 2 * 255) / 255 * 2 - 1
    opened = np.sign(coded) * (np.expm1(np.abs(coded) * np.log1p(_MU))) / _MU
    return resample((opened * 32767).astype(np.int16), G711_RATE, RATE)


def _silence(seconds: float) -> npt.NDArray[np.float64]:
    return np.zeros(round(seconds * RATE))


def _tone(hz: float, seconds: float) -> npt.NDArray[np.float64]:
    at = np.arange(round(seconds * RATE)) / RATE
    ramp = np.minimum(1.0, np.minimum(at, at[::-1]) / 0.004)
    return np.sin(2 * np.pi * hz * at) * ramp


def _trimmed(samples: Samples) -> Samples:
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _SILENT)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def _rms_of_dbfs(level: float) -> float:
    return float(32768 * 10 ** (level / 20))


def _at_level(samples: npt.NDArray[np.generic], level: float) -> npt.NDArray[np.float64]:
    sound = samples.astype(np.float64)
    rms = float(np.sqrt((sound**2).mean())) if len(sound) else 0.0
    return sound * (_rms_of_dbfs(level) / rms) if rms else sound
