"""Recordings are looked at where they lie: an MP3 that decodes, as long as its call, with both voices in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from rehearsal import conversations, ear, marks, mp3, recordings, talk
from rehearsal.ear import SAMPLE_RATE, HeardCall
from rehearsal.espeak import Samples, resample, synthesize
from rehearsal.gcs import BUCKET, Storage
from rehearsal.reader import Logged
from rehearsal.talk import Talk
from rehearsal.verify import Fate
from rehearsal.witness import Dial

pytestmark = pytest.mark.livekit  # the storage server is built beside livekit-server

AT = datetime(2026, 1, 1, tzinfo=UTC)
AGENT, CALLEE = "Hello Ann, this is the clinic.", "Yes, this is me."
TOLD_S = 8.0


def spoken(text: str) -> Samples:
    return marks.enclose(synthesize(text, SAMPLE_RATE), text, SAMPLE_RATE)


def an_mp3(path: Path, *texts: str, seconds: float = TOLD_S) -> bytes:
    sound = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.int16)
    said = np.concatenate([np.zeros(800, dtype=np.int16), *map(spoken, texts)])
    sound[: len(said)] = said
    file = mp3.Mp3File(path)
    file.write(resample(sound, SAMPLE_RATE, mp3.SAMPLE_RATE))
    file.close()
    return path.read_bytes()


async def look(tmp_path: Path, url: str, content: bytes | None, name: str) -> recordings.Recorded:
    """Judge the recording of one call of 8 s in which both spoke."""
    told = Talk(attempt_id="c-1", persona="p", script="talks", language="en")
    told.add("say", CALLEE, 0, 1)
    talk.save(tmp_path, told, spoken(CALLEE))
    ear.save(tmp_path, HeardCall(attempt_id="c-1", dial_id="d", answer_to_audio_ms=0.0, samples=spoken(AGENT)))
    dial = Dial(
        dial_id="d", attempt_id="c-1", number="", room="", identity="", persona="", invite_at=AT, answered_at=AT,
        ended_at=AT + timedelta(seconds=TOLD_S),
    )  # fmt: skip
    fate = Fate(request=conversations.requests()[0], call_id="c", outcome="conversed", dials=(dial,), was_unknown=False)
    fact = ("recording_failed", {"code": "aborted"})
    async with Storage(url) as storage:
        if content is not None:
            await storage.upload(BUCKET, name, content, mp3.CONTENT_TYPE)
            fact = ("recording_completed", {"path": name, "duration_ms": TOLD_S * 1000})
        event = Logged(topic="", key="", type=f"agent.fact.{fact[0]}.v1", call_id="c", at=AT, data=fact[1])
        (one,) = await recordings.check([fate], [event], tmp_path, storage)
    return one


async def test_a_whole_recording_holds(tmp_path: Path, storage_url: str) -> None:
    """It decodes, is as long as the call, and both are in it."""
    one = await look(tmp_path, storage_url, an_mp3(tmp_path / "a.mp3", AGENT, CALLEE), "look/whole.mp3")
    assert one.findings == ()
    told = recordings.figures([one])
    assert told == {"count": 1, "decodes": 1, "length_within_1_s": 1, "both_voices": 1}


@pytest.mark.parametrize(
    ("texts", "seconds", "why"),
    [
        ((AGENT, CALLEE), TOLD_S + 2, "s long"),
        ((AGENT, CALLEE), TOLD_S - 2, "s long"),
        ((AGENT,), TOLD_S, "the callee's voice is not in it"),
        ((CALLEE,), TOLD_S, "the agent's voice is not in it"),
    ],
)
async def test_a_recording_that_lacks_something_is_found(
    tmp_path: Path, storage_url: str, texts: tuple[str, ...], seconds: float, why: str
) -> None:
    """Too long, too short, one voice only."""
    content = an_mp3(tmp_path / "a.mp3", *texts, seconds=seconds)
    one = await look(tmp_path, storage_url, content, f"look/{seconds}-{len(texts[0])}-{len(texts)}.mp3")
    assert why in one.findings[0] and one.decodes


async def test_what_is_no_recording_is_found(tmp_path: Path, storage_url: str) -> None:
    """Bytes that do not decode, and a recording that failed."""
    assert "cannot be read" in (await look(tmp_path, storage_url, b"no sound", "look/broken.mp3")).findings[0]
    assert "aborted" in (await look(tmp_path, storage_url, None, "")).findings[0]
