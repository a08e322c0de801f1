"""The spool itself, on a real disk: sealed, durable, bounded, and held by one process at a time."""

from __future__ import annotations

import os
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.spool import Entry, Spool, SpoolFailed, SpoolFile, SpoolUnreadable
from agent.wire import Told, told
from schemas import facts
from tests.agent.line import HELLO, KEYS, left_in, spool_in

NOW = datetime.now(UTC)
TURN = "agent.fact.turn_taken.v1"


def heard(number: int = 1, at: datetime = NOW) -> Told:
    fact = facts.OptOutHeard(attempt=2, job_id="AJ_1", number=number, evidence="stop calling me")
    return told(facts.OptOutHeard.TYPE, fact, at)


def left(number: int, at: datetime = NOW) -> Told:
    fact = facts.CalleeLeft(attempt=2, job_id="AJ_1", number=number, reason="CLIENT_INITIATED")
    return told(facts.CalleeLeft.TYPE, fact, at)


def entries(*told_facts: Told) -> list[Entry]:
    return [Entry(hello=HELLO, fact=fact) for fact in told_facts]


def written(spool: Spool, *told_facts: Told) -> SpoolFile:
    file = spool.begin()
    file.append(entries(*told_facts))
    return file


def only(directory: Path) -> Path:
    [path] = directory.iterdir()
    return path


def test_nothing_of_a_fact_can_be_read_on_the_disk(tmp_path: Path) -> None:
    """Neither words nor ids nor types, in the file or in its name; nobody else may open it."""
    written(spool_in(tmp_path), heard(), left(2)).close()
    path = only(tmp_path)
    raw = path.read_bytes() + path.name.encode()
    for plain in (b"stop", b"opt_out", b"callee", b"AJ_1", HELLO.call_id.encode(), b"agent.fact"):
        assert plain not in raw, plain
    assert path.stat().st_mode & 0o077 == 0


def test_what_was_written_in_several_goes_is_read_in_its_order(tmp_path: Path) -> None:
    """Appends of one process are one file; the next process reads it whole."""
    spool = spool_in(tmp_path)
    file = written(spool, heard(1), left(2))
    file.append(entries(left(3)))
    file.close()
    assert left_in(spool_in(tmp_path)) == entries(heard(1), left(2), left(3))


def test_a_file_cut_anywhere_keeps_all_that_stood_before_the_cut(tmp_path: Path) -> None:
    """A death in the middle of a line costs that line; its facts were not acknowledged."""
    spool = spool_in(tmp_path)
    written(spool, heard(1), left(2), left(3)).close()
    path = only(tmp_path)
    raw = path.read_bytes()
    header = raw.index(b"\n") + 1
    for size in range(header, len(raw) + 1, 7):
        path.write_bytes(raw[:size])
        whole = raw[:size].count(b"\n") - 1
        assert left_in(spool) == entries(heard(1), left(2), left(3))[:whole]


def test_a_broken_box_costs_no_other(tmp_path: Path) -> None:
    """A flipped bit, or a box in another's place, does not open; what stands around it does."""
    spool = spool_in(tmp_path)
    written(spool, heard(1), left(2), left(3), left(4)).close()
    path = only(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[2], lines[3] = lines[3], lines[2]
    path.write_bytes(b"\n".join(lines))
    file = spool.claim(path)
    assert file is not None
    assert file.entries() == (entries(heard(1), left(4)), 2)
    file.close()


def test_a_file_is_had_by_one_at_a_time_and_by_nobody_once_it_is_deleted(tmp_path: Path) -> None:
    """Its writer holds it, then whoever claims it first."""
    spool, other = spool_in(tmp_path), spool_in(tmp_path)
    file = written(spool, heard())
    path = only(tmp_path)
    assert other.claim(path) is None
    file.close()
    claimed = other.claim(path)
    assert claimed is not None and spool.claim(path) is None
    claimed.delete()
    assert spool.claim(path) is None and list(tmp_path.iterdir()) == []


def test_a_file_has_no_name_before_it_holds_something(tmp_path: Path) -> None:
    """Who looks for files never finds an empty one, and one that stays empty leaves nothing."""
    spool = spool_in(tmp_path)
    file = spool.begin()
    assert list(spool.left()) == []
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_spool_drops_what_is_worth_least_and_keeps_an_opt_out(tmp_path: Path) -> None:
    """Turns from half full on, ordinary facts when it is full, opt-outs and last words never."""
    turn = Told(type=TURN, time=NOW, data={"number": 1})
    last = facts.ConversationEnded(attempt=2, job_id="AJ_1", number=5, reason="failed", callee_seen=True, gap=True)
    ended = told(facts.ConversationEnded.TYPE, last, NOW)
    offered = [turn, left(2), heard(3), ended]
    spool = spool_in(tmp_path, files_max=2)
    assert spool.takes(offered) == offered
    written(spool, left(1)).close()
    assert spool.takes(offered) == offered[1:]
    written(spool, left(1)).close()
    assert spool.takes(offered) == offered[2:] and spool.fullness() == 1
    assert spool_in(tmp_path, bytes_max=10).takes(offered) == offered[2:]


def test_a_fact_grows_old_and_an_opt_out_does_not(tmp_path: Path) -> None:
    """The owner drops late facts after a day; an opt-out is shipped however old."""
    spool = spool_in(tmp_path, age_max_h=48)
    old, young = NOW - timedelta(hours=49), NOW - timedelta(hours=47)
    assert [spool.is_outdated(fact) for fact in (left(1, old), left(1, young), heard(1, old))] == [True, False, False]


def test_a_disk_that_is_full_says_so_and_the_file_stays_as_it_was(tmp_path: Path) -> None:
    """A write that the system cuts off is undone; the next one, with room, succeeds."""
    spool = spool_in(tmp_path)
    file = written(spool, heard(1))
    size = only(tmp_path).stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with pytest.raises(SpoolFailed):
            file.append(entries(left(2)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert only(tmp_path).stat().st_size == size
    file.append(entries(left(3)))
    file.close()
    assert left_in(spool) == entries(heard(1), left(3))


def test_a_directory_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    """A worker without its spool must not take calls: the reason is the system's own."""
    taken = tmp_path / "taken"
    taken.write_text("a file")
    with pytest.raises(SpoolFailed):
        spool_in(taken)


def test_a_file_sealed_under_the_key_before_is_read_and_under_a_foreign_key_stays(tmp_path: Path) -> None:
    """Two keys are held while one is rotated; a file whose key is gone waits for it to come back."""
    written(spool_in(tmp_path), heard()).close()
    assert left_in(spool_in(tmp_path, {"k2": os.urandom(32), **KEYS})) == entries(heard())
    with pytest.raises(SpoolUnreadable):
        spool_in(tmp_path, {"k2": os.urandom(32)}).claim(only(tmp_path))
    assert left_in(spool_in(tmp_path)) == entries(heard())
