"""What goes wrong around a recording: starts without an answer, stops that fail, ends that nobody hears of."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from livekit import api, rtc
from livekit.protocol import egress as proto

from agent import recording
from agent.leg import Ending, Leg
from agent.recording import Recorder
from agent.voice import Voice
from rehearsal.faults import Fault, Kind, Rule, Script
from rehearsal.gcs import BUCKET
from runtime.settings import Secret, Settings
from schemas import values
from schemas.brief import Brief
from schemas.conversation import Conversation, Recording
from schemas.facts import RecordingCompleted, RecordingFailed, RecordingStarted
from tests.egress_bed import serve_egress
from tests.platform_fixtures import LiveKitAddress

pytestmark = pytest.mark.livekit

FACT_S = 15.0
START, LIST, STOP = ("egress.StartRoomCompositeEgress", "egress.ListEgress", "egress.StopEgress")


def fault(at: str, kind: Kind, *nth: int, **more: Any) -> Script:
    """A script with one rule; without numbers it strikes always."""
    chance = {} if nth else {"chance": 1.0}
    return Script(rules=(Rule(at=at, fault=Fault(kind=kind, **more), nth=frozenset(nth), **chance),))


@dataclass
class Job:
    """An agent in a real room, its recorder, and what it says."""

    room: str
    recorder: Recorder
    leg: Leg
    voice: Voice
    client: api.LiveKitAPI
    egress: api.LiveKitAPI
    said: list[tuple[type, dict[str, Any]]] = field(default_factory=list)

    def say(self, kind: type, **fields: Any) -> None:
        self.said.append((kind, fields))

    @property
    def kinds(self) -> list[type]:
        return [kind for kind, _ in self.said]

    async def comes(self, kind: type) -> dict[str, Any]:
        async with asyncio.timeout(FACT_S):
            while kind not in self.kinds:
                await asyncio.sleep(0.02)
        return next(fields for said, fields in self.said if said is kind)

    async def ends(self) -> None:
        """The call is over: the end in the job's order."""
        await self.recorder.stop_and_wait_for_egress()
        await self.client.room.delete_room(api.DeleteRoomRequest(room=self.room))
        await self.recorder.finish(self.say)

    async def running(self, room: str | None = None) -> int:
        asked = proto.ListEgressRequest(room_name=room or self.room, active=True)
        return len((await self.egress.egress.list_egress(asked)).items)

    async def writes(self) -> None:
        """Wait until sound is being written."""
        async with asyncio.timeout(FACT_S):
            while True:
                found = await self.egress.egress.list_egress(proto.ListEgressRequest(room_name=self.room))
                if found.items and found.items[0].status == proto.EGRESS_ACTIVE:
                    return
                await asyncio.sleep(0.02)


_numbers = iter(range(1, 1_000))


@contextlib.asynccontextmanager
async def job(
    livekit: LiveKitAddress,
    storage_url: str,
    script: Script | None = None,
    mode: Recording = "best_effort",
    **settings: Any,
) -> AsyncIterator[Job]:
    number = next(_numbers)
    callee = values.callee_key(f"recorder-{number}", b"pepper")
    call_id = values.call_id(callee, values.request_hash("rx", str(number)))
    brief = Brief(
        call_id=call_id, attempt=1, campaign_id="rx", campaign_hash="h", type="one_way", language="en-US", message="m",
        callee_identity="callee", ring_timeout_s=30, max_call_duration_s=60, data_key_id="d", data_key="",
        conversation=Conversation(recording=mode),
    )  # fmt: skip
    name = values.room_name(call_id, 1)
    token = api.AccessToken(livekit.key, livekit.secret).with_identity("agent").with_kind("agent")
    token = token.with_grants(api.VideoGrants(room_join=True, room=name))
    async with (
        serve_egress(livekit, storage_url, script) as url,
        api.LiveKitAPI(livekit.http_url, livekit.key, livekit.secret) as client,
        api.LiveKitAPI(url, livekit.key, livekit.secret) as egress,
    ):
        await client.room.create_room(api.CreateRoomRequest(name=name))
        room = rtc.Room()
        await room.connect(livekit.url, token.to_jwt())
        told: list[tuple[type, dict[str, Any]]] = []
        leg = Leg(room, "callee", lambda kind, **fields: told.append((kind, fields)))
        known = Settings(
            livekit_url=livekit.url,
            livekit_api_url=url,
            livekit_api_key=livekit.key,
            livekit_api_secret=Secret(livekit.secret),
            recording_bucket=BUCKET,
        )
        recorder = Recorder(brief, leg, replace(known, **settings), lambda kind, **f: made.say(kind, **f))
        made = Job(name, recorder, leg, await Voice.publish(room), client, egress)
        try:
            yield made
        finally:
            await room.disconnect()


async def test_a_start_whose_answer_is_lost_is_found_and_not_repeated(
    livekit: LiveKitAddress, storage_url: str
) -> None:
    """The connection is cut after the egress began: the one that runs is ours, and there is no other."""
    async with job(livekit, storage_url, fault(START, Kind.LOSE_ANSWER, 1)) as one:
        assert await one.recorder.answered(one.voice)
        await one.comes(RecordingStarted)
        await one.writes()
        await one.ends()
        assert one.kinds == [RecordingStarted, RecordingCompleted]
        assert len((await one.egress.egress.list_egress(proto.ListEgressRequest(room_name=one.room))).items) == 1


