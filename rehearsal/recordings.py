"""Is every recording there, an MP3 that decodes, of the right length, with both voices in it? Asked of the bucket itself.

Which recordings there must be is told by the campaigns and by who answered; their lengths by the carrier's witness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from rehearsal import conversations, marks, voices
from rehearsal.ear import SAMPLE_RATE, heard_of
from rehearsal.espeak import Samples
from rehearsal.gcs import BUCKET, Storage, StorageFailed
from rehearsal.mp3 import Undecodable, decode
from rehearsal.reader import Logged
from rehearsal.talk import said_of, talk_of
from rehearsal.verify import Fate
from rehearsal.witness import Dial

LENGTH_ERROR_MAX_S: Final = 1.0
_NOTHING: Final[Samples] = np.zeros(0, dtype=np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was found of one recording; `findings` is empty when it is as it must be."""

    name: str
    decodes: bool = False
    length_ok: bool = False
    both_voices: bool = False
    findings: tuple[str, ...] = ()


async def check(fates: Sequence[Fate], events: Sequence[Logged], carrier_dir: Path, storage: Storage) -> list[Recorded]:
    """Look at the recording of every answered call of a campaign that records."""
    facts: dict[str, dict[str, Logged]] = {}
    for event in events:
        if event.name.startswith("recording_") and event.call_id is not None:
            facts.setdefault(event.call_id, {})[event.name] = event
    return [
        await _check(fate, dial, facts.get(fate.call_id, {}), carrier_dir, storage)
        for fate in fates
        if fate.request.converses and records(fate)
        for dial in fate.dials
        if dial.answered_at is not None
    ]


def records(fate: Fate) -> bool:
    """Tell whether the campaign of a call records it."""
    mode: str = conversations.definition(fate.request.data["campaign_id"]).get("recording", "off")
    return mode != "off"


def figures(recorded: Sequence[Recorded]) -> dict[str, int]:
    """Return what the summary says of them."""
    return {
        "count": len(recorded),
        "decodes": sum(one.decodes for one in recorded),
        "length_within_1_s": sum(one.length_ok for one in recorded),
        "both_voices": sum(one.both_voices for one in recorded),
    }


async def _check(fate: Fate, dial: Dial, facts: Mapping[str, Logged], carrier_dir: Path, storage: Storage) -> Recorded:
    name, done = fate.request.name, facts.get("recording_completed")
    if done is None:
        why = facts["recording_failed"].data["code"] if "recording_failed" in facts else "nobody says why"
        return Recorded(name=name, findings=(f"{name}: there is no recording: {why}",))
    path = str(done.data["path"])
    try:
        content = await storage.download(BUCKET, path)
        sound = decode(content or b"", SAMPLE_RATE)
    except (StorageFailed, Undecodable) as failed:
        return Recorded(name=name, findings=(f"{name}: {path} cannot be read ({type(failed).__name__})",))
    lengths = _length(sound, done, facts.get("recording_started"), dial)
    missing = await asyncio.to_thread(_voices, sound, dial, carrier_dir)
    return Recorded(
        name=name,
        decodes=True,
        length_ok=not lengths,
        both_voices=not missing,
        findings=tuple(f"{name}: {path}: {one}" for one in (*lengths, *missing)),
    )


def _length(sound: Samples, done: Logged, started: Logged | None, dial: Dial) -> list[str]:
    """Compare with what the log says, and with how long the phone was on the line from the recording's start on."""
    assert dial.answered_at is not None, "a call that was answered is judged"
    assert dial.ended_at is not None, "a call that is over is judged"
    seconds, told_s = len(sound) / SAMPLE_RATE, float(done.data["duration_ms"]) / 1000
    whole_s = (dial.ended_at - dial.answered_at).total_seconds()
    # With an announcement first, or where the start took its time, the recording begins later than the call; the log may
    # say so later still, when it was behind.
    least_s = (dial.ended_at - started.at).total_seconds() if started is not None else whole_s
    rows = (("the log says", told_s, told_s), ("the call was, from its start on,", min(least_s, whole_s), whole_s))
    return [
        f"{seconds:.1f} s long, and {words} {least:.1f} to {most:.1f} s"
        for words, least, most in rows
        if not least - LENGTH_ERROR_MAX_S <= seconds <= most + LENGTH_ERROR_MAX_S
    ]


def _voices(sound: Samples, dial: Dial, carrier_dir: Path) -> list[str]:
    """Look for what the agent said, and for what the phone said: by their marks, or by their sound where both spoke at once."""
    heard, talk = heard_of(carrier_dir, dial.attempt_id), talk_of(carrier_dir, dial.attempt_id)
    agent = heard.samples if heard is not None else _NOTHING
    callee = said_of(carrier_dir, dial.attempt_id) if talk is not None else _NOTHING
    found = {mark.code for mark in marks.decode(sound, SAMPLE_RATE)}
    rows = (
        ("the agent's", {mark.code for mark in marks.decode(agent, SAMPLE_RATE)}, agent, callee),
        (
            "the callee's",
            {marks.code_of(said.text) for said in talk.of("say")} if talk is not None else set(),
            callee,
            agent,
        ),
    )
    began_s = _began_s(sound, dial)
    return [
        f"{whose} voice is not in it"
        for whose, codes, voice, other in rows
        if codes and not codes & found and not _sounds(sound, voice, other, began_s)
    ]


def _began_s(sound: Samples, dial: Dial) -> float:
    """Where a recording begins on the axis of the answer: it ends with the call."""
    assert dial.answered_at is not None, "a call that was answered is judged"
    assert dial.ended_at is not None, "a call that is over is judged"
    return max(0.0, (dial.ended_at - dial.answered_at).total_seconds() - len(sound) / SAMPLE_RATE)


def _sounds(sound: Samples, voice: Samples, other: Samples, began_s: float) -> bool:
    """Tell whether what was said while it was recorded is there; True as well where nothing was said by then."""
    held = voices.held(sound, voice, other, began_s)
    return held.found > 0 or not held.utterances


def about(recorded: Sequence[Recorded]) -> list[tuple[str, str]]:
    """Return the line of the screen."""
    if not recorded:
        return []
    told: Mapping[str, Any] = figures(recorded)
    words = f"{told['count']}: {told['decodes']} decode, {told['length_within_1_s']} as long as their calls"
    return [("recordings", f"{words}, {told['both_voices']} with both voices")]
