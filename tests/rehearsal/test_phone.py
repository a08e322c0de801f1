"""A phone behaves in its room as livekit-sip would, and its recording can be judged."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from livekit import rtc

from rehearsal import ear, hearing, marks
from rehearsal.personas import GREETING
from rehearsal.witness import EndedBy, dials_of
from tests.rehearsal.conftest import API_KEY, API_SECRET, FACT_S, Network, until

pytestmark = pytest.mark.livekit

TEXT = "Hello Ann, your prescription is ready at Main Street."


async def test_the_statuses_come_in_order_with_our_attributes(network: Network) -> None:
    """dialing, ringing, active, hangup; kind SIP; no number where it is hidden."""
    room = await network.room("order")
    agent = await network.agent(room)
    await network.dial("+12125550181", room, participant_attributes={"call_id": "c-1"})
    await agent.say("Hello there, this is a rather long sentence, long enough to be hung up on.")
    assert await until(lambda: agent.left, "the callee left") == [rtc.DisconnectReason.CLIENT_INITIATED]
    assert agent.statuses == ["dialing", "ringing", "active", "hangup"]
    assert agent.attributes["call_id"] == "c-1" and agent.attributes["sip.callID"].startswith("SCL_")
    assert "sip.phoneNumber" not in agent.attributes and "sip.trunkPhoneNumber" not in agent.attributes
    assert set(agent.kinds) == {rtc.ParticipantKind.PARTICIPANT_KIND_SIP}
    dial = await network.ended(room)
    assert dial.ended_by is EndedBy.CALLEE_BYE and dial.first_audio_at is not None and dial.ended_at is not None
    assert 0.8 < (dial.ended_at - dial.first_audio_at).total_seconds() < 3


async def test_a_shown_number_is_in_the_attributes(network: Network) -> None:
    """Without `hide_phone_number`."""
    room = await network.room("shown")
    agent = await network.agent(room)
    await network.dial("+12125550101", room, hide_phone_number=False)
    assert agent.attributes["sip.phoneNumber"] == "+12125550101"
    assert agent.attributes["sip.trunkPhoneNumber"] == "+12125550100"


async def test_the_callee_joins_before_the_invite_and_subscribes_after_the_answer(network: Network) -> None:
    """A joined callee is not an answered one, and nobody listens while it rings."""
    room = await network.room("early")
    agent = await network.agent(room)
    task = asyncio.create_task(network.dial("+12125550101", room))
    await until(lambda: agent.statuses[-1:] == ["ringing"], "it rings")
    waiting = asyncio.create_task(agent.publication.wait_for_subscription())
    await until(lambda: network.dials()[0].ringing_at, "the INVITE was witnessed")
    assert not waiting.done()
    await task
    await asyncio.wait_for(waiting, FACT_S)
    assert agent.statuses == ["dialing", "ringing", "active"]


@pytest.mark.realtime
async def test_what_was_heard_and_when_is_kept_by_attempt(network: Network) -> None:
    """The recording starts at the answer; the first sound is timed."""
    room = await network.room("kept")
    agent = await network.agent(room)
    await network.dial("+12125550101", room)
    await agent.say(TEXT)
    await network.hang_up(room)
    dial = await network.ended(room)
    heard = ear.heard_of(network.directory, room)
    assert heard is not None and heard.dial_id == dial.dial_id and dial.ended_by is EndedBy.CALLER_BYE
    assert hearing.compare(heard.samples, ear.SAMPLE_RATE, TEXT).reason == ""
    assert heard.answer_to_audio_ms == dial.answer_to_audio_ms is not None
    assert heard.reception["packets"] > 50 and heard.reception["packets_lost"] == 0
    (begin, _), *_ = hearing.utterances(heard.samples, ear.SAMPLE_RATE)
    assert abs(begin.start / ear.SAMPLE_RATE * 1000 - dial.answer_to_audio_ms) < 60
    assert ear.heard_of(network.directory, "another") is None


async def test_the_callee_says_hello_in_its_own_voice(network: Network) -> None:
    """Real audio from the phone: its greeting, marked, is heard in the room."""
    room = await network.room("hello")
    agent = await network.agent(room)
    dialing = asyncio.create_task(network.dial("+12125550101", room))
    await until(lambda: agent.tracks, "the agent has the callee's track, before the answer")
    decoder, found = marks.Decoder(16_000), []
    stream = rtc.AudioStream(agent.tracks[0], sample_rate=16_000, num_channels=1, frame_size_ms=100)

    async def listen() -> None:
        async for event in stream:
            found.extend(decoder.feed(np.frombuffer(event.frame.data, dtype=np.int16)))
            if len(found) == 2:
                return

    await asyncio.wait_for(listen(), FACT_S)
    await stream.aclose()
    await dialing
    assert {mark.code for mark in found} == {marks.code_of(GREETING)}


async def test_a_line_that_never_sends_audio_is_dropped_by_media_timeout(network: Network) -> None:
    """After 2 s here; what the agent said before that was heard."""
    room = await network.room("mute")
    agent = await network.agent(room)
    await network.dial("+12125550190", room)
    await agent.say("Hi Bob.")
    dial = await network.ended(room)
    assert dial.ended_by is EndedBy.MEDIA_TIMEOUT and dial.answer_to_audio_ms is not None


async def test_the_longest_call_is_bounded(network: Network) -> None:
    """`max_call_duration`."""
    room = await network.room("long")
    agent = await network.agent(room)
    await network.dial("+12125550101", room, max_call_duration={"seconds": 3})
    await until(lambda: agent.left, "the callee left")
    assert (await network.ended(room)).ended_by is EndedBy.MAX_DURATION


async def test_the_carrier_as_a_process_hangs_up_on_sigterm(livekit_url: str, tmp_path: Path, network: Network) -> None:
    """It prints its address, serves, and a SIGTERM ends its legs and its process with 0."""
    command = [sys.executable, "-m", "rehearsal.carrier", "--port", "0", "--livekit-url", livekit_url]
    env = {**os.environ, "LIVEKIT_API_KEY": API_KEY, "LIVEKIT_API_SECRET": API_SECRET}
    directory = tmp_path / "process"
    process = await asyncio.create_subprocess_exec(*command, "--dir", str(directory), stdout=subprocess.PIPE, env=env)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), FACT_S)).decode()
        room = await network.room("process")
        network.client.sip._client.host = line.rsplit(" ", 1)[1].strip()
        info = {"sip_trunk_id": "", "sip_number": "+12125550100"}
        await network.dial("+12125550101", room, **info)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), FACT_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
    (dial,) = dials_of(directory / "witness.jsonl")
    assert dial.ended_by is EndedBy.SHUTDOWN
