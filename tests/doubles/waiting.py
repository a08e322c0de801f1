"""Waiting for facts, within a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

WAIT_TIMEOUT_S = 30.0


async def until(holds: Callable[[], bool], timeout_s: float = WAIT_TIMEOUT_S) -> None:
    """Wait until something holds. Raises: TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)
