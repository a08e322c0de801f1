"""Lets go of a Kafka client whatever state it is in.

aiokafka 0.14 raises its own fetch task's CancelledError out of `stop()` when the broker died during a fetch, and may wait
for an answer that never comes; neither may end, or hold up, the one who only wanted to let go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from runtime.logs import Log

CLOSE_TIMEOUT_S: Final = 5.0

log = Log("projections.closing")


async def let_go(stopping: Coroutine[Any, Any, None]) -> None:
    """Run a client's `stop()` in a task of its own, `CLOSE_TIMEOUT_S` at most; what it raises is only noted."""
    task = asyncio.create_task(stopping)
    await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)
    if not task.done():
        task.cancel()
    elif not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a Kafka client did not stop cleanly", error=type(error).__name__)
