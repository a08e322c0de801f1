"""The egress answers the real client as livekit-server with livekit-egress would, and records a real room.

Source of what is held here: reference/livekit.md 4.7; livekit-server pkg/service/egress.go; livekit/egress pkg/pipeline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from livekit import api
from livekit.protocol import egress as proto

from rehearsal import marks, mp3
from rehearsal.faults import Fault, Kind, Rule, Script
from rehearsal.gcs import BUCKET, Storage
from tests.egress_bed import serve_egress
from tests.platform_fixtures import LiveKitAddress
from tests.rehearsal.conftest import Agent, Network, serve_carrier

pytestmark = pytest.mark.livekit

TEXT = "Hello Ann, your prescription is ready."
END_S = 15.0


@dataclass
class Bed:
    """A carrier with an egress behind it, and the bucket."""

    network: Network
    storage: Storage

    @property
    def egress(self) -> Any:
        return self.network.client.egress

    def request(self, room: str, **output: Any) -> proto.RoomCompositeEgressRequest:
        told = {"credentials": "", "bucket": BUCKET, **output}
        file = proto.EncodedFileOutput(
            file_type=proto.EncodedFileType.MP3,
            filepath=f"recordings/rx/{room}/recording.mp3",
            disable_manifest=True,
            gcp=proto.GCPUpload(**told),
        )
        return proto.RoomCompositeEgressRequest(room_name=room, audio_only=True, file_outputs=[file])

    async def look(self, egress_id: str) -> proto.EgressInfo:
        found = await self.egress.list_egress(proto.ListEgressRequest(egress_id=egress_id))
        return found.items[0]

    async def comes_to(self, egress_id: str, *statuses: int) -> proto.EgressInfo:
        async with asyncio.timeout(END_S):
            while (info := await self.look(egress_id)).status not in statuses:
                await asyncio.sleep(0.05)
        return info

    async def speaker(self, room: str) -> Agent:
        await self.network.room(room)
        return await self.network.agent(room)


@contextlib.asynccontextmanager
async def bed_with(
    livekit: LiveKitAddress, storage_url: str, tmp_path: Any, script: Script | None = None
) -> AsyncIterator[Bed]:
    async with (
        serve_egress(livekit, storage_url, script) as url,
        serve_carrier(livekit.url, tmp_path, egress_url=url) as network,
        Storage(storage_url) as storage,
    ):
        yield Bed(network, storage)


@pytest.fixture
async def bed(livekit: LiveKitAddress, storage_url: str, tmp_path: Any) -> AsyncIterator[Bed]:
    async with bed_with(livekit, storage_url, tmp_path) as made:
        yield made


async def test_a_room_is_recorded_to_an_mp3_in_the_bucket(bed: Bed) -> None:
    """STARTING, ACTIVE, ENDING on a stop, COMPLETE; the file decodes, is as long as it says, and holds what was spoken."""
    agent = await bed.speaker("recorded")
    begun = await bed.egress.start_room_composite_egress(bed.request("recorded"))
    assert (begun.status, begun.room_name) == (proto.EGRESS_STARTING, "recorded")
    assert begun.egress_id.startswith("EG_") and begun.room_id.startswith("RM_")
    await bed.comes_to(begun.egress_id, proto.EGRESS_ACTIVE)
    await agent.utter(TEXT)
    stopped = await bed.egress.stop_egress(proto.StopEgressRequest(egress_id=begun.egress_id))
    assert stopped.status == proto.EGRESS_ENDING
    info = await bed.comes_to(begun.egress_id, proto.EGRESS_COMPLETE)
    (file,) = info.file_results
    assert file.filename == "recordings/rx/recorded/recording.mp3"
    assert file.location == f"https://{BUCKET}.storage.googleapis.com/{file.filename}"
    content = await bed.storage.download(BUCKET, file.filename)
    assert content is not None and len(content) == file.size
    heard = mp3.decode(content, 16_000)
    assert abs(len(heard) / 16_000 - file.duration / 1e9) < 0.1
    assert abs(file.duration - (file.ended_at - file.started_at)) < 0.6e9
    assert [(m.code, m.side) for m in marks.decode(heard, 16_000)] == [
        (marks.code_of(TEXT), side) for side in (marks.Side.BEGIN, marks.Side.END)
    ]


async def test_the_recorder_is_hidden(bed: Bed) -> None:
    """Nobody in the room sees it, and it is no listener that a speaker would wait for."""
    agent = await bed.speaker("hidden")
    begun = await bed.egress.start_room_composite_egress(bed.request("hidden"))
    await bed.comes_to(begun.egress_id, proto.EGRESS_ACTIVE)
    assert agent.kinds == [] and not agent.room.remote_participants
    waiting = asyncio.create_task(agent.publication.wait_for_subscription())
    assert await asyncio.wait({waiting}, timeout=1.0) == (set(), {waiting})
    waiting.cancel()


async def test_the_end_of_the_room_completes_the_recording(bed: Bed) -> None:
    """A deleted room ends it as a stop does: the file is whole and in the bucket."""
    agent = await bed.speaker("deleted")
    begun = await bed.egress.start_room_composite_egress(bed.request("deleted"))
    await bed.comes_to(begun.egress_id, proto.EGRESS_ACTIVE)
    await agent.utter(TEXT)
    await bed.network.hang_up("deleted")
    info = await bed.comes_to(begun.egress_id, proto.EGRESS_COMPLETE)
    content = await bed.storage.download(BUCKET, info.file_results[0].filename)
    assert content is not None
    assert marks.decode(mp3.decode(content, 16_000), 16_000)


async def test_a_recording_without_a_sound_is_aborted(bed: Bed) -> None:
    """Nobody publishes: a stop before the first sound aborts, and so does the end of the room."""
    ended = {}
    for room in ("mute-stopped", "mute-deleted"):
        await bed.network.room(room)
        begun = await bed.egress.start_room_composite_egress(bed.request(room))
        if room == "mute-stopped":
            await bed.egress.stop_egress(proto.StopEgressRequest(egress_id=begun.egress_id))
        else:
            await bed.network.hang_up(room)
        info = await bed.comes_to(begun.egress_id, proto.EGRESS_ABORTED, proto.EGRESS_FAILED)
        ended[room] = proto.EgressStatus.Name(info.status)
        assert (
            not info.file_results and await bed.storage.download(BUCKET, f"recordings/rx/{room}/recording.mp3") is None
        )
    assert ended["mute-stopped"] == "EGRESS_ABORTED"


async def test_what_runs_is_listed_and_what_ended_only_by_its_id(bed: Bed) -> None:
    """`active` and `room_name` choose; a stop of an ended one is `failed_precondition`, of an unknown one `not_found`."""
    await bed.speaker("listed")
    begun = await bed.egress.start_room_composite_egress(bed.request("listed"))

    async def running(room: str) -> list[str]:
        found = await bed.egress.list_egress(proto.ListEgressRequest(room_name=room, active=True))
        return [info.egress_id for info in found.items]

    assert await running("listed") == [begun.egress_id] and await running("other") == []
    await bed.comes_to(begun.egress_id, proto.EGRESS_ACTIVE)
    await bed.egress.stop_egress(proto.StopEgressRequest(egress_id=begun.egress_id))
    await bed.comes_to(begun.egress_id, proto.EGRESS_COMPLETE)
    assert await running("listed") == []
    for egress_id, code, status in ((begun.egress_id, "failed_precondition", 412), ("EG_none", "not_found", 404)):
        with pytest.raises(api.TwirpError) as caught:
            await bed.egress.stop_egress(proto.StopEgressRequest(egress_id=egress_id))
        assert (caught.value.code, caught.value.status) == (code, status)
    with pytest.raises(api.TwirpError) as caught:
        await bed.look("EG_none")
    assert caught.value.code == "not_found"


async def test_a_room_that_does_not_exist_is_not_recorded(bed: Bed) -> None:
    """`not_found`, and nothing runs."""
    with pytest.raises(api.TwirpError) as caught:
        await bed.egress.start_room_composite_egress(bed.request("never-created"))
    assert caught.value.code == "not_found"


async def test_credentials_are_a_service_accounts_and_never_shown(bed: Bed) -> None:
    """Another kind of key fails the recording; the right one records, and the API shows neither."""
    await bed.speaker("keys")
    key = json.dumps({"type": "service_account", "private_key": "hush"})
    for credentials, status in ((key, proto.EGRESS_ACTIVE), ('{"type": "external_account"}', proto.EGRESS_FAILED)):
        begun = await bed.egress.start_room_composite_egress(bed.request("keys", credentials=credentials))
        info = await bed.comes_to(begun.egress_id, status)
        assert info.room_composite.file_outputs[0].gcp.credentials == "{credentials}"
        assert "hush" not in str(begun) + str(info)
    assert info.error_code == 400


async def test_a_bucket_that_is_not_there_fails_the_recording(bed: Bed) -> None:
    """FAILED with the storage's status, after the recording itself went well."""
    await bed.speaker("homeless")
    begun = await bed.egress.start_room_composite_egress(bed.request("homeless", bucket="no-such-bucket"))
    await bed.comes_to(begun.egress_id, proto.EGRESS_ACTIVE)
    await bed.egress.stop_egress(proto.StopEgressRequest(egress_id=begun.egress_id))
    assert (await bed.comes_to(begun.egress_id, proto.EGRESS_FAILED)).error_code == 404


