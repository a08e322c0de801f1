"""Measured code runs in processes of its own: `python -m bench.child NAME`, arguments and answers as lines of JSON."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any, Final

import orjson

CHILDREN: Final = {
    "deployed": "bench.deployed",
    "bare_write": "bench.bare",
    "bare_echo": "bench.bare",
    "core_steps": "bench.core",
    "live_calls": "bench.live_calls",
    "stages": "bench.stages",
}
ANSWER_TIMEOUT_S: Final = 1800.0
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
        self._process.stdin.write(orjson.dumps(arguments) + b"\n")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            line = await self._process.stdout.readline()
        if not line:
            raise ChildFailed(f"{self._name} ended with {await self._process.wait()}")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def end(self) -> None:
        """Close its input, upon which it ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(30):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start(name: str) -> Child:
    """Start a measured process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.child",
        name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_MAX,
    )
    return Child(name, process)


async def ask_once(name: str, **arguments: Any) -> dict[str, Any]:
    """Start a process, ask it one thing, end it. Raises: ChildFailed."""
    child = await start(name)
    try:
        return await child.ask(**arguments)
    finally:
        await child.end()


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
