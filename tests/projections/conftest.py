"""Fixtures of the read side's tests. `kafka_bootstrap` comes from tests/platform_fixtures.py by the root's conftest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from projections.sqlite import SqliteStore
from projections.streams import Streams
from tests.projections.broker import make_streams


@pytest.fixture
async def streams(kafka_bootstrap: str) -> Streams:
    """Topics of this test's own."""
    return await make_streams(kafka_bootstrap)


@pytest.fixture
def store_path(tmp_path: Path) -> str:
    """A database file of this test's own."""
    return str(tmp_path / "read.sqlite")


@pytest.fixture
async def store(store_path: str) -> AsyncIterator[SqliteStore]:
    """A store on that file."""
    opened = await SqliteStore.open(store_path)
    yield opened
    await opened.close()