async def test_a_token_without_the_grant_is_refused(bed: Bed) -> None:
    """`roomRecord` is asked for."""
    token = api.AccessToken("nobody", "x" * 40).with_grants(api.VideoGrants(room_record=True)).to_jwt()
    for headers in ({}, {"Authorization": f"Bearer {token}"}):
        url = f"{bed.network.url}/twirp/livekit.Egress/ListEgress"
        async with aiohttp.ClientSession() as http, http.post(url, json={}, headers=headers) as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, "unauthenticated")


async def test_without_an_egress_behind_it_the_carrier_is_unavailable(network: Network) -> None:
    """As a server that finds no egress."""
    with pytest.raises(api.TwirpError) as caught:
        await network.client.egress.list_egress(proto.ListEgressRequest())
    assert (caught.value.code, caught.value.status) == ("unavailable", 503)


async def test_faults_strike_the_upload_and_the_join(livekit: LiveKitAddress, storage_url: str, tmp_path: Any) -> None:
    """One failed try of an upload is tried again; a join on order fails the recording."""
    once = Rule(at="egress.upload", fault=Fault(kind=Kind.FAIL, status=503), nth=frozenset({1}))
    second = Rule(at="egress.join", fault=Fault(kind=Kind.FAIL, status=500), nth=frozenset({2}))
    async with bed_with(livekit, storage_url, tmp_path, Script(rules=(once, second))) as bed:
        await bed.speaker("struck")
        first = await bed.egress.start_room_composite_egress(bed.request("struck"))
        await bed.comes_to(first.egress_id, proto.EGRESS_ACTIVE)
        await bed.egress.stop_egress(proto.StopEgressRequest(egress_id=first.egress_id))
        await bed.comes_to(first.egress_id, proto.EGRESS_COMPLETE)
        other = await bed.egress.start_room_composite_egress(bed.request("struck"))
        assert (await bed.comes_to(other.egress_id, proto.EGRESS_FAILED)).error_code == 500
