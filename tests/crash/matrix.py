"""The crash matrix as data and as a table: what was struck where, into how many calls, and what came of them.

The tests leave their rows in `run/crash-matrix.json`; `python -m tests.crash.matrix` writes docs/crash-matrix.md from them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "run" / "crash-matrix.json"
"""Where the tests leave what they saw."""
PAGE = ROOT / "docs" / "crash-matrix.md"
_HEADER = (
    "| process | struck | at | calls in flight | rung twice | lost | unknown | decided again after |",
    "|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One strike: `in_flight` counts the victim's calls with a room, of a dialer those of its own partitions.

    `rung_twice` and `lost` are what the accounts say of those calls, `unknown` of how many nobody can tell because of it.
    """

    process: str
    how: str
    step: str
    in_flight: int
    rung_twice: int = 0
    lost: int = 0
    unknown: int = 0
    decided_again_s: float | None = None


def table(rows: Sequence[Row]) -> str:
    """Return the matrix as a Markdown table, a row a strike."""
    return "\n".join((*_HEADER, *(_line(row) for row in sorted(rows, key=lambda r: (r.process, r.how)))))


def _line(row: Row) -> str:
    where = f"`{row.step}`" if row.step else "anywhere"
    how = {"kill": "`kill -9`", "pause": "paused 9 s"}[row.how]
    again = "" if row.decided_again_s is None else f"{row.decided_again_s:.1f} s"
    cells = (row.process, how, where, row.in_flight, row.rung_twice, row.lost, row.unknown, again)
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def save(rows: Sequence[Row], path: Path = RESULTS) -> None:
    """Keep rows beside those of other runs: a row of the same process, strike and step is replaced."""
    kept = {(row.process, row.how, row.step): row for row in (*load(path), *rows)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in kept.values()], indent=1) + "\n")


def load(path: Path = RESULTS) -> list[Row]:
    """Return the rows that were kept."""
    return [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []


def page(rows: Sequence[Row]) -> str:
    """Return the whole page."""
    return (
        "# Crash matrix\n\n"
        "Real processes, struck precisely at each named step (`schemas/steps.py`) with calls in flight, on the real Kafka\n"
        "and the real livekit-server; made by `tests/crash` (`python -m tests.crash.matrix` writes this page). The accounts\n"
        "are the rehearsal's: what the carrier saw and what the pipeline asked for. A dialer's calls are those of its own\n"
        "partitions at that moment; a pause is longer than the session timeout, so that what wakes up is a zombie. At the\n"
        "steps of a take-over a second dialer dies while the group still takes in the death of the first: it waits twice.\n\n"
        f"{table(rows)}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(load()))
