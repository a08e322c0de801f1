"""Was the conversation whole? What a phone with a script heard, said and recorded, beside what it should have.

`judge` looks at one call: the message, the mailbox's recording after its beep, the sentences that must be there, and how
long the line was silent after the phone had spoken. Source: issue S3, points 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from rehearsal import hearing, marks
from rehearsal.ear import SAMPLE_RATE, SOUND_MIN, HeardCall, heard_of
from rehearsal.espeak import Samples
from rehearsal.scenario import Hears
from rehearsal.talk import Moment, Talk, talk_of
from rehearsal.verify import Fate, percentile

SILENCE_MAX_MS: Final = 4_000.0
"""A longer one after the callee stopped speaking is a defect."""
AFTER_BEEP_MAX_MS: Final = 1_600.0
"""Twice what is promised and measured alone (`make bench-amd`): a whole network runs beside it here."""
_FRAME_MS: Final = 20
_FRAME: Final = SAMPLE_RATE * _FRAME_MS // 1000
_LEAST_MS: Final = 60.0
"""Sound must last so long to be taken for somebody's: an impulse is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One conversation's figures; `findings` is empty when it was as it must be."""

    name: str
    turns: int
    silences_ms: tuple[float, ...]
    """After each thing the phone said: how long nobody was heard."""
    after_beep_ms: float | None
    """From the beep (or the end of a greeting without one) to the first sound of the message."""
    voicemail_whole: bool | None
    findings: tuple[str, ...]


def judge_all(fates: Sequence[Fate], carrier_dir: Path) -> list[Judged]:
    """Judge every answered call of a phone with a script."""
    return [
        judge(fate, dial.attempt_id, carrier_dir)
        for fate in fates
        if fate.request.converses
        for dial in fate.dials
        if dial.answered_at is not None
    ]


def judge(fate: Fate, attempt_id: str, carrier_dir: Path) -> Judged:
    """Judge one."""
    name = fate.request.name
    talk, heard = talk_of(carrier_dir, attempt_id), heard_of(carrier_dir, attempt_id)
    if talk is None or heard is None:
        finding = f"{name}: the phone answered, and there is no recording of it; see carrier.log"
        return Judged(name=name, turns=0, silences_ms=(), after_beep_ms=None, voicemail_whole=None, findings=(finding,))
    where = f"listen to {carrier_dir}/heard/{attempt_id}.wav, and {carrier_dir}/talks/{attempt_id}.json"
    loud = sounding(heard.samples)
    silences = tuple(silence(talk, said, loud) for said in talk.of("say"))
    whole = after_ms = None
    wrong = [*_greeting(fate, heard), *_phrases(fate, heard)]
    if fate.request.expected.hears is Hears.VOICEMAIL:
        reason, after_ms = _voicemail(fate, talk, heard.samples, loud)
        whole = not reason
        wrong += [reason] if reason else []
    wrong += [f"{ms / 1000:.1f} s of silence after the callee had spoken" for ms in silences if ms > SILENCE_MAX_MS]
    return Judged(
        name=name,
        turns=len(talk.of("say")),
        silences_ms=silences,
        after_beep_ms=after_ms,
        voicemail_whole=whole,
        findings=tuple(f"{name}: {one}; {where}" for one in wrong),
    )


def figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return what the summary says of all conversations."""
    silences = [ms for one in judged for ms in one.silences_ms]
    after = [one.after_beep_ms for one in judged if one.after_beep_ms is not None]
    left = [one.voicemail_whole for one in judged if one.voicemail_whole is not None]
    return {
        "conversations": {"calls": len(judged), "turns": sum(one.turns for one in judged)},
        "silences_over_4_s": sum(ms > SILENCE_MAX_MS for ms in silences),
        "silence_longest_ms": round(max(silences, default=0.0)),
        "voicemails": {
            "left": len(left),
            "whole": sum(left),
            "after_beep_ms": {"p50": percentile(after, 0.5), "max": max(after, default=None)},
        },
    }


# -- what was heard ---------------------------------------------------------------------------------------------------


