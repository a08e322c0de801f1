"""The storage client against a real Cloud Storage server."""

from __future__ import annotations

import os

import pytest

from rehearsal.gcs import BUCKET, CHUNK_BYTES, Storage, StorageFailed

pytestmark = pytest.mark.livekit


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 7])
async def test_an_object_comes_back_byte_for_byte(storage_url: str, size: int) -> None:
    """Uploads of no chunk, a part of one, exactly one, and several."""
    content, name = os.urandom(size), f"sizes/{size}/a b+c.bin"
    async with Storage(storage_url) as storage:
        assert await storage.upload(BUCKET, name, content, "application/octet-stream") == size
        assert await storage.download(BUCKET, name) == content
        assert name in await storage.names(BUCKET, "sizes/")


async def test_what_is_not_there_is_none(storage_url: str) -> None:
    """An object that nobody uploaded."""
    async with Storage(storage_url) as storage:
        assert await storage.download(BUCKET, "nothing") is None


async def test_a_bucket_that_is_not_there_refuses(storage_url: str) -> None:
    """The upload fails with the storage's own status."""
    async with Storage(storage_url) as storage:
        with pytest.raises(StorageFailed) as caught:
            await storage.upload("no-such-bucket", "x", b"x", "audio/mpeg")
    assert caught.value.status == 404


async def test_a_storage_that_is_away_is_unavailable() -> None:
    """No answer is 503, which may be tried again."""
    async with Storage("http://127.0.0.1:1") as storage:
        with pytest.raises(StorageFailed) as caught:
            await storage.download(BUCKET, "x")
    assert caught.value.status == 503


def test_without_an_emulator_nothing_is_uploaded_anywhere() -> None:
    """STORAGE_EMULATOR_HOST decides, with or without a scheme; without it there is no client at all."""
    with pytest.raises(RuntimeError, match="STORAGE_EMULATOR_HOST"):
        Storage.of({})
    assert Storage.of({"STORAGE_EMULATOR_HOST": "127.0.0.1:9"})._url == "http://127.0.0.1:9"
    assert Storage.of({"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9/"})._url == "http://127.0.0.1:9"
