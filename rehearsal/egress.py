"""LiveKit's Egress in a box: the Twirp API, and recordings that truly hear a room, to MP3s in a bucket.

    python -m rehearsal.egress --help

It answers `/twirp/livekit.Egress/*` as livekit-server does with an egress behind it (livekit-server pkg/service/egress.go)
for what the dialer asks: RoomComposite of audio alone, one MP3 to Cloud Storage. The carrier passes such requests on to it.
`GET /rehearsal/recordings` shows all of them, `GET /rehearsal/health` answers 200. Faults by a script: `egress.<method>`
for requests, `egress.join` and `egress.upload` for what comes after.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web
from livekit import api, rtc
from livekit.protocol import egress, room

from rehearsal import faults, serving, twirp
from rehearsal.egress_recorder import Recording, Surroundings
from rehearsal.gcs import Storage
from rehearsal.mp3 import SAMPLE_RATE
from rehearsal.twirp import TwirpError

log = logging.getLogger(__name__)

RECORDINGS_MAX: Final = 20
"""At once; one more finds no egress, as in a cluster without a free one."""
REMEMBERED_MAX: Final = 1_000
SHUTDOWN_S: Final = 15.0
_LIVEKIT_TIMEOUT_S: Final = 5.0


class Egress:
    """The recordings and the HTTP routes; everything a test needs to run one in process."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._verifier = api.TokenVerifier(around.api_key, around.api_secret)
        self._recordings: dict[str, Recording] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._methods: dict[str, Callable[[web.Request], Awaitable[web.Response]]] = {
            "StartRoomCompositeEgress": self._start,
            "ListEgress": self._list,
            "StopEgress": self._stop,
        }

    def app(self) -> web.Application:
        """The aiohttp application; its shutdown ends every recording."""
        app = web.Application(middlewares=[faults.middleware(self._around.script, _place)])
        app.router.add_post("/twirp/livekit.Egress/{method}", self._answer)
        app.router.add_get("/rehearsal/recordings", self._show)
        app.router.add_get("/rehearsal/health", self._health)
        app.on_shutdown.append(self._shut_down)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            return await self._permitted(request)(request)
        except TwirpError as error:
            return error.response()

    def _permitted(self, request: web.Request) -> Callable[[web.Request], Awaitable[web.Response]]:
        """The method's handler. Raises: TwirpError for an unknown method or a token without its grant."""
        method = self._methods.get(request.match_info["method"])
        if method is None:
            raise TwirpError("unimplemented", "this egress has no such method")
        if not twirp.may_record(request, self._verifier):
            raise TwirpError("unauthenticated", "permissions denied")
        return method

    async def _start(self, request: web.Request) -> web.Response:
        asked = await twirp.read(request, egress.RoomCompositeEgressRequest)
        outputs = asked.file_outputs
        if not asked.audio_only or asked.layout or asked.custom_base_url:
            raise TwirpError("unimplemented", "this egress records audio alone, without a layout")
        if len(outputs) != 1 or outputs[0].file_type != egress.EncodedFileType.MP3 or not outputs[0].HasField("gcp"):
            raise TwirpError("unimplemented", "this egress writes one MP3 to Cloud Storage")
        room_id = await self._room_id(asked.room_name)
        if sum(not one.ended for one in self._recordings.values()) >= RECORDINGS_MAX:
            raise TwirpError("unavailable", "no response from servers")
        info = egress.EgressInfo(
            egress_id=f"EG_{secrets.token_hex(6)}",
            room_id=room_id,
            room_name=asked.room_name,
            source_type=egress.EGRESS_SOURCE_TYPE_SDK,
            status=egress.EGRESS_STARTING,
            updated_at=time.time_ns(),
            room_composite=asked,
        )
        recording = Recording(info, self._around)
        self._remember(recording)
        task = asyncio.create_task(recording.run(), name=info.egress_id)
        self._running[info.egress_id] = task
        task.add_done_callback(lambda ended: self._over(info.egress_id, ended))
        return twirp.answer(request, _shown(info))

    async def _room_id(self, name: str) -> str:
        """The id of a live room. Raises: TwirpError `not_found`."""
        around = self._around
        url = around.livekit_url.replace("ws", "http", 1)
        timeout = aiohttp.ClientTimeout(total=_LIVEKIT_TIMEOUT_S)
        async with api.LiveKitAPI(url, around.api_key, around.api_secret, timeout=timeout) as livekit:
            found = await livekit.room.list_rooms(room.ListRoomsRequest(names=[name]))
        if not found.rooms:
            raise TwirpError("not_found", "requested room does not exist")
        return found.rooms[0].sid

    async def _list(self, request: web.Request) -> web.Response:
        asked = await twirp.read(request, egress.ListEgressRequest)
        if asked.egress_id:
            return twirp.answer(request, egress.ListEgressResponse(items=[_shown(self._of(asked.egress_id).info)]))
        items = [
            _shown(one.info)
            for one in self._recordings.values()
            if (not asked.room_name or one.info.room_name == asked.room_name) and (not asked.active or not one.ended)
        ]
        return twirp.answer(request, egress.ListEgressResponse(items=items))

    async def _stop(self, request: web.Request) -> web.Response:
        asked = await twirp.read(request, egress.StopEgressRequest)
        recording = self._of(asked.egress_id)
        if recording.ended:
            status = egress.EgressStatus.Name(recording.info.status)
            raise TwirpError("failed_precondition", f"egress with status {status} cannot be stopped")
        recording.stop()
        return twirp.answer(request, _shown(recording.info))

    def _of(self, egress_id: str) -> Recording:
        if egress_id not in self._recordings:
            raise TwirpError("not_found", "egress does not exist")
        return self._recordings[egress_id]

    def _remember(self, recording: Recording) -> None:
        while len(self._recordings) >= REMEMBERED_MAX:
            oldest = next(known for known, one in self._recordings.items() if one.ended)
            del self._recordings[oldest]
        self._recordings[recording.info.egress_id] = recording

    def _over(self, egress_id: str, task: asyncio.Task[None]) -> None:
        del self._running[egress_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a recording ended by a fault of the egress", exc_info=error)

    async def _show(self, _: web.Request) -> web.Response:
        shown: list[dict[str, Any]] = [
            {"egress_id": known, "room": one.info.room_name, "status": egress.EgressStatus.Name(one.info.status)}
            for known, one in self._recordings.items()
        ]
        return web.json_response(shown)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "recordings": len(self._running)})

    async def _shut_down(self, _: web.Application) -> None:
        """End every recording as a stop does, its upload included."""
        for egress_id in self._running:
            self._recordings[egress_id].stop()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=SHUTDOWN_S)
        await self._around.storage.close()


