"""Ctrl-C, `kill` and a closed terminal end a run in the same way: its main task is cancelled, once, and cleans up."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def cancel_on_signals() -> None:
    """Let the stop signals cancel the running task; later ones are ignored, since cleaning up is bounded in time.

    Call it first thing in the coroutine given to `asyncio.run`, with the supervisor's `async with` below it.
    """
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
