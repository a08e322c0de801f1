"""The mix of a room on one time axis: tracks are laid where they were heard, summed, and taken off in order."""

from __future__ import annotations

import time
from typing import Final

import numpy as np
import numpy.typing as npt

from rehearsal.espeak import Samples

SETTLE_S: Final = 0.5
"""How long a moment stays open: what comes later than that for it is lost, as a mixer's latency has it."""
WINDOW_S: Final = 4
DRIFT_MAX_S: Final = 0.3
"""A track that is so far off its own clock is laid anew: it was muted, or the machine stood still."""


class Mixer:
    """Sums tracks of one sample rate; time 0 is `begin`."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._window: npt.NDArray[np.int32] = np.zeros(WINDOW_S * sample_rate, dtype=np.int32)
        self._taken = 0
        self._began_at: float | None = None

    @property
    def began(self) -> bool:
        """Tell whether the time axis has its beginning."""
        return self._began_at is not None

    def begin(self, lead_s: float = 0.0) -> None:
        """Set the beginning of the time axis: so long ago; the first call counts."""
        self._began_at = self._began_at or time.monotonic() - lead_s

    def now(self) -> int:
        """Return where the time axis is (samples)."""
        return 0 if self._began_at is None else round((time.monotonic() - self._began_at) * self._rate)

    def track(self) -> TrackClock:
        """Return the place of a new track."""
        return TrackClock(self)

    def lay(self, position: int, samples: Samples) -> None:
        """Add samples at a position; what lies before what was taken, or beyond the window, is lost."""
        offset = position - self._taken
        if offset < 0:
            samples, offset = samples[-offset:], 0
        room = len(self._window) - offset
        if room > 0 and len(samples):
            piece = samples[:room]
            self._window[offset : offset + len(piece)] += piece

    def take(self, until: int) -> Samples:
        """Return the mix from where the last one ended to a position, limited to 16 bit."""
        parts: list[Samples] = []
        while self._taken < until:
            count = min(until - self._taken, len(self._window))
            parts.append(np.clip(self._window[:count], -32768, 32767).astype(np.int16))
            self._window[:-count] = self._window[count:]
            self._window[-count:] = 0
            self._taken += count
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int16)

    def settled(self) -> int:
        """Return the position up to which nothing more is expected."""
        return max(self._taken, self.now() - round(SETTLE_S * self._rate))


class TrackClock:
    """Where one track's samples belong: by its own count from its first frame on, so that jitter leaves no holes."""

    def __init__(self, mixer: Mixer) -> None:
        self._mixer = mixer
        self._next: int | None = None

    def lay(self, samples: Samples, sample_rate: int) -> None:
        """Lay the next samples of the track, which have just been heard."""
        heard_at = self._mixer.now() - len(samples)
        if self._next is None or abs(heard_at - self._next) > DRIFT_MAX_S * sample_rate:
            self._next = heard_at
        self._mixer.lay(self._next, samples)
        self._next += len(samples)
