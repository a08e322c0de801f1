"""MP3 to a file and back, by PyAV: what livekit-egress writes (128 kbit/s, 44.1 kHz, stereo), and what a judge reads.

Source: livekit/egress pkg/config/pipeline.go (AudioBitrate, AudioFrequency).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import av
import numpy as np

from rehearsal.espeak import Samples

SAMPLE_RATE: Final = 44_100
BITRATE: Final = 128_000
CONTENT_TYPE: Final = "audio/mpeg"


class Undecodable(Exception):
    """Bytes that are no MP3."""


class Mp3File:
    """A file that grows: mono samples in, the same in both channels."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path), "w", format="mp3")
        self._stream = self._container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="stereo")
        self._stream.bit_rate = BITRATE
        self._written = 0

    @property
    def duration_s(self) -> float:
        """Return how much sound was written."""
        return self._written / SAMPLE_RATE

    def write(self, samples: Samples) -> None:
        """Append samples (s16, `SAMPLE_RATE`)."""
        if not len(samples):
            return
        both = np.repeat(samples, 2).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._written
        self._written += len(samples)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the header."""
        if self._written:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def decode(content: bytes, sample_rate: int) -> Samples:
    """Return the whole sound, mono s16 at `sample_rate` Hz. Raises: Undecodable."""
    parts: list[Samples] = []
    resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)
    try:
        with av.open(io.BytesIO(content), "r", format="mp3") as container:
            for frame in container.decode(audio=0):
                parts += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        parts += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except (av.FFmpegError, IndexError):
        raise Undecodable from None
    if not parts:
        raise Undecodable
    return np.concatenate(parts)
