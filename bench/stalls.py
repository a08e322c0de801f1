"""How long a process keeps its event loop: the wait of a task that wants to run now, and the longest single callback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

EVERY_S: Final = 0.005


class Stalls:
    """Measures while it is entered; `found` is for afterwards."""

    def __init__(self) -> None:
        self._waits: list[float] = []
        self._callbacks: list[float] = []
        self._watch: asyncio.Task[None] | None = None
        self._run: Callable[[Any], None] = asyncio.Handle._run

    def __enter__(self) -> Self:
        original, kept, clock = self._run, self._callbacks.append, time.perf_counter

        def timed(handle: Any) -> None:
            began = clock()
            original(handle)
            took = clock() - began
            if took > 0.001:
                kept(took)

        asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
        self._watch = asyncio.create_task(self._sleep())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.Handle._run = self._run  # type: ignore[method-assign, assignment]
        assert self._watch is not None
        self._watch.cancel()

    async def _sleep(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(EVERY_S)
            self._waits.append(time.perf_counter() - began - EVERY_S)

    def found(self) -> dict[str, float]:
        """Return p99 and maximum of both, in milliseconds."""
        waits = sorted(self._waits) or [0.0]
        callbacks = sorted(self._callbacks) or [0.0]
        return {
            "stall_p99_ms": waits[int(len(waits) * 0.99)] * 1000,
            "stall_max_ms": waits[-1] * 1000,
            "callback_p99_ms": callbacks[int(len(callbacks) * 0.99)] * 1000,
            "callback_max_ms": callbacks[-1] * 1000,
        }