def _shown(info: egress.EgressInfo) -> egress.EgressInfo:
    """What the API shows: credentials redacted (livekit/protocol egress/redact.go)."""
    shown = egress.EgressInfo()
    shown.CopyFrom(info)
    for output in shown.room_composite.file_outputs:
        if output.gcp.credentials:
            output.gcp.credentials = "{credentials}"
    return shown


def _place(request: web.Request) -> str | None:
    """Where a request stands in a script of faults."""
    return f"egress.{request.path.rsplit('/', 1)[-1]}" if request.path.startswith("/twirp/") else None


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then end every recording."""
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal.egress",
        description="LiveKit's Egress on loopback: records rooms of the livekit-server to MP3s in a Cloud Storage bucket.",
        epilog="Keys: LIVEKIT_API_KEY and LIVEKIT_API_SECRET. The storage: STORAGE_EMULATOR_HOST.",
    )
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 = any free one, which is printed")
    parser.add_argument("--livekit-url", required=True, help="the real livekit-server, for example ws://127.0.0.1:7880")
    parser.add_argument("--faults", type=Path, help="a script of faults (see rehearsal/faults.py)")
    asked = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    key, secret = os.environ.get("LIVEKIT_API_KEY"), os.environ.get("LIVEKIT_API_SECRET")
    if not key or not secret:
        raise SystemExit("set LIVEKIT_API_KEY and LIVEKIT_API_SECRET to the keys of the livekit-server")
    rtc.AudioResampler(48_000, SAMPLE_RATE)  # the native runtime starts before the first call
    script = faults.script_from(asked.faults)

    storage = Storage.of()
    around = Surroundings(livekit_url=asked.livekit_url, api_key=key, api_secret=secret, storage=storage, script=script)
    serving.run(Egress(around).app(), asked.port, "egress")


if __name__ == "__main__":
    main()
