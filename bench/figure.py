"""One figure: what was measured, round by round, and what it is held against; the table and `run/bench.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import orjson
from rich.console import Console
from rich.table import Table

AT_LEAST: Final = "≥"
AT_MOST: Final = "≤"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of one figure: the value, and the limit that was measured beside it (or is set)."""

    value: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What must hold: of the value, or of its ratio to the limit; `each`: in every round, the worst is shown."""

    sign: str
    bound: float
    of_ratio: bool = False
    goal: float | None = None
    each: bool = False

    def __str__(self) -> str:
        text = f"{'ratio ' if self.of_ratio else ''}{self.sign} {self.bound:g}"
        return text if self.goal is None else f"{text} (goal {self.goal:g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure over all its rounds; `bound` None: shown, not judged."""

    name: str
    unit: str
    rounds: tuple[Round, ...]
    bound: Bound | None = None

    @property
    def value(self) -> float:
        """Return the median round's value, or the worst one's where each must hold."""
        values = [r.value for r in self.rounds]
        if self.bound is None or not self.bound.each:
            return median(values)
        return max(values) if self.bound.sign == AT_MOST else min(values)

    @property
    def limit(self) -> float:
        """Return the median round's limit."""
        return median(r.limit for r in self.rounds)

    @property
    def ratio(self) -> float:
        """Return the median of the rounds' own ratios: value and limit of one round ran side by side."""
        return median(r.value / r.limit if r.limit else 0.0 for r in self.rounds)

    def is_met(self) -> bool:
        """Tell whether the bound holds."""
        if self.bound is None:
            return True
        found = self.ratio if self.bound.of_ratio else self.value
        return found >= self.bound.bound if self.bound.sign == AT_LEAST else found <= self.bound.bound

    def document(self) -> dict[str, object]:
        """Return the figure as it stands in `run/bench.json`."""
        return {
            "name": self.name,
            "value": _short(self.value),
            "unit": self.unit,
            "limit": _short(self.limit),
            "ratio": round(self.ratio, 4),
            "rounds": len(self.rounds),
        }


def _short(number: float) -> float:
    return round(number, 3) if abs(number) < 1000 else round(number)


def _shown(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:,.3g}"


def show(figures: Sequence[Figure], console: Console) -> None:
    """Print the table."""
    table = Table("figure", "value", "unit", "limit", "ratio", "rounds (lowest … highest)", "must", "")
    for figure in figures:
        values = [r.value for r in figure.rounds]
        table.add_row(
            figure.name,
            _shown(figure.value),
            figure.unit,
            _shown(figure.limit),
            f"{figure.ratio:.3f}",
            f"{len(values)} ({_shown(min(values))} … {_shown(max(values))})",
            str(figure.bound or ""),
            "" if figure.bound is None else "met" if figure.is_met() else "MISSED",
        )
    console.print(table)


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write `run/bench.json`; figures of earlier runs that were not measured now are kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    documents = {f.name: f.document() for f in figures}
    if path.exists():
        documents = {d["name"]: d for d in orjson.loads(path.read_bytes())} | documents
    path.write_bytes(orjson.dumps(list(documents.values()), option=orjson.OPT_INDENT_2))
