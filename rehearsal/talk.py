"""What a phone that converses did and heard, on the time axis of its answer: the evidence of a conversation.

`<directory>/talks/<attempt id>.json`, and `.wav` with what it said; what it heard is in `heard/`, on the same axis.
"""

from __future__ import annotations

import json
import wave
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from rehearsal import ear
from rehearsal.espeak import Samples

SAMPLE_RATE: Final = ear.SAMPLE_RATE
MOMENTS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One thing that was said or heard, in milliseconds since the answer. `what`: say, beep, press, record, key, mark_begin, mark_end.

    `text` is the phone's own line, the key of a press, or the code of a mark.
    """

    what: str
    text: str
    begin_ms: float
    end_ms: float


@dataclass(slots=True, kw_only=True)
class Talk:
    """One phone's conversation, as far as it came."""

    attempt_id: str
    persona: str
    script: str
    language: str
    moments: list[Moment] = field(default_factory=list)
    over_ms: float = 0.0
    finished: bool = False
    """Whether the script came to its end."""

    def add(self, what: str, text: str, begin_ms: float, end_ms: float) -> None:
        """Write a moment down."""
        if len(self.moments) < MOMENTS_MAX:
            self.moments.append(Moment(what=what, text=text, begin_ms=round(begin_ms, 1), end_ms=round(end_ms, 1)))

    def of(self, *what: str) -> list[Moment]:
        """Return the moments of these kinds, in their order."""
        return [moment for moment in self.moments if moment.what in what]


def save(directory: Path, talk: Talk, said: Samples) -> None:
    """Write both files; whoever sees the JSON finds the recording whole."""
    folder = directory / "talks"
    folder.mkdir(parents=True, exist_ok=True)
    name = ear.stem(talk.attempt_id)
    with wave.open(str(folder / f"{name}.wav"), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(SAMPLE_RATE)
        recording.writeframes(said.tobytes())
    unfinished = folder / f"{name}.json.part"
    unfinished.write_text(json.dumps(asdict(talk), ensure_ascii=False), encoding="utf-8")
    unfinished.rename(folder / f"{name}.json")


def talk_of(directory: Path, attempt_id: str) -> Talk | None:
    """Read a conversation; None where no phone conversed."""
    path = directory / "talks" / f"{ear.stem(attempt_id)}.json"
    if not path.exists():
        return None
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Talk(**{**told, "moments": [Moment(**moment) for moment in told["moments"]]})


def said_of(directory: Path, attempt_id: str) -> Samples:
    """Read what a phone said; sample 0 is the answer."""
    with wave.open(str(directory / "talks" / f"{ear.stem(attempt_id)}.wav"), "rb") as recording:
        return np.frombuffer(recording.readframes(recording.getnframes()), dtype=np.int16)
