"""Calls that are recorded, by workers as deployed: a real room, a real egress of it, a real Cloud Storage server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from livekit import api
from livekit.protocol import egress as proto

from agent.phrases import announcement
from agent.recording import path_of
from rehearsal import gcs, marks, mp3, voices
from rehearsal.ear import HeardCall
from rehearsal.espeak import Samples
from rehearsal.gcs import BUCKET, Storage
from rehearsal.hearing import Verdict, compare
from rehearsal.ports import free_ports
from rehearsal.provision import provision
from rehearsal.voice import spoken
from rehearsal.witness import Dial
from schemas import facts
from schemas.conversation import Conversation, Phrases, Recording
from schemas.envelope import Envelope
from tests.agent.conftest import ANSWERS, KEY, MESSAGE, SECRET, Call, Stage, _python, agent_spec

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.livekit,
    pytest.mark.broker,
    pytest.mark.e2e,
    pytest.mark.realtime,
]

HANG_UP_MAX_S = 1.0
"""From the agent's last word to the end of the callee's leg, its tail of silence left out."""
TAIL_S = 1.0
LENGTH_ERROR_MAX_S = 1.0


@dataclass
class Studio:
    """The stage, with an egress and a bucket; worker `recording` reaches them, worker `without` finds no egress."""

    stage: Stage
    storage: Storage
    client: api.LiveKitAPI

    async def call(self, mode: Recording, worker: str = "recording") -> Call:
        """Place a call whose agent is ready."""
        call = await self.stage.place(agent_name=worker, conversation=Conversation(recording=mode))
        await self.stage.comes(call, facts.AgentReady.TYPE)
        return call

    async def over(self, call: Call) -> tuple[Dial, HeardCall]:
        """Wait for the last word and for the phone's account."""
        await self.stage.comes(call, facts.ConversationEnded.TYPE)
        dial, heard = await self.stage.spoken(call)
        assert heard is not None
        return dial, heard

    def names(self, call: Call) -> list[str]:
        return [fact.type.split(".")[2] for fact in self.stage.facts(call)]

    def fact(self, call: Call, kind: Any) -> Envelope:
        (fact,) = [one for one in self.stage.facts(call) if one.type == kind.TYPE]
        return fact

    async def recording(self, call: Call) -> Samples:
        """Return the sound that the bucket has of a call, held against what was said of it."""
        completed = (await self.stage.comes(call, facts.RecordingCompleted.TYPE)).data
        assert completed["path"] == path_of(call.brief)
        content = await self.storage.download(BUCKET, completed["path"])
        assert content is not None and len(content) == completed["size_bytes"]
        sound = mp3.decode(content, voices.SAMPLE_RATE)
        assert abs(len(sound) / voices.SAMPLE_RATE - completed["duration_ms"] / 1000) < 0.1
        return sound

    async def listed(self, room: str) -> list[str]:
        found = await self.client.egress.list_egress(proto.ListEgressRequest(room_name=room))
        return [info.egress_id for info in found.items]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def studio(stage: Stage) -> AsyncIterator[Studio]:
    """An egress, a bucket, and two workers more."""
    port, storage_port = free_ports(2)
    url = f"http://127.0.0.1:{port}"
    server = gcs.StorageServer(binary=provision().gcs, data_dir=stage.supervisor.run_dir / "gcs", port=storage_port)
    env = dict(os.environ) | {
        "LIVEKIT_API_KEY": KEY,
        "LIVEKIT_API_SECRET": SECRET,
        gcs.EMULATOR_VARIABLE: server.url,
    }
    argv = ["-m", "rehearsal.egress", "--port", str(port), "--livekit-url", stage.livekit.url]
    more = {"DIALER_RECORDING_BUCKET": BUCKET, "DIALER_AGENT_IDLE_PROCESSES": "1"}
    workers = [
        agent_spec(stage, "recording", DIALER_AGENT_NAME="recording", LIVEKIT_API_URL=url, **more),
        # livekit-server itself, which has no egress behind it
        agent_spec(stage, "without", DIALER_AGENT_NAME="without", LIVEKIT_API_URL=stage.livekit.http_url, **more),
    ]
    await stage.supervisor.start([gcs.server_spec(server), _python("egress", argv, env, port), *workers])
    async with contextlib.AsyncExitStack() as stack:
        storage = await stack.enter_async_context(Storage(server.url))
        client = await stack.enter_async_context(api.LiveKitAPI(url, KEY, SECRET))
        for name in ("recording", "without"):
            await stage.registered(name)
        yield Studio(stage, storage, client)