def _greeting(fate: Fate, heard: HeardCall) -> list[str]:
    """The message, as the row expects it."""
    expected, request = fate.request.expected.hears, fate.request
    if expected is Hears.MESSAGE:
        compared = hearing.compare(heard.samples, SAMPLE_RATE, request.message, request.language)
        return [compared.reason] if compared.reason else []
    if expected is Hears.AMONG_OTHERS:
        reason = _among(heard, request.message, request.language)
        return [f"the message: {reason}"] if reason else []
    if expected is Hears.CUT:
        code = marks.code_of(request.message)
        sides = [mark.side for mark in marks.decode(heard.samples, SAMPLE_RATE) if mark.code == code]
        return [] if sides == [marks.Side.BEGIN] else ["the message was not cut short by who interrupted it"]
    return []


def _phrases(fate: Fate, heard: HeardCall) -> list[str]:
    reasons = ((text, _among(heard, text, fate.request.language)) for text in fate.request.phrases)
    return [f"'{text}': {reason}" for text, reason in reasons if reason]


def _among(heard: HeardCall, text: str, language: str) -> str:
    """Say what is wrong with an utterance among others; nothing when it is there once or more, the first whole."""
    code = marks.code_of(text)
    for begin, end in hearing.utterances(heard.samples, SAMPLE_RATE):
        if begin.code == code:
            margin = SAMPLE_RATE // 10
            alone = heard.samples[max(0, begin.start - margin) : end.end + margin]
            return hearing.compare(alone, SAMPLE_RATE, text, language).reason
    return "it was not spoken, or not to its end"


def _voicemail(fate: Fate, talk: Talk, heard: Samples, loud: list[tuple[float, float]]) -> tuple[str, float | None]:
    """Compare what the mailbox recorded with the message; returns what is wrong, and when it began."""
    recording = talk.of("record")
    if not recording:
        return "the mailbox never came to record", None
    begin_ms = recording[0].begin_ms
    recorded = heard[round(begin_ms * SAMPLE_RATE / 1000) :]
    if not talk.of("beep"):  # nobody can know when it begins: what was on the agent's lips runs into it
        recorded = recorded[_tail(recorded, marks.code_of(fate.request.voicemail)) :]
    reason = hearing.compare(recorded, SAMPLE_RATE, fate.request.voicemail, fate.request.language).reason
    after_ms = next((max(0.0, at - begin_ms) for at, until in loud if until > begin_ms), None)
    if not reason and after_ms is not None and after_ms > AFTER_BEEP_MAX_MS and talk.of("beep"):
        reason = f"it began {after_ms:.0f} ms after the beep"
    return (f"the message in the mailbox: {reason}" if reason else ""), after_ms


def _tail(recorded: Samples, code: int) -> int:
    """Where the end of another utterance ends, that had begun before the recording; 0 where there is none."""
    first = next(iter(marks.decode(recorded, SAMPLE_RATE)), None)
    return first.end if first is not None and first.side is marks.Side.END and first.code != code else 0


# -- silence ----------------------------------------------------------------------------------------------------------


def sounding(samples: Samples) -> list[tuple[float, float]]:
    """Find the stretches in which somebody is heard: (begin, end) in milliseconds."""
    whole = samples[: len(samples) // _FRAME * _FRAME].astype(np.int32).reshape(-1, _FRAME)
    heard = np.zeros(len(whole) + 2, dtype=np.int8)
    heard[1:-1] = np.abs(whole).max(axis=1, initial=0) > SOUND_MIN
    edges = np.flatnonzero(np.diff(heard))
    stretches = [(float(a) * _FRAME_MS, float(b) * _FRAME_MS) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [(begin, end) for begin, end in stretches if end - begin >= _LEAST_MS]


def silence(talk: Talk, said: Moment, loud: list[tuple[float, float]]) -> float:
    """How long after its line the phone heard nothing: until the far end, itself again, or the end of the call."""
    mine = [m.begin_ms for m in talk.of("say", "beep", "press") if m.begin_ms > said.end_ms]
    theirs = [max(begin, said.end_ms) for begin, end in loud if end > said.end_ms]
    return max(0.0, min([*mine, *theirs, talk.over_ms]) - said.end_ms)
