"""Draws the life of a call from the core's own tables: `python -m dialer.lifecycle` writes `docs/lifecycle.md`.

`--check` fails when the page is stale. Nothing here is written by hand but the sentences around the tables.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from dialer.callee.inputs import CallInput
from dialer.callee.sip import SIP_TABLE, SipRow
from dialer.callee.state import Phase
from dialer.callee.table import CLOSED, TABLE, Acts, Row
from dialer.gate import GATE

PAGE: Final = Path(__file__).parent.parent / "docs" / "lifecycle.md"
_KINDS: Final[tuple[type[Any], ...]] = CallInput.__args__
_HEAD: Final = """# The life of a call

Generated from `dialer/callee/table.py`, `dialer/callee/sip.py` and `dialer/gate.py` by `python -m dialer.lifecycle`;
a test fails when this page is stale. Do not edit it by hand.

A call is made by `CallRequested` and ends in exactly one of `CallRefused` (before its first room was asked for) and
`CallEnded`. In between it stands in one of these phases; an arrow names the inputs that may lead along it.
"""


def diagram() -> str:
    """Return the state diagram in Mermaid, drawn from the rows' `leads_to`."""
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (phase, kind), row in TABLE.items():
        if isinstance(row, Acts):
            for target in row.leads_to:
                if target != phase:
                    arrows[phase.value, str(target)].append(kind.__name__)
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.REQUESTED}: PlaceCall"]
    for phase in Phase:
        for target in (*Phase, CLOSED):
            names = arrows.get((phase.value, str(target)))
            if names:
                lines.append(f"    {phase.value} --> {target}: {', '.join(dict.fromkeys(names))}")
    lines.append(f"    {CLOSED} --> [*]")
    return "\n".join(lines)


def rows() -> str:
    """Return the phase table: a row for every input, a column for every phase."""
    head = "| input | " + " | ".join(phase.value for phase in Phase) + " |"
    rule = "|" + "---|" * (len(Phase) + 1)
    lines = [head, rule]
    for kind in _KINDS:
        cells = [_cell(phase, TABLE[phase, kind]) for phase in Phase]
        lines.append(f"| `{kind.__name__}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(phase: Phase, row: Row) -> str:
    if not isinstance(row, Acts):
        return f"*{row.reason}*"
    targets = [str(target) for target in row.leads_to if target != phase]
    return "→ " + ", ".join(targets) if targets else "noted"


def sip_rows() -> str:
    """Return the SIP table."""
    lines = [
        "| rule | SIP status | code | phrase holds | outcome | whose doing | retry delay | INVITE sent | source |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in SIP_TABLE:
        cells = [
            f"`{row.rule}`",
            _statuses(row),
            ", ".join(sorted(row.codes)) or "any",
            "; ".join(row.phrases) or "anything",
            row.outcome.value,
            row.attribution.value,
            row.retry or "none: the call ends, or the campaign's rule for unknowns",
            "yes" if row.sent else "no",
            row.source,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _statuses(row: SipRow) -> str:
    if row.statuses is None:
        return "none"
    numbers = sorted(row.statuses)
    whole = len(numbers) > 10
    return f"{numbers[0]}–{numbers[-1]}" if whole else ", ".join(map(str, numbers))


def gate_rows() -> str:
    """Return the gate's rows, in the order they are asked."""
    lines = ["| # | withdrawn as | otherwise | why |", "|---|---|---|---|"]
    for number, row in enumerate(GATE, 1):
        lines.append(f"| {number} | `{row.reason.value}` | {row.otherwise.value} | {row.why} |")
    return "\n".join(lines)


def page() -> str:
    """Return the whole page."""
    parts = [
        _HEAD,
        f"```mermaid\n{diagram()}\n```\n",
        "Judgement follows a fence: once it is confirmed and everything about the attempt is in (or 10 s have passed), any",
        "input finds the call `waiting` for its retry, or `closed`.\n",
        "## Every phase with every input\n",
        "An arrow says where a row may lead, *italics* why a pair means nothing.\n",
        f"{rows()}\n",
        "## What a failed dial means\n",
        "The first row that fits decides: by SIP status, then by LiveKit's code and phrase.\n",
        f"{sip_rows()}\n",
        "`seen_unanswered` is no answer of the dial: where that reached nobody, the agent saw the phone ring to its end, and",
        "nobody take it up. It is recorded as `no_answer`, in place of `dial_unknown`.\n",
        "## The gate before the one function that can ring a phone\n",
        "Asked in this order. A `stale` row is waited for until the `DialStarted` is 5 s old; `refused` withdraws the dial",
        "at once.\n",
        gate_rows(),
    ]
    return "\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or say that it is stale."""
    if arguments == ["--check"]:
        fresh = PAGE.exists() and PAGE.read_text() == page()
        if not fresh:
            print(f"docs/{PAGE.name} is stale: run `python -m dialer.lifecycle`", file=sys.stderr)
        return 0 if fresh else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