def hung_up_after_s(studio: Studio, call: Call, dial: Dial, said: Any) -> float:
    """Seconds from a fact to the end of the leg."""
    assert dial.ended_at is not None
    at = studio.fact(call, said).time
    assert at is not None
    return (dial.ended_at - at).total_seconds()


@pytest.mark.realtime
async def test_a_recorded_call_is_delivered_and_both_voices_are_in_the_bucket(studio: Studio) -> None:
    """`best_effort`: nobody waits for it, the last word comes before the file, the file is right in length and sound."""
    call = await studio.call("best_effort")
    await studio.stage.dial(call)
    dial, heard = await studio.over(call)
    sound = await studio.recording(call)
    names = [name for name in studio.names(call) if name not in ("callee_left", "recording_started")]
    assert names[-4:] == ["conversation_started", "notification_delivered", "conversation_ended", "recording_completed"]
    assert compare(heard.samples, voices.SAMPLE_RATE, MESSAGE).verdict is Verdict.SAME
    assert hung_up_after_s(studio, call, dial, facts.NotificationDelivered) < TAIL_S + HANG_UP_MAX_S
    started = studio.fact(call, facts.RecordingStarted)
    assert started.time is not None and dial.ended_at is not None and dial.answered_at is not None
    expected_s = (dial.ended_at - started.time).total_seconds()
    length_s = len(sound) / voices.SAMPLE_RATE
    print(f"\nrecorded {length_s:.2f} s of {expected_s:.2f} s; hung up after", end=" ")
    print(f"{hung_up_after_s(studio, call, dial, facts.NotificationDelivered):.2f} s")
    assert abs(length_s - expected_s) < LENGTH_ERROR_MAX_S
    began_s = (started.time - dial.answered_at).total_seconds() + max(0.0, expected_s - length_s)
    phone = spoken(ANSWERS.says)
    for voice, other in ((heard.samples, phone), (phone, heard.samples)):
        held = voices.held(sound, voice, other, began_s)
        assert held.whole, held
    assert marks.code_of(MESSAGE) in {mark.code for mark in marks.decode(sound, voices.SAMPLE_RATE)}


async def test_a_call_without_an_egress_is_delivered_all_the_same(studio: Studio) -> None:
    """`best_effort`: the failure is a fact, with a code, and the callee hears every word."""
    call = await studio.call("best_effort", "without")
    await studio.stage.dial(call)
    await studio.over(call)
    failed = await studio.stage.comes(call, facts.RecordingFailed.TYPE)
    assert failed.data["egress_id"] is None and failed.data["code"] in ("unavailable", "internal", "unknown")
    assert studio.fact(call, facts.ConversationEnded).data["reason"] == "delivered"
    assert not {"recording_started", "recording_completed"} & set(studio.names(call))


async def test_a_required_recording_that_cannot_be_ends_the_call_unspoken(studio: Studio) -> None:
    """`required`: not a sound is sent, the callee is hung up on at once, and the call failed by us."""
    call = await studio.call("required", "without")
    await studio.stage.dial(call)
    dial, heard = await studio.over(call)
    assert studio.fact(call, facts.ConversationEnded).data["reason"] == "failed"
    assert not {"conversation_started", "notification_delivered", "callee_left"} & set(studio.names(call))
    assert not np.abs(heard.samples.astype(np.int32)).max(initial=0) > 130
    assert hung_up_after_s(studio, call, dial, facts.RecordingFailed) < HANG_UP_MAX_S


