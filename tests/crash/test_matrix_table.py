"""The crash matrix as a page: a row a strike, what is struck again replaces what was."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from schemas.steps import Step
from tests.crash.matrix import PAGE, Row, load, page, save, table
from tests.crash.stage import NAMES, Strike, causes

ROW = Row(process="dialer", how="kill", step="dial_sent", in_flight=9, unknown=1, decided_again_s=7.25)


def test_a_strike_is_a_row_of_the_table() -> None:
    """Process, strike, step, calls, and the three figures that must be small."""
    line = table([ROW]).splitlines()[-1]
    assert line == "| dialer | `kill -9` | `dial_sent` | 9 | 0 | 0 | 1 | 7.2 s |"
    assert "anywhere" in table([replace(ROW, process="broker", step="")])
    assert table([ROW]) in page([ROW])


def test_a_strike_that_is_done_again_replaces_its_row(tmp_path: Path) -> None:
    """Rows of other steps stay: killing and pausing are two runs."""
    path = tmp_path / "run" / "rows.json"
    save([ROW, replace(ROW, how="pause")], path)
    save([replace(ROW, unknown=0)], path)
    assert sorted((row.how, row.unknown) for row in load(path)) == [("kill", 0), ("pause", 1)]


def test_the_page_has_every_step_and_every_process_and_nobody_is_lost_or_rung_twice() -> None:
    """A step or a process that is new, or a page that is written otherwise now: `make e2e`, then `python -m tests.crash.matrix`."""
    text = PAGE.read_text()
    assert text.startswith(page([]).rstrip("\n"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")][1:]
    struck = {(process, how.split()[0], where.strip("`")) for process, how, where, *_ in rows}
    assert {where for process, how, where in struck if (process, how) == ("dialer", "`kill")} == {s.value for s in Step}
    for process in NAMES:
        assert {(process, "`kill", "anywhere"), (process, "paused", "anywhere")} <= struck
    assert {(row[4], row[5]) for row in rows} == {("0", "0")}


def test_an_unknown_call_is_put_down_to_the_first_strike_that_met_it_after_its_dial() -> None:
    """One that was opened, not dialed, when a dialer died is the next death's, if anybody's."""
    dialed = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
    unknown = {"rung": dialed, "never met": dialed}
    strikes = [struck(dialed.timestamp() + s, "rung") for s in (-2.0, 3.0, 9.0)]
    assert list(causes(strikes, unknown)) == [1]


def struck(at: float, *calls: str) -> Strike:
    """A dialer's death at that time, which met these calls."""
    row = Row(process="dialer", how="kill", step="dial_sent", in_flight=len(calls))
    return Strike(row=row, process="dialer-1", pid=1, at=at, calls=frozenset(calls), partitions=frozenset())
