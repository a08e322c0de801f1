"""A confusion matrix, and how sure a share of it is: Wilson's interval, 95 %."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Final, get_args

from rich.table import Table

from bench.amd.replaying import Judged
from schemas.facts import AnswererCategory

Z_95: Final = 1.959964
CATEGORIES: Final[tuple[AnswererCategory, ...]] = get_args(AnswererCategory)
SPOKEN_TO: Final[frozenset[AnswererCategory]] = frozenset({"human", "uncertain"})
"""Who is spoken to as to a person. A screener is not: it is told who is calling; here that counts as a machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of so many, and the interval in which the true share lies."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """Return the share itself."""
        return self.count / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's interval. Source: Wilson 1927; Brown, Cai, DasGupta 2001."""
        if not self.of:
            return 0.0, 1.0
        square = Z_95**2
        middle = (self.value + square / (2 * self.of)) / (1 + square / self.of)
        half = Z_95 / (1 + square / self.of) * sqrt(self.value * (1 - self.value) / self.of + square / (4 * self.of**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count} of {self.of} = {self.value:.2%} ({low:.2%} … {high:.2%})"


def people_as_machines(judged: Iterable[Judged]) -> Share:
    """Return how many people were not spoken to as people: the worst error."""
    people = [j for j in judged if j.opening.category == "human"]
    return Share(count=sum(j.category not in SPOKEN_TO for j in people), of=len(people))


def machines_as_people(judged: Iterable[Judged]) -> Share:
    """Return how many machines, screeners among them, were spoken to as people."""
    machines = [j for j in judged if j.opening.category != "human"]
    return Share(count=sum(j.category in SPOKEN_TO for j in machines), of=len(machines))


def table(title: str, judged: Iterable[Judged]) -> Table:
    """Lay out who was taken for what: truth in rows, verdicts in columns."""
    counts = Counter((j.opening.category, j.category) for j in judged)
    found = Table("truth \\ verdict", *CATEGORIES, "all", title=title, title_justify="left")
    for truth in CATEGORIES:
        row = [counts[truth, verdict] for verdict in CATEGORIES]
        if any(row):
            found.add_row(truth, *(str(n) if n else "·" for n in row), str(sum(row)))
    return found