async def test_a_required_recording_runs_before_the_first_word(studio: Studio) -> None:
    """`required`: the whole message is in the recording, its first mark too."""
    call = await studio.call("required")
    await studio.stage.dial(call, replace(ANSWERS, sends_audio=False))  # a greeting would lie over the first mark
    await studio.over(call)
    sound = await studio.recording(call)
    names = studio.names(call)
    assert names.index("recording_started") < names.index("conversation_started")
    sides = [m.side for m in marks.decode(sound, voices.SAMPLE_RATE) if m.code == marks.code_of(MESSAGE)]
    assert sides == [marks.Side.BEGIN, marks.Side.END]


async def test_consent_is_announced_first_and_recorded_after(studio: Studio) -> None:
    """`consent`: the callee hears the announcement, then the message; the recording has the message alone."""
    call = await studio.call("consent")
    await studio.stage.dial(call)
    _, heard = await studio.over(call)
    announced, message = marks.code_of(announcement("en-US", Phrases())), marks.code_of(MESSAGE)
    codes = [mark.code for mark in marks.decode(heard.samples, voices.SAMPLE_RATE) if mark.side is marks.Side.END]
    assert codes == [announced, message]
    sound = await studio.recording(call)
    recorded = {mark.code for mark in marks.decode(sound, voices.SAMPLE_RATE)}
    assert message in recorded and announced not in recorded


async def test_a_room_that_is_recorded_already_is_not_recorded_twice(studio: Studio) -> None:
    """The recording that runs is taken for ours, whoever started it, and followed to its end."""
    call = await studio.call("required")
    output = proto.EncodedFileOutput(
        file_type=proto.EncodedFileType.MP3, filepath=path_of(call.brief), gcp=proto.GCPUpload(bucket=BUCKET)
    )
    running = await studio.client.egress.start_room_composite_egress(
        proto.RoomCompositeEgressRequest(room_name=call.room, audio_only=True, file_outputs=[output])
    )
    await studio.stage.dial(call)
    await studio.over(call)
    await studio.recording(call)
    assert studio.fact(call, facts.RecordingStarted).data["egress_id"] == running.egress_id
    assert await studio.listed(call.room) == [running.egress_id]


async def test_a_cancelled_call_keeps_what_was_recorded(studio: Studio) -> None:
    """The dialer deletes the room amid the message: the recording ends with it, and is told of."""
    call = await studio.call("required")
    await studio.stage.dial(call)
    await studio.stage.comes(call, facts.ConversationStarted.TYPE)
    await studio.stage.hang_up(call)
    await studio.over(call)
    assert studio.fact(call, facts.ConversationEnded).data["reason"] == "cancelled"
    assert len(await studio.recording(call)) > 0


async def test_a_callee_who_hangs_up_at_once_leaves_no_recording_running(studio: Studio) -> None:
    """However short the call, nothing records on, and one fact tells what became of it."""
    call = await studio.call("best_effort")
    await studio.stage.dial(call)
    await studio.stage.until(lambda: "callee_status" in studio.names(call)[-1:], "the answer")
    assert call.leg is not None
    await call.leg.answered
    await studio.stage.hang_up(call)
    await studio.over(call)

    def ends() -> list[str]:
        return [name for name in studio.names(call) if name in ("recording_completed", "recording_failed")]

    await studio.stage.until(ends, "the recording's end")
    assert len(ends()) == 1
    active = await studio.client.egress.list_egress(proto.ListEgressRequest(room_name=call.room, active=True))
    assert not active.items


async def test_no_log_of_a_recording_holds_a_room_or_a_credential(studio: Studio) -> None:
    """After all calls of this module: the workers' logs name calls and codes alone."""
    for name in ("recording", "without"):
        log = studio.stage.supervisor.log_path(name).read_text()
        assert "job done" in log
        for secret in ("callee-", "call-", SECRET, "prescription"):
            assert secret not in log, secret
