"""A TCP proxy on loopback that can be told to swallow: bytes that would have passed are read and thrown away."""

from __future__ import annotations

import asyncio
from enum import Flag, auto


class Swallow(Flag):
    """Which way bytes are thrown away, on the connections there are and, until `heal`, on new ones."""

    NOTHING = 0
    REQUESTS = auto()
    ANSWERS = auto()


class TcpProxy:
    """Passes connections on to one address; `port` is its own."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.swallow = Swallow.NOTHING
        self.swallowed_bytes = 0

    async def start(self, port: int) -> None:
        """Listen on a port that the caller found free: a broker has to be told before it starts."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)

    async def close(self) -> None:
        """End all connections and stop listening."""
        if self._server is not None:
            self._server.close()
        for pump in tuple(self._pumps):
            pump.cancel()
        if self._pumps:
            await asyncio.wait(tuple(self._pumps))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        for source, sink, way in ((reader, far_writer, Swallow.REQUESTS), (far_reader, writer, Swallow.ANSWERS)):
            pump = asyncio.create_task(self._pump(source, sink, way))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Swallow) -> None:
        try:
            while chunk := await source.read(65536):
                if way in self.swallow:
                    self.swallowed_bytes += len(chunk)
                    continue
                sink.write(chunk)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
