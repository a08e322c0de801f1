"""Conversations are judged by what phones recorded: messages, mailboxes, and how long nobody spoke."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from rehearsal import conversations, ear, marks, talk, talks
from rehearsal.ear import SAMPLE_RATE, HeardCall
from rehearsal.espeak import Samples, synthesize
from rehearsal.scenario import Expected, Hears, Request, Role
from rehearsal.script import SCRIPTS
from rehearsal.talk import Talk
from rehearsal.verify import Fate
from rehearsal.witness import Dial

AT = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGE = "Hello Ann, your card is ready to be renewed at Main Street."
MAILBOX = "A message for Ann: your card can be renewed at Main Street. Goodbye."


def spoken(text: str, language: str = "en-US") -> Samples:
    return marks.enclose(synthesize(text, SAMPLE_RATE, language), text, SAMPLE_RATE)


def quiet(ms: float) -> Samples:
    return np.zeros(round(ms * SAMPLE_RATE / 1000), dtype=np.int16)


def track(*parts: Samples) -> Samples:
    return np.concatenate(parts)


def judged(
    tmp_path: Path,
    heard: Samples,
    moments: list[tuple[str, float, float]],
    hears: Hears,
    *,
    phrases: tuple[str, ...] = (),
) -> talks.Judged:
    told = Talk(attempt_id="a-1", persona="p", script="s", language="en")
    for what, begin, end in moments:
        told.add(what, "", begin, end)
    told.over_ms = len(heard) * 1000 / SAMPLE_RATE
    talk.save(tmp_path, told, quiet(10))
    ear.save(tmp_path, HeardCall(attempt_id="a-1", dial_id="d", answer_to_audio_ms=0.0, samples=heard))
    request = Request(
        role=Role.PERSONA,
        persona="p",
        data={"request_id": "r"},
        expected=Expected(outcome="", dials=1, hears=hears),
        message=MESSAGE,
        voicemail=MAILBOX,
        phrases=phrases,
        converses=True,
    )
    dial = Dial(
        dial_id="d", attempt_id="a-1", number="", room="", identity="", persona="", invite_at=AT, answered_at=AT
    )
    fate = Fate(request=request, call_id="a", outcome="", dials=(dial,), was_unknown=False)
    (one,) = talks.judge_all([fate], tmp_path)
    return one


def test_a_mailbox_with_its_message_is_whole_and_timed(tmp_path: Path) -> None:
    """What was said before the beep does not count; the time from the beep does."""
    heard = track(spoken(MESSAGE)[: SAMPLE_RATE * 2], quiet(1_000), quiet(400), spoken(MAILBOX), quiet(500))
    one = judged(tmp_path, heard, [("beep", 2_600, 3_000), ("record", 3_000, 3_000)], Hears.VOICEMAIL)
    assert one.findings == () and one.voicemail_whole
    assert one.after_beep_ms == pytest.approx(400, abs=25)


@pytest.mark.parametrize(
    ("left_ms", "message", "why"),
    [
        (0, spoken(MAILBOX)[SAMPLE_RATE // 2 :], "the beginning is missing"),
        (0, spoken(MAILBOX)[: -SAMPLE_RATE // 2], "the end is missing"),
        (0, quiet(0), "no marks"),
        (0, spoken(MESSAGE), "another text"),
        (1_800, spoken(MAILBOX), "after the beep"),
        (0, track(spoken(MESSAGE)[SAMPLE_RATE:], quiet(300), spoken(MAILBOX)), "among others"),
    ],
)
def test_a_mailbox_that_lacks_a_word_is_found(tmp_path: Path, left_ms: int, message: Samples, why: str) -> None:
    """Cut at either end, nothing, the wrong message, or too late."""
    heard = track(quiet(left_ms), message, quiet(500))
    one = judged(tmp_path, heard, [("beep", -400, 0), ("record", 0, 0)], Hears.VOICEMAIL)
    assert why in one.findings[0]


def test_words_on_the_lips_run_into_a_mailbox_that_does_not_beep(tmp_path: Path) -> None:
    """It records from its last word on, which nobody can foresee; its message must be whole all the same."""
    heard = track(spoken(MESSAGE), quiet(1_800), spoken(MAILBOX), quiet(500))
    assert judged(tmp_path, heard, [("record", 1_000, 1_000)], Hears.VOICEMAIL).findings == ()


def test_a_message_among_others_is_found_whole(tmp_path: Path) -> None:
    """A reply behind it, and a phrase that must be there."""
    heard = track(spoken(MESSAGE), quiet(800), spoken("Goodbye."), quiet(100))
    assert judged(tmp_path, heard, [], Hears.AMONG_OTHERS, phrases=("Goodbye.",)).findings == ()


def test_a_phrase_that_is_missing_is_named(tmp_path: Path) -> None:
    """The message alone is not enough."""
    (finding,) = judged(tmp_path, spoken(MESSAGE), [], Hears.AMONG_OTHERS, phrases=("Goodbye.",)).findings
    assert "'Goodbye.'" in finding


@pytest.mark.parametrize(("share", "cut"), [(0.5, True), (1.0, False)])
def test_an_interrupted_message_has_no_end(tmp_path: Path, share: float, cut: bool) -> None:
    """Who interrupts must not be talked over to the end."""
    whole = spoken(MESSAGE)
    heard = track(whole[: int(len(whole) * share)], quiet(500))
    assert (judged(tmp_path, heard, [], Hears.CUT).findings == ()) is cut


@pytest.mark.parametrize(
    ("moments", "silences_ms"),
    [
        ([("say", 0, 1_000)], [2_000]),  # until the far end
        ([("say", 0, 4_000)], [0]),  # into its words
        ([("say", 0, 1_000), ("say", 2_500, 2_600)], [1_500, 400]),  # until the phone itself
        ([("say", 0, 8_000)], [5_000]),  # until the end of the call
        ([("say", 0, 8_000), ("press", 9_000, 9_000)], [1_000]),
    ],
)
def test_silence_is_counted_from_the_callees_last_word(
    tmp_path: Path, moments: list[tuple[str, float, float]], silences_ms: list[float]
) -> None:
    """To whatever is heard next; more than 4 s is a defect."""
    tone = (8_000 * np.sin(np.arange(SAMPLE_RATE * 3) / 5)).astype(np.int16)
    heard = track(quiet(3_000), tone, quiet(7_000))
    one = judged(tmp_path, heard, moments, Hears.ANYTHING)
    assert list(one.silences_ms) == pytest.approx(silences_ms, abs=25)
    assert len(one.findings) == sum(ms > 4_000 for ms in silences_ms) == talks.figures([one])["silences_over_4_s"]


def test_a_phone_without_a_recording_is_a_finding(tmp_path: Path) -> None:
    """It answered: there must be one."""
    request = conversations.requests()[0]
    dial = Dial(
        dial_id="d", attempt_id="a-1", number="", room="", identity="", persona="", invite_at=AT, answered_at=AT
    )
    fate = Fate(request=request, call_id="a", outcome="conversed", dials=(dial,), was_unknown=False)
    assert "no recording" in talks.judge(fate, "a-1", tmp_path).findings[0]
    assert talks.judge_all([replace(fate, request=replace(request, converses=False))], tmp_path) == []


def test_every_conversation_has_a_number_of_its_own() -> None:
    """Ten calls and more in each kind of campaign, all scripts, and those who opted out once more."""
    asked = conversations.requests()
    first, again = [r for r in asked if r.role is Role.PERSONA], [r for r in asked if r.role is Role.OPTED_OUT]
    assert len({request.data["to"] for request in first}) == len(first)
    assert {r.data["to"] for r in again} == {r.data["to"] for r in first if r.expected.outcome == "opted_out"}
    two_way = [r for r in first if conversations.definition(r.data["campaign_id"])["type"] == "two_way"]
    mailboxes = [r for r in first if r.voicemail and r not in two_way]
    assert len(two_way) >= 10 <= len(mailboxes)
    assert {row.script for row in conversations.ROWS} == {path.stem for path in SCRIPTS.glob("*.yaml")}
