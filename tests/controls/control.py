"""Live through seeds with a broken dialer until the invariant that had to break is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.controls.variants import Variant
from tests.simulation.run import simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of one variant."""

    variant: Variant
    seeds: tuple[int, ...]
    """The seeds lived through; the last one showed it, if any did."""
    invariant: str
    """The expected invariant that was violated first; empty: none was."""
    text: str
    others: Counter[str]
    """Every invariant that was violated on the way."""

    @property
    def caught(self) -> bool:
        """Tell whether the simulation noticed what it had to notice."""
        return bool(self.invariant)


def control(variant: Variant, *, first_seed: int = 1, seeds_max: int | None = None) -> Found:
    """Try seeds one by one, at most so many."""
    others: Counter[str] = Counter()
    seeds: list[int] = []
    for seed in range(first_seed, first_seed + (seeds_max or variant.seeds_max)):
        seeds.append(seed)
        report = simulate(seed, variant=variant.enter())
        others.update(v.invariant for v in report.violations)
        for violation in report.violations:
            if violation.invariant in variant.expected:
                return Found(
                    variant=variant,
                    seeds=tuple(seeds),
                    invariant=violation.invariant,
                    text=violation.text,
                    others=others,
                )
    return Found(variant=variant, seeds=tuple(seeds), invariant="", text="", others=others)


def table(found: list[Found]) -> str:
    """Write the table: variant, promise, seeds needed, invariant."""
    rows = [("variant", "promise", "seeds", "caught by")]
    rows += [
        (f.variant.name, str(f.variant.promise), str(len(f.seeds)), f.invariant or f"NOT CAUGHT; saw {dict(f.others)}")
        for f in found
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    return "\n".join("  ".join([*(row[n].ljust(widths[n]) for n in range(3)), row[3]]) for row in rows)
