"""The witness's file is the other half of every account."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rehearsal.witness import EndedBy, Seen, Witness, dials_of, fold

INVITE = {"attempt_id": "a-1", "number": "+12125550101", "room": "r", "identity": "i", "persona": "answers"}
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_dial_is_folded_from_its_lines(tmp_path: Path) -> None:
    """Invite, ringing, answer, first audio, end."""
    path = tmp_path / "deep" / "witness.jsonl"
    with Witness(path) as witness:
        witness.saw(Seen.INVITE, "SCL_1", AT, **INVITE)
        witness.saw(Seen.RINGING, "SCL_1", AT + timedelta(seconds=1))
        witness.saw(Seen.ANSWERED, "SCL_1", AT + timedelta(seconds=2))
        witness.saw(Seen.FIRST_AUDIO, "SCL_1", AT + timedelta(seconds=3), answer_to_audio_ms=123.4)
        witness.saw(Seen.ENDED, "SCL_1", AT + timedelta(seconds=9), ended_by=EndedBy.CALLER_BYE, sip_status=None)
    (dial,) = dials_of(path)
    assert (dial.attempt_id, dial.number, dial.invite_at, dial.persona) == ("a-1", "+12125550101", AT, "answers")
    assert dial.answered_at == AT + timedelta(seconds=2) and dial.answer_to_audio_ms == 123.4
    assert dial.ended_by is EndedBy.CALLER_BYE and dial.sip_status is None


def test_two_invites_of_one_attempt_are_two_dials(tmp_path: Path) -> None:
    """Or a person rung twice would not be seen."""
    with Witness(tmp_path / "w.jsonl") as witness:
        witness.saw(Seen.INVITE, "SCL_1", AT, **INVITE)
        witness.saw(Seen.INVITE, "SCL_2", AT + timedelta(seconds=1), **INVITE)
    assert [dial.dial_id for dial in dials_of(tmp_path / "w.jsonl")] == ["SCL_1", "SCL_2"]


def test_a_file_is_appended_to_over_restarts_and_never_truncated(tmp_path: Path) -> None:
    """A killed carrier comes back to its own record."""
    for name in ("SCL_1", "SCL_2"):
        with Witness(tmp_path / "w.jsonl") as witness:
            witness.saw(Seen.INVITE, name, AT, **INVITE)
    dials = dials_of(tmp_path / "w.jsonl")
    assert len(dials) == 2 and all(dial.ended_by is None for dial in dials)


def test_a_torn_last_line_is_left_out() -> None:
    """A write that a kill cut short."""
    assert fold(['{"at": "2026-01-02T03:04:05+00:00", "seen": "invi']) == []


def test_lines_of_many_writers_stay_whole(tmp_path: Path) -> None:
    """One `write` a line, opened for appending."""
    path = tmp_path / "w.jsonl"

    def write(number: int) -> None:
        with Witness(path) as witness:
            for i in range(200):
                witness.saw(Seen.INVITE, f"SCL_{number}_{i}", AT, **INVITE)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(dials_of(path)) == 800


def test_no_file_is_no_dials(tmp_path: Path) -> None:
    """Nothing was dialed yet."""
    assert dials_of(tmp_path / "none.jsonl") == []
