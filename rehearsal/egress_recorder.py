"""One recording, from its request to its end: a hidden participant that hears everybody, mixes, encodes and uploads.

STARTING until the first sound is heard, ACTIVE, ENDING while the file is finished and uploaded, then COMPLETE or FAILED;
ABORTED where it ended before the first sound. The end of the room ends it as a stop does.
Source: livekit/egress pkg/pipeline/{controller.go, source/sdk.go}; livekit/protocol livekit/livekit_egress.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from livekit import api, rtc
from livekit.protocol import egress

from rehearsal import faults
from rehearsal.gcs import Storage, StorageFailed
from rehearsal.mixing import Mixer
from rehearsal.mp3 import CONTENT_TYPE, SAMPLE_RATE, Mp3File

JOIN_TIMEOUT_S: Final = 10.0
LEAVE_TIMEOUT_S: Final = 5.0
DURATION_MAX_S: Final = 3600.0
"""`session_limits.file_output_max_duration`; the recording ends as LIMIT_REACHED."""
DRAIN_S: Final = 0.2
"""After a stop: what was said before it is on its way so long."""
FRAME_MS: Final = 100
WRITE_EVERY_S: Final = 0.5
UPLOAD_TRIES: Final = 3
UPLOAD_PAUSE_S: Final = 0.5
START_NOT_RECEIVED: Final = "Start signal not received"
STOPPED_BEFORE_START: Final = "Stop called before pipeline could start"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all recordings share."""

    livekit_url: str
    api_key: str
    api_secret: str
    storage: Storage
    script: faults.Script


