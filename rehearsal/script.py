"""What a phone does that converses: steps, as `scripts/*.yaml` have them, one script a file, in English and in Spanish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import yaml

SCRIPTS: Final = Path(__file__).resolve().parent / "scripts"
LANGUAGES: Final[Mapping[str, str]] = {"en": "en-US", "es": "es"}
"""The languages of a script's lines, each with the tag of its voice."""
QUIET_S: Final = 0.8
"""So long must the far end be silent until a phone takes it for its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Speak a line, in the phone's language; whoever else speaks is spoken over."""

    lines: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Say nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hear:
    """Wait until the far end has said something that was not heard before, and is quiet; hang up when nothing comes."""

    within_s: float
    quiet_s: float = QUIET_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """Wait until the far end has been speaking for so long: the next step is in the middle of its words."""

    after_s: float
    within_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beep:
    """The tone of a machine."""

    ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """From here on a machine records what it hears, for so long; then it hangs up."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """Press a key."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitKey:
    """Wait for a key of the far end's; hang up when none comes."""

    within_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUp:
    """End the call."""


Step = Say | Pause | Hear | Interrupt | Beep | Record | Press | AwaitKey | HangUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One script; after its last step the phone stays on the line, silent. `is_machine`: what picks up is no person."""

    name: str
    steps: tuple[Step, ...]
    rings_for_s: float = 1.0
    is_machine: bool = False

    def line(self, step: Say, language: str) -> str:
        """Return what a step says in a language of `LANGUAGES`."""
        return step.lines[language]

    def lines(self, language: str) -> list[str]:
        """Return everything that the script says, in order."""
        return [step.lines[language] for step in self.steps if isinstance(step, Say)]

    @property
    def beeps(self) -> bool:
        """Tell whether it records after a tone."""
        return any(isinstance(step, Beep) for step in self.steps)

    @property
    def records(self) -> bool:
        """Tell whether it takes a message."""
        return any(isinstance(step, Record) for step in self.steps)


_STEPS: Final[Mapping[str, Callable[[Any], Step]]] = {
    "say": lambda lines: Say(lines={language: str(lines[language]) for language in LANGUAGES}),
    "pause_s": lambda seconds: Pause(seconds=float(seconds)),
    "hear": lambda asked: Hear(**asked),
    "interrupt": lambda asked: Interrupt(**asked),
    "beep_ms": lambda ms: Beep(ms=int(ms)),
    "record_s": lambda seconds: Record(seconds=float(seconds)),
    "press": lambda key: Press(key=str(key)),
    "await_key": lambda asked: AwaitKey(**asked),
    "hang_up": lambda _: HangUp(),
}
"""The steps by their word in a script; each stands alone in its item."""


@cache
def script_of(name: str) -> Script:
    """Read the script of this name. Raises: OSError for none; KeyError or TypeError for one that is not well-formed."""
    told = cast(dict[str, Any], yaml.safe_load((SCRIPTS / f"{name}.yaml").read_text(encoding="utf-8")))
    steps = tuple(_STEPS[word](value) for item in told.pop("steps") for word, value in item.items())
    return Script(name=name, steps=steps, **told)
