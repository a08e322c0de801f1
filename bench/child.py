"""Measured code runs in processes of its own: `python -m bench.child NAME`, arguments and answers as lines of JSON."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson

CHILDREN: Final = {
    "deployed": "bench.deployed",
    "takeover": "bench.deployed",
    "bare_write": "bench.bare",
    "bare_echo": "bench.bare",
    "core_steps": "bench.core",
    "live_calls": "bench.live_calls",
    "stages": "bench.stages",
    "cancel": "bench.cancel_child",
    "bare_source": "bench.bare_call",
    "bare_far_end": "bench.bare_call",
    "bare_reply": "bench.bare_call",
}
ANSWER_TIMEOUT_S: Final = 1800.0
END_TIMEOUT_S: Final = 20.0
LOGS: Final = Path("run/bench/logs")
_LINE_MAX: Final = 16 * 1024 * 1024


class ChildFailed(Exception):
    """A measured process ended without its answer."""


class Child:
    """One measured process, as its parent talks to it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name, self._process = name, process

    async def ask(self, **arguments: Any) -> dict[str, Any]:
        """Send one line and wait for the answer to it. Raises: ChildFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps(arguments, option=orjson.OPT_NON_STR_KEYS) + b"\n")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            line = await self._process.stdout.readline()
        if not line:
            raise ChildFailed(f"{self._name} ended with {await self._process.wait()}; see {LOGS / self._name}.log")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def end(self) -> None:
        """Close its input, upon which it ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def running(name: str) -> AsyncIterator[Child]:
    """Run a measured process; it ends with the block, and what it has to say goes to `run/bench/logs/`."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.child",
            name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=_LINE_MAX,
        )
        child = Child(name, process)
        try:
            yield child
        finally:
            await child.end()


async def ask_once(name: str, **arguments: Any) -> dict[str, Any]:
    """Start a process, ask it one thing, end it. Raises: ChildFailed."""
    async with running(name) as child:
        return await child.ask(**arguments)


async def lines() -> asyncio.StreamReader:
    """Return standard input as a stream."""
    reader = asyncio.StreamReader(limit=_LINE_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def answer(**found: Any) -> None:
    """Write one line of JSON to the parent."""
    sys.stdout.write(orjson.dumps(found).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    module = importlib.import_module(CHILDREN[sys.argv[1]])
    asyncio.run(getattr(module, sys.argv[1])())