async def test_a_start_that_is_answered_after_the_call_is_stopped_and_told_of(
    livekit: LiveKitAddress, storage_url: str
) -> None:
    """Nobody waits for it while the callee is on the line; afterwards it is settled."""
    async with job(livekit, storage_url, fault(START, Kind.LATE, 1, delay_s=2.0)) as one:
        assert await one.recorder.answered(one.voice)
        await one.writes()
        began = time.monotonic()
        await one.recorder.stop_and_wait_for_egress()
        assert time.monotonic() - began < 0.2
        await one.recorder.finish(one.say)
        assert one.kinds == [RecordingStarted, RecordingCompleted] and await one.running() == 0


async def test_a_start_that_never_answers_is_given_up_and_what_runs_is_stopped(
    livekit: LiveKitAddress, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded after the call: looked for once more, stopped, followed."""
    monkeypatch.setattr(recording, "START_LEFT_S", 0.5)
    async with job(livekit, storage_url, fault(START, Kind.LATE, 1, delay_s=60.0)) as one:
        assert await one.recorder.answered(one.voice)
        await one.writes()
        await one.recorder.finish(one.say)
        assert one.kinds == [RecordingStarted, RecordingCompleted] and await one.running() == 0


async def test_a_stop_that_fails_does_not_hold_up_the_hang_up(livekit: LiveKitAddress, storage_url: str) -> None:
    """The stop hangs: after its second the room goes, which ends the recording as well, and the file is whole."""
    async with job(livekit, storage_url, fault(STOP, Kind.DELAY, delay_s=30.0)) as one:
        assert await one.recorder.answered(one.voice)
        await one.comes(RecordingStarted)
        await one.writes()
        began = time.monotonic()
        await one.recorder.stop_and_wait_for_egress()
        assert time.monotonic() - began < recording.STOP_TIMEOUT_S + 0.5
        await one.client.room.delete_room(api.DeleteRoomRequest(room=one.room))
        await one.recorder.finish(one.say)
        assert one.kinds == [RecordingStarted, RecordingCompleted]


async def test_a_recording_whose_end_nobody_hears_of_is_told_of_in_time(
    livekit: LiveKitAddress, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Egress answers nothing any more: the wait is bounded, and the code says that it was not followed."""
    monkeypatch.setattr(recording, "FOLLOW_TIMEOUT_S", 1.0)
    script = fault("egress.upload", Kind.FAIL, status=503)
    async with job(livekit, storage_url, script) as one:
        monkeypatch.setattr("rehearsal.egress_recorder.UPLOAD_PAUSE_S", 30.0)
        monkeypatch.setattr("rehearsal.egress.SHUTDOWN_S", 1.0)
        assert await one.recorder.answered(one.voice)
        await one.writes()
        await one.ends()
        assert one.kinds == [RecordingStarted, RecordingFailed]
        assert one.said[1][1]["code"] == "not_followed_EGRESS_ENDING"


async def test_an_upload_that_is_refused_is_told_with_its_number(livekit: LiveKitAddress, storage_url: str) -> None:
    """The status and the number, no text."""
    async with job(livekit, storage_url, fault("egress.upload", Kind.FAIL, status=403)) as one:
        assert await one.recorder.answered(one.voice)
        await one.comes(RecordingStarted)
        await one.writes()
        await one.ends()
        (_, failed) = one.said
        assert failed[1]["code"] == "EGRESS_FAILED_403" and failed[1]["egress_id"]


async def test_a_required_recording_that_does_not_run_in_time_ends_the_call(
    livekit: LiveKitAddress, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits on a silent line for more than the limit; what may have begun is stopped."""
    monkeypatch.setattr(recording, "REQUIRED_TIMEOUT_S", 1.0)
    async with job(livekit, storage_url, fault(START, Kind.LATE, 1, delay_s=3.0), mode="required") as one:
        assert await one.recorder.prepare()
        began = time.monotonic()
        assert not await one.recorder.answered(one.voice)
        assert time.monotonic() - began < 1.5
        await one.ends()
        assert one.kinds == [RecordingFailed] and one.said[0][1]["code"] == "not_active_in_time"
        assert await one.running() == 0


async def test_without_a_bucket_nothing_is_asked_of_egress(livekit: LiveKitAddress, storage_url: str) -> None:
    """`best_effort` says so, `required` rings nobody."""
    async with job(livekit, storage_url, recording_bucket="") as one:
        assert await one.recorder.prepare() and await one.recorder.answered(one.voice)
        assert (await one.comes(RecordingFailed))["code"] == "no_bucket"
        await one.ends()
        assert one.kinds == [RecordingFailed]
    async with job(livekit, storage_url, mode="required", recording_bucket="") as one:
        assert not await one.recorder.prepare()


async def test_a_job_that_hangs_does_not_record_an_empty_room(
    livekit: LiveKitAddress, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callee left and nobody ends the recording: it ends by itself."""
    monkeypatch.setattr(recording, "LEFT_TIMEOUT_S", 0.3)
    async with job(livekit, storage_url) as one:
        assert await one.recorder.answered(one.voice)
        await one.comes(RecordingStarted)
        await one.writes()
        one.leg.over.set_result(Ending.CALLEE_LEFT)
        async with asyncio.timeout(FACT_S):
            while await one.running():
                await asyncio.sleep(0.05)
        await one.recorder.finish(one.say)
        assert one.kinds == [RecordingStarted, RecordingCompleted]


async def test_a_job_without_time_says_that_nobody_follows(livekit: LiveKitAddress, storage_url: str) -> None:
    """Its worker is dead: what is left to say of a running recording is that its end is not known."""
    async with job(livekit, storage_url) as one:
        assert await one.recorder.answered(one.voice)
        await one.comes(RecordingStarted)
        one.recorder.abandon(one.say)
        one.recorder.abandon(one.say)
        assert one.kinds == [RecordingStarted, RecordingFailed] and one.said[1][1]["code"] == "not_followed"
        await one.recorder.finish(one.say)
        assert one.kinds == [RecordingStarted, RecordingFailed]
