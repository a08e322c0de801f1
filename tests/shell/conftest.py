"""A whole dialer in memory for the tests of the shell."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.doubles.world import ANN, BOB, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A dialer on virtual time that owns Ann's and Bob's partitions."""
    world = World()
    await world.start(ANN, BOB)
    yield world
    await world.close()
