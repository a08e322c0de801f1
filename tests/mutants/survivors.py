"""The mutants that no test notices, each with the reason why none should: `survivors.json`. One without a reason fails."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("survivors.json")
KILLED_MIN: Final = 0.90
REASON_MIN_CHARACTERS: Final = 15


def accepted() -> dict[str, str]:
    """Return key → reason of the survivors that are known."""
    return {key: reason for reason, keys in json.loads(FILE.read_text()).items() for key in keys}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a run came to."""

    total: int
    killed: int
    unexplained: tuple[str, ...]
    """Survivors without a reason."""
    outdated: tuple[str, ...]
    """Listed, and killed in this run, or made no more."""

    @property
    def share(self) -> float:
        """Return how many of all mutants were killed, listed ones counted as alive."""
        return self.killed / self.total if self.total else 1.0

    @property
    def holds(self) -> bool:
        """Tell whether the run passes."""
        return self.share >= KILLED_MIN and not self.unexplained and not self.outdated


def judge(killed: Iterable[str], survived: Iterable[str], made: Iterable[str]) -> Judgement:
    """Compare a run with the list; `made` are the keys of all mutants that there are."""
    dead, alive, listed = set(killed), set(survived), accepted()
    return Judgement(
        total=len(dead) + len(alive),
        killed=len(dead),
        unexplained=tuple(sorted(alive - set(listed))),
        outdated=tuple(sorted((set(listed) & dead) | (set(listed) - set(made)))),
    )
