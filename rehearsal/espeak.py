"""A voice for the rehearsal: espeak-ng in process, from the `espeakng-loader` wheel, by ctypes.

The same text sounds the same in every process, though not sample by sample: espeak-ng carries its oscillator's state from
one utterance to the next, which moves things by up to 1 ms in 3 s (measured). `rehearsal.hearing` compares with that slack.
Source: espeak-ng `speak_lib.h` (API revision 12).
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Final

import espeakng_loader
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

VOICES: Final[dict[str, str]] = {"en-US": "en-us", "es": "es"}
"""Our language tags and espeak's voice names."""

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

_lock = threading.Lock()  # espeak-ng keeps its whole state in globals


class _Engine:
    """The one espeak-ng of this process: loaded at the first word, never unloaded."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        self.sample_rate: int = self._lib.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0
        )
        if self.sample_rate <= 0:
            raise RuntimeError("espeak-ng did not start: its data directory is missing or broken")
        self._parts: list[bytes] = []
        self._callback = _CALLBACK(self._collect)  # held, for espeak keeps only the address
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, wave: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if wave and count > 0:
            self._parts.append(ctypes.string_at(wave, count * 2))
        return 0

    def speak(self, text: str, voice: str) -> Samples:
        self._parts = []
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice}")
        encoded = text.encode()
        if self._lib.espeak_Synth(encoded, len(encoded) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None) != 0:
            raise RuntimeError("espeak-ng refused to speak")
        return np.frombuffer(b"".join(self._parts), dtype=np.int16)


@functools.cache
def _engine() -> _Engine:
    return _Engine()


def resample(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """The same sound at another rate (Hz), band-limited: the spectrum is cut or padded in one FFT."""
    if from_rate == to_rate or not len(samples):
        return samples
    count = round(len(samples) * to_rate / from_rate)
    spectrum = np.fft.rfft(samples.astype(np.float64))
    wanted = np.zeros(count // 2 + 1, dtype=np.complex128)
    shared = min(len(spectrum), len(wanted))
    wanted[:shared] = spectrum[:shared]
    sound = np.fft.irfft(wanted, n=count) * (count / len(samples))
    return np.clip(np.round(sound), -32768, 32767).astype(np.int16)


def voice_of(language: str) -> str:
    """Espeak's voice for a language tag: by its primary subtag ("es-MX" speaks "es"), else US English."""
    by_subtag = {tag.partition("-")[0].lower(): voice for tag, voice in VOICES.items()}
    return by_subtag.get(language.partition("-")[0].lower(), VOICES["en-US"])


@functools.lru_cache(maxsize=256)
def _spoken(text: str, voice: str, sample_rate: int) -> Samples:
    with _lock:
        engine = _engine()
        samples = engine.speak(text, voice)
        rate = engine.sample_rate
    sound = resample(samples, rate, sample_rate)
    sound.flags.writeable = False
    return sound


def synthesize(text: str, sample_rate: int, language: str = "en-US") -> Samples:
    """Speak `text` (blanks collapsed): mono s16 samples at `sample_rate` Hz; read-only, shared by callers.

    Raises: ValueError for an unknown voice; RuntimeError when espeak-ng itself fails.
    """
    return _spoken(" ".join(text.split()), voice_of(language), sample_rate)


def speak_as(voice: str, text: str, sample_rate: int) -> Samples:
    """Speak with a voice by espeak-ng's own name, variants included (`es-419`, `en-us+f3`); read-only, shared by callers.

    Raises: ValueError for an unknown voice; RuntimeError when espeak-ng itself fails.
    """
    return _spoken(" ".join(text.split()), voice, sample_rate)
