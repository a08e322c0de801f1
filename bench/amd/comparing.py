"""Judges side by side over the same openings, with a recogniser that errs more and more."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from bench.amd.grammar import PARTS, Opening, Part, misheard, openings, phrase_count
from bench.amd.livekit_amd import judge_all
from bench.amd.matrix import Share, machines_as_people, people_as_machines
from bench.amd.plain_list import phrase_list, phrase_list_or_length
from bench.amd.replaying import Judged, ours
from bench.latency import percentile

ERRORS: Final = (0.0, 0.05, 0.1, 0.2)
"""Shares of words that a recogniser loses, or takes for others."""
OURS: Final = "this answerer"
Judge = Callable[[list[Opening], list[random.Random]], list[Judged]]


def _each(judge: Callable[[Opening, random.Random], Judged]) -> Judge:
    return lambda openings, chances: [judge(o, c) for o, c in zip(openings, chances, strict=True)]


JUDGES: Final[dict[str, Judge]] = {
    OURS: _each(ours),
    "LiveKit's AMD, the same rules": judge_all,
    "a phrase list": _each(phrase_list),
    "a phrase list, or 9 words (jambonz)": _each(phrase_list_or_length),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many openings of either side, by part."""

    people: dict[Part, int]
    machines: dict[Part, int]


FULL: Final = Size(people={"seen": 2_600, "held_out": 1_400}, machines={"seen": 1_800, "held_out": 1_000})
QUICK: Final = Size(people={"seen": 260, "held_out": 140}, machines={"seen": 180, "held_out": 100})


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one judge made of one part at one share of errors."""

    judge: str
    part: Part
    error: float
    judged: list[Judged]

    @property
    def people_lost(self) -> Share:
        """Return people who were taken for machines."""
        return people_as_machines(self.judged)

    @property
    def machines_missed(self) -> Share:
        """Return machines that were taken for people."""
        return machines_as_people(self.judged)

    @property
    def verdict_p95_s(self) -> float | None:
        """Return how long after the end of speech a verdict comes, p95; None where time plays no part."""
        known = [j.latency_s for j in self.judged if j.latency_s is not None]
        return percentile(known, 0.95) if known else None


def compare_all(size: Size, seed: int) -> list[Found]:
    """Let every judge judge everything."""
    found = []
    for part in PARTS:
        clean = openings(part, size.people[part], size.machines[part], seed)
        for error in ERRORS:
            worse = [misheard(o, error, random.Random(f"{seed} {error} {i}")) for i, o in enumerate(clean)]
            for name, judge in JUDGES.items():
                chances = [random.Random(f"{seed} {i}") for i in range(len(worse))]
                found.append(Found(judge=name, part=part, error=error, judged=judge(worse, chances)))
    return found


def table(found: list[Found]) -> Table:
    """Lay out both errors of every judge, with their intervals."""
    laid = Table("judge", "words lost or wrong", "people taken for machines", "machines taken for people", "p95 s")
    for part in PARTS:
        laid.add_section()
        phrases = phrase_count(part)
        name = "phrases that were in sight" if part == "seen" else "phrases held out"
        laid.add_row(f"[bold]{name}[/bold] ({phrases} of them)")
        for one in found:
            if one.part == part:
                p95_s = one.verdict_p95_s
                shown = "" if p95_s is None else f"{p95_s:.2f}"
                laid.add_row(one.judge, f"{one.error:.0%}", str(one.people_lost), str(one.machines_missed), shown)
    return laid
