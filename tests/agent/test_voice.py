"""The agent's sound at the native source's own pace, without a room."""

from __future__ import annotations

import asyncio

from livekit import rtc

from agent.speech import SAMPLE_BYTES, SAMPLE_RATE, Spoken
from agent.utterance import Playing, Utterance
from agent.voice import FRAME_MS, Voice

SECOND = Spoken(bytes(SAMPLE_RATE * SAMPLE_BYTES))


def voice() -> Voice:
    return Voice(rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=500), None)  # type: ignore[arg-type]


async def test_what_was_cancelled_amid_a_frame_does_not_hinder_what_follows() -> None:
    """The native source takes one frame at a time, also where the one before was given up by its waiter."""
    speaking, over = voice(), asyncio.get_running_loop().create_future()
    for _ in range(5):
        began = asyncio.Event()
        playing = asyncio.create_task(speaking.play(SECOND, over, began.set))
        await began.wait()
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        speaking.source.clear_queue()
    played = await speaking.play(SECOND, over, lambda: None)
    assert played.whole and played.spoken_ms == 1000


async def test_sentences_are_counted_by_what_was_played_of_them() -> None:
    """A whole sentence, a pause, and the words of the next one by their letters' share."""
    utterance = Utterance(asyncio.Event())
    for text in ("One two three.", "four five six seven"):
        utterance.begin(text)
        utterance.feed(SECOND.pcm)
        utterance.end()
    utterance.finish()
    assert utterance.frames == 20 + 1
    assert utterance.said(0) == ""
    assert utterance.said(500) == "One two"
    assert utterance.said(1000) == "One two three."
    assert utterance.said(1700) == "One two three. four five"
    assert utterance.said(2100) == "One two three. four five six seven"


async def test_a_held_utterance_goes_on_where_it_was() -> None:
    """Held and let go: played whole, and not a frame more than it has."""
    news = asyncio.Event()
    utterance = Utterance.of("One two three.", SECOND, news)
    playing = Playing(voice(), utterance, news)
    while playing.played_ms < 300:
        await asyncio.sleep(FRAME_MS / 1000)
    playing.hold_while(True)
    held_at = playing.played_ms
    assert playing.said in ("One", "One two") and not playing.done
    playing.hold_while(False)
    while not playing.done:
        await asyncio.sleep(FRAME_MS / 1000)
    assert playing.whole and held_at < 1000 == playing.played_ms