class Recording:
    """One egress; `info` is what the API says of it. `run` once, in a task of its own."""

    def __init__(self, info: egress.EgressInfo, around: Surroundings) -> None:
        self.info, self._around = info, around
        self._output = info.room_composite.file_outputs[0]
        self._room = rtc.Room()
        self._mixer = Mixer(SAMPLE_RATE)
        self._stopped = asyncio.Event()
        self._heard = asyncio.Event()
        self._why_aborted = START_NOT_RECEIVED
        self._listening: set[asyncio.Task[None]] = set()

    @property
    def ended(self) -> bool:
        """Tell whether it has a final state."""
        return self.info.status not in (egress.EGRESS_STARTING, egress.EGRESS_ACTIVE, egress.EGRESS_ENDING)

    def stop(self) -> None:
        """End it: what is recorded is finished and uploaded; what has not begun is aborted."""
        if self.info.status == egress.EGRESS_STARTING:
            self._why_aborted = STOPPED_BEFORE_START
        elif self.info.status == egress.EGRESS_ACTIVE:
            self._now(egress.EGRESS_ENDING)
        self._stopped.set()

    async def run(self) -> None:
        """Record; never raises for what LiveKit, the storage or a caller does."""
        with tempfile.TemporaryDirectory(prefix="egress-") as folder:
            file = Path(folder) / "recording.mp3"
            try:
                await self._record(file)
            finally:
                await self._leave()

    async def _record(self, file: Path) -> None:
        if (fault := self._fault("join")) is not None:
            self._fail(fault.status, fault.code)
            return
        if not _permitted(self._output.gcp.credentials):
            self._fail(400, "the credentials are no service account's")
            return
        try:
            await self._join()
        except (rtc.ConnectError, TimeoutError):
            self._fail(500, "the room could not be joined")
            return
        if not await self._hears():
            self._now(egress.EGRESS_ABORTED)
            self.info.error, self.info.error_code = self._why_aborted, 412
            return
        self.info.started_at = time.time_ns()
        self._now(egress.EGRESS_ACTIVE)
        mp3 = Mp3File(file)
        limited = await self._write(mp3)
        self._result(mp3.duration_s)
        await self._upload(file, egress.EGRESS_LIMIT_REACHED if limited else egress.EGRESS_COMPLETE)

    # -- the room -----------------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        self._room.on("disconnected", lambda _: self.stop())
        self._room.on("track_published", self._subscribe)
        grants = api.VideoGrants(
            room_join=True,
            room=self.info.room_name,
            can_publish=False,
            can_publish_data=False,
            hidden=True,
            recorder=True,
        )
        around = self._around
        token = api.AccessToken(around.api_key, around.api_secret).with_identity(self.info.egress_id)
        token = token.with_kind("egress").with_grants(grants)
        options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=JOIN_TIMEOUT_S)
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            await self._room.connect(around.livekit_url, token.to_jwt(), options)
        for participant in self._room.remote_participants.values():
            for publication in participant.track_publications.values():
                self._subscribe(publication, participant)

    def _subscribe(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        if publication.kind != rtc.TrackKind.KIND_AUDIO:
            return
        # Before the subscription, so that the stream hangs in the library the moment the track arrives.
        stream = rtc.AudioStream.from_participant(
            participant=participant,
            track_source=publication.source,
            sample_rate=SAMPLE_RATE,
            num_channels=1,
            frame_size_ms=FRAME_MS,
        )
        task = asyncio.create_task(self._listen(stream))
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)
        publication.set_subscribed(True)

    async def _listen(self, stream: rtc.AudioStream) -> None:
        track = self._mixer.track()
        try:
            async for event in stream:
                self._mixer.begin(FRAME_MS / 1000)  # what is heard first was said while its frame was filled
                self._heard.set()
                track.lay(np.frombuffer(event.frame.data, dtype=np.int16), SAMPLE_RATE)
        finally:
            await stream.aclose()

    async def _hears(self) -> bool:
        """Wait for the first sound; False where the end comes first."""
        waits = [asyncio.create_task(event.wait()) for event in (self._heard, self._stopped)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._heard.is_set() and not self._stopped.is_set()

    async def _leave(self) -> None:
        for task in list(self._listening):
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._room.disconnect()

    # -- the file -----------------------------------------------------------------------------------------------------

    async def _write(self, mp3: Mp3File) -> bool:
        """Write what settles until the end, and close the file; True where the limit was the end."""
        deadline = time.monotonic() + DURATION_MAX_S
        while not self._stopped.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_EVERY_S):
                    await self._stopped.wait()
            if not self._stopped.is_set():
                await asyncio.to_thread(mp3.write, self._mixer.take(self._mixer.settled()))
        limited = not self._stopped.is_set()
        until = self._mixer.now()
        self._now(egress.EGRESS_ENDING)
        await asyncio.sleep(DRAIN_S)
        await asyncio.to_thread(mp3.write, self._mixer.take(until))
        await asyncio.to_thread(mp3.close)
        return limited

    def _result(self, duration_s: float) -> None:
        self.info.ended_at = time.time_ns()
        result = egress.FileInfo(
            filename=self._output.filepath,
            started_at=self.info.started_at,
            ended_at=self.info.ended_at,
            duration=round(duration_s * 1e9),
        )
        self.info.file_results.append(result)

    async def _upload(self, file: Path, outcome: egress.EgressStatus) -> None:
        bucket, name, content = self._output.gcp.bucket, self._output.filepath, await asyncio.to_thread(file.read_bytes)
        for last in range(1, UPLOAD_TRIES + 1):
            try:
                self._meet_storage()
                size = await self._around.storage.upload(bucket, name, content, CONTENT_TYPE)
                break
            except StorageFailed as failed:
                if last == UPLOAD_TRIES or 400 <= failed.status < 500:
                    self._fail(failed.status, "the upload failed")
                    return
                await asyncio.sleep(UPLOAD_PAUSE_S)
        self.info.file_results[0].size = size
        self.info.file_results[0].location = f"https://{bucket}.storage.googleapis.com/{name}"
        self._now(outcome)

    def _meet_storage(self) -> None:
        """Let an upload meet its fault. Raises: StorageFailed."""
        if (fault := self._fault("upload")) is not None:
            raise StorageFailed(fault.status)

    # -- its states ---------------------------------------------------------------------------------------------------

    def _fault(self, where: str) -> faults.Fault | None:
        return self._around.script.strike(f"egress.{where}")

    def _fail(self, code: int, text: str) -> None:
        self.info.error, self.info.error_code = text, code
        self._now(egress.EGRESS_FAILED)

    def _now(self, status: egress.EgressStatus) -> None:
        self.info.status, self.info.updated_at = status, time.time_ns()
        log.info("%s is %s", self.info.egress_id, egress.EgressStatus.Name(status))


def _permitted(credentials: str) -> bool:
    """As livekit/storage: nothing (the identity of the process), or the key of a service account."""
    if not credentials:
        return True
    try:
        told = json.loads(credentials)
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("type") == "service_account"
