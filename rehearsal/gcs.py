"""Cloud Storage in a box: `fake-gcs-server` as a process, and a client that speaks the storage JSON API with it.

The client finds its server as Google's libraries do: by STORAGE_EMULATOR_HOST, `host:port` or an address, without
credentials. Without that variable it refuses: a rehearsal uploads nothing anywhere else.
Source: Cloud Storage JSON API v1, resumable uploads; cloud.google.com/go/storage, STORAGE_EMULATOR_HOST.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiohttp

from rehearsal.ports import LOOPBACK
from rehearsal.process_spec import ProcessSpec

NAME: Final = "gcs"
BUCKET: Final = "rehearsal-recordings"
EMULATOR_VARIABLE: Final = "STORAGE_EMULATOR_HOST"
CHUNK_BYTES: Final = 2 * 256 * 1024
"""Of a resumable upload: a multiple of 256 KiB, as the API demands."""
REQUEST_TIMEOUT_S: Final = 20.0
_HEALTH_TIMEOUT_S: Final = 2.0
_RESUME_INCOMPLETE: Final = 308


class StorageFailed(Exception):
    """A request that the storage refused, or did not answer; `status` is HTTP's, 503 where there was no answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the storage answered {status}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageServer:
    """One server: its binary, where its buckets are (a folder each), its port."""

    binary: Path
    data_dir: Path
    port: int

    @property
    def url(self) -> str:
        """Return its address, as STORAGE_EMULATOR_HOST takes it."""
        return f"http://{LOOPBACK}:{self.port}"


def server_spec(server: StorageServer) -> ProcessSpec:
    """Return the server as a process for the supervisor; its bucket is there from the start."""
    (server.data_dir / BUCKET).mkdir(parents=True, exist_ok=True)

    async def ready() -> bool:
        timeout = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"{server.url}/storage/v1/b") as page:
                return page.status == 200
        except (TimeoutError, aiohttp.ClientError):
            return False

    where = ["-host", LOOPBACK, "-port", str(server.port), "-external-url", server.url, "-public-host", "localhost"]
    kept = ["-backend", "filesystem", "-filesystem-root", str(server.data_dir)]
    return ProcessSpec(
        name=NAME, argv=[str(server.binary), "-scheme", "http", *where, *kept], cwd=server.data_dir, ready=ready
    )


class Storage:
    """A client of one server; an async context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    @property
    def _http(self) -> aiohttp.ClientSession:
        """Return the connections, made at the first request: inside a running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S))
        return self._session

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Storage:
        """Return a client of the emulator that the environment names. Raises: RuntimeError where it names none."""
        host = environment.get(EMULATOR_VARIABLE, "")
        if not host:
            raise RuntimeError(f"set {EMULATOR_VARIABLE} to the address of a storage emulator on loopback")
        return cls((host if "://" in host else f"http://{host}").rstrip("/"))

    async def __aenter__(self) -> Storage:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def upload(self, bucket: str, name: str, content: bytes, content_type: str) -> int:
        """Upload an object, chunk by chunk; return its size. Raises: StorageFailed."""
        size = len(content)
        begin = f"{self._url}/upload/storage/v1/b/{quote(bucket, safe='')}/o"
        asked = {"uploadType": "resumable", "name": name}
        told = {"contentType": content_type}
        headers = {"X-Upload-Content-Type": content_type, "X-Upload-Content-Length": str(size)}
        try:
            async with self._http.post(begin, params=asked, json=told, headers=headers) as begun:
                if begun.status != 200:
                    raise StorageFailed(begun.status)
                session = begun.headers["Location"]
            for start in range(0, max(size, 1), CHUNK_BYTES):
                await self._put(session, content[start : start + CHUNK_BYTES], start, size)
        except (TimeoutError, aiohttp.ClientError):
            raise StorageFailed(503) from None
        return size

    async def _put(self, session: str, chunk: bytes, start: int, size: int) -> None:
        end = start + len(chunk)
        covers = f"bytes {start}-{end - 1}/{size}" if chunk else f"bytes */{size}"
        async with self._http.put(session, data=chunk, headers={"Content-Range": covers}) as answer:
            wanted = (200, 201) if end == size else (_RESUME_INCOMPLETE,)
            if answer.status not in wanted:
                raise StorageFailed(answer.status)

    async def download(self, bucket: str, name: str) -> bytes | None:
        """Return an object's bytes; None where there is none. Raises: StorageFailed."""
        url = f"{self._url}/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}"
        try:
            async with self._http.get(url, params={"alt": "media"}) as answer:
                if answer.status == 404:
                    return None
                if answer.status != 200:
                    raise StorageFailed(answer.status)
                return await answer.read()
        except (TimeoutError, aiohttp.ClientError):
            raise StorageFailed(503) from None

    async def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the names of a bucket's objects. Raises: StorageFailed."""
        url = f"{self._url}/storage/v1/b/{quote(bucket, safe='')}/o"
        found: list[str] = []
        page: dict[str, str] = {"prefix": prefix}
        try:
            while True:
                async with self._http.get(url, params=page) as answer:
                    if answer.status != 200:
                        raise StorageFailed(answer.status)
                    told = await answer.json()
                found += [item["name"] for item in told.get("items", [])]
                if not (token := told.get("nextPageToken")):
                    return found
                page["pageToken"] = token
        except (TimeoutError, aiohttp.ClientError):
            raise StorageFailed(503) from None
