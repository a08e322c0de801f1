"""LiveKit's Egress as a recording needs it: find, start, look, stop; one attempt a request, each under its own time limit.

The SDK sets no limit of its own that holds, and a start is answered only after 23.9 s where no egress is to be had.
Source: reference/livekit.md 4.1, 4.7; livekit/protocol livekit_egress.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
from livekit import api
from livekit.protocol import egress as proto

from runtime.settings import Settings

START_TIMEOUT_S: Final = 90.0
"""livekit-server tries three times (10, 20, 40 s) to find an egress."""
REQUEST_TIMEOUT_S: Final = 5.0
UNANSWERED: Final = frozenset({"timeout", "connection"})
"""Codes after which a request may have been carried out all the same."""
_CODES: Final = frozenset(code for name, code in vars(api.TwirpErrorCode).items() if not name.startswith("_"))
_RUNNING: Final = frozenset({proto.EGRESS_STARTING, proto.EGRESS_ACTIVE})
_ENDING: Final = frozenset({*_RUNNING, proto.EGRESS_ENDING})

T = TypeVar("T")


class EgressFailed(Exception):
    """A request to Egress that came to nothing: `code` says how, and never what the server wrote."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What Egress says of one recording."""

    egress_id: str
    status: int
    error_code: int = 0
    path: str = ""
    duration_ms: int = 0
    size_bytes: int = 0

    @property
    def active(self) -> bool:
        """Tell whether sound is being written."""
        return self.status == proto.EGRESS_ACTIVE

    @property
    def records(self) -> bool:
        """Tell whether it takes, or will take, anything from the room."""
        return self.status in _RUNNING

    @property
    def ended(self) -> bool:
        """Tell whether nothing more will become of it."""
        return self.status not in _ENDING

    @property
    def whole(self) -> bool:
        """Tell whether the file is in the bucket, to the end of the recording."""
        return self.status == proto.EGRESS_COMPLETE

    @property
    def code(self) -> str:
        """Return the status as a code, with Egress' own error number where it has one."""
        name = proto.EgressStatus.Name(self.status) if self.status in proto.EgressStatus.values() else "EGRESS_UNKNOWN"
        return f"{name}_{self.error_code}" if self.error_code else name


class Egress:
    """Egress of one room, writing to one path; made inside a running loop, closed by `close`."""

    def __init__(self, settings: Settings, room: str, path: str) -> None:
        self._settings, self._room, self._path = settings, room, path
        self._session = aiohttp.ClientSession()
        url = settings.livekit_api_url or settings.livekit_url
        key, secret = settings.livekit_api_key, settings.livekit_api_secret.reveal()
        # The SDK's own second attempt elsewhere is off: a start is not idempotent.
        self._client = api.LiveKitAPI(url, key, secret, session=self._session, failover=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def find(self) -> Seen | None:
        """Return the room's running recording, whoever started it. Raises: EgressFailed."""
        asked = proto.ListEgressRequest(room_name=self._room, active=True)
        found = await _answer(self._client.egress.list_egress(asked), REQUEST_TIMEOUT_S)
        return _seen(found.items[0]) if found.items else None

    async def start(self) -> Seen:
        """Start a recording: the room's audio, mixed, as MP3, without a browser. Raises: EgressFailed."""
        settings = self._settings
        bucket = proto.GCPUpload(bucket=settings.recording_bucket, credentials=settings.recording_credentials.reveal())
        output = proto.EncodedFileOutput(
            file_type=proto.EncodedFileType.MP3, filepath=self._path, disable_manifest=True, gcp=bucket
        )
        # An empty layout with audio only is what keeps Chrome away (egress pkg/config/pipeline.go).
        request = proto.RoomCompositeEgressRequest(
            room_name=self._room, layout="", audio_only=True, file_outputs=[output]
        )
        return _seen(await _answer(self._client.egress.start_room_composite_egress(request), START_TIMEOUT_S))

    async def look(self, egress_id: str) -> Seen:
        """Return what a recording is at. Raises: EgressFailed."""
        found = await _answer(
            self._client.egress.list_egress(proto.ListEgressRequest(egress_id=egress_id)), REQUEST_TIMEOUT_S
        )
        if not found.items:
            raise EgressFailed("not_found")
        return _seen(found.items[0])

    async def stop(self, egress_id: str) -> Seen | None:
        """Ask a recording to end; None where it is ending by itself, or has. Raises: EgressFailed."""
        asked = proto.StopEgressRequest(egress_id=egress_id)
        try:
            return _seen(await _answer(self._client.egress.stop_egress(asked), REQUEST_TIMEOUT_S))
        except EgressFailed as failed:
            if failed.code == api.TwirpErrorCode.FAILED_PRECONDITION:
                return None
            raise


async def _answer(request: Awaitable[T], timeout_s: float) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await request
    except api.TwirpError as error:
        raise EgressFailed(error.code if error.code in _CODES else "unknown") from None
    except TimeoutError:
        raise EgressFailed("timeout") from None
    except aiohttp.ClientError:
        raise EgressFailed("connection") from None


def _seen(info: proto.EgressInfo) -> Seen:
    file = info.file_results[0] if info.file_results else proto.FileInfo()
    return Seen(
        egress_id=info.egress_id,
        status=info.status,
        error_code=info.error_code,
        path=file.filename,
        duration_ms=file.duration // 1_000_000,
        size_bytes=file.size,
    )
