"""Live through seeds with a broken dialer until the invariant that had to break is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.controls.variants import Variant
from tests.simulation.model import Violation
from tests.simulation.run import Report, simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of one variant."""

    variant: Variant
    seeds: tuple[int, ...]
    """The seeds lived through; the last one showed it, if any did."""
    shown: Violation | None
    """The first violation of an expected invariant, if any was."""
    others: Counter[str]
    """Every invariant that was violated on the way."""

    @property
    def caught(self) -> bool:
        """Tell whether the simulation noticed what it had to notice."""
        return self.shown is not None


def live(variant: Variant, seed: int, *, broken: bool) -> Report:
    """Live through a seed with the variant's faults, and with the dialer broken or whole."""
    with variant.befalling():
        return simulate(seed, variant=variant.enter() if broken else None)


def control(variant: Variant, *, first_seed: int = 1, seeds_max: int | None = None) -> Found:
    """Try seeds one by one, at most so many."""
    others: Counter[str] = Counter()
    seeds: list[int] = []
    for seed in range(first_seed, first_seed + (seeds_max or variant.seeds_max)):
        seeds.append(seed)
        report = live(variant, seed, broken=True)
        others.update(v.invariant for v in report.violations)
        for violation in report.violations:
            if violation.invariant in variant.expected:
                return Found(variant=variant, seeds=tuple(seeds), shown=violation, others=others)
    return Found(variant=variant, seeds=tuple(seeds), shown=None, others=others)


def table(found: list[Found]) -> str:
    """Write the table: variant, seeds needed, promise and invariant that noticed it."""
    rows = [("variant", "seeds", "promise", "noticed by")]
    rows += [
        (one.variant.name, str(len(one.seeds)), str(one.shown.promise), one.shown.invariant)
        if one.shown is not None
        else (one.variant.name, str(len(one.seeds)), "-", f"NOTHING; saw {dict(one.others)}")
        for one in found
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    return "\n".join("  ".join([*(row[n].ljust(widths[n]) for n in range(3)), row[3]]) for row in rows)
