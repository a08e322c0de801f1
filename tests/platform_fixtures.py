"""The platform for tests: one real broker and one real livekit-server a session, on free ports, started when first asked for.

A `conftest.py` takes them in by `pytest_plugins = ["tests.platform_fixtures"]` (in the root's) or by importing the names.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from rehearsal import gcs, kafka, livekit_server
from rehearsal.livekit_server import LiveKitServer
from rehearsal.ports import free_port, free_ports
from rehearsal.provision import Provisions, provision
from rehearsal.supervisor import ProcessSpec, Supervisor

T = TypeVar("T")

START_TIMEOUT_S = 120.0
LIVEKIT_KEY = "devkey"
LIVEKIT_SECRET = secrets.token_hex(24)
WEBHOOK_PATH = "/v1/livekit/webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitAddress:
    """A running livekit-server: `url` is ws://, `http_url` the API; its webhooks go to `webhook_port` on loopback.

    Nothing listens on `webhook_port` unless a test does (path `WEBHOOK_PATH`); LiveKit drops what it cannot deliver.
    """

    url: str
    http_url: str
    key: str
    secret: str
    webhook_port: int


class SupervisorThread:
    """A supervisor with an event loop and a thread of its own, for tests whose loops come and go."""

    def __init__(self, run_dir: Path) -> None:
        self.supervisor = Supervisor(run_dir)
        self._loop = asyncio.new_event_loop()
        # The thread must outlive the processes: they die with it (orphans.py).
        self._thread = threading.Thread(target=self._loop.run_forever, name="platform", daemon=True)
        self._thread.start()

    def run(self, work: Awaitable[T]) -> T:
        """Run something in the supervisor's loop and wait for it."""
        return self.submit(work).result(START_TIMEOUT_S)

    def submit(self, work: Awaitable[T]) -> Future[T]:
        """Hand something to the supervisor's loop."""

        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop)

    def start(self, specs: Sequence[ProcessSpec]) -> None:
        """Start processes and wait until they are ready."""
        self.run(self.supervisor.start(specs))

    def close(self) -> None:
        """Stop the processes, then the thread."""
        self.run(self.supervisor.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def provisions() -> Provisions:
    """Kafka's jars and livekit-server's binary: from the cache, or made now (minutes; `make provision` comes first)."""
    return provision()


@pytest.fixture(scope="session")
def kafka_bootstrap(provisions: Provisions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real broker's host:port. Tests share it: they name their topics and groups for themselves."""
    run_dir = tmp_path_factory.mktemp("kafka")
    port, controller_port = free_ports(2)
    broker = kafka.Broker(jars=provisions.jars, data_dir=run_dir / "data", port=port, controller_port=controller_port)
    thread = SupervisorThread(run_dir)
    try:
        thread.run(kafka.prepare(broker))
        thread.start([kafka.broker_spec(broker)])
        yield broker.bootstrap
    finally:
        thread.close()


@pytest.fixture(scope="session")
def livekit(provisions: Provisions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitAddress]:
    """A real livekit-server. Tests share it: they name their rooms and agents for themselves."""
    run_dir = tmp_path_factory.mktemp("livekit")
    http_port, rtc_tcp_port, rtc_udp_port, webhook_port = free_ports(4)
    server = LiveKitServer(
        binary=provisions.livekit,
        data_dir=run_dir / "data",
        http_port=http_port,
        rtc_tcp_port=rtc_tcp_port,
        rtc_udp_port=rtc_udp_port,
        api_key=LIVEKIT_KEY,
        api_secret=LIVEKIT_SECRET,
        webhook_urls=(f"http://127.0.0.1:{webhook_port}{WEBHOOK_PATH}",),
    )
    livekit_server.prepare(server)
    thread = SupervisorThread(run_dir)
    try:
        thread.start([livekit_server.server_spec(server)])
        yield LiveKitAddress(
            url=server.url,
            http_url=server.http_url,
            key=server.api_key,
            secret=server.api_secret,
            webhook_port=webhook_port,
        )
    finally:
        thread.close()


@pytest.fixture(scope="session")
def storage_url(provisions: Provisions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Cloud Storage server with one bucket (`gcs.BUCKET`). Tests share it: they name their objects for themselves."""
    run_dir = tmp_path_factory.mktemp("gcs")
    server = gcs.StorageServer(binary=provisions.gcs, data_dir=run_dir / "data", port=free_port())
    thread = SupervisorThread(run_dir)
    try:
        thread.start([gcs.server_spec(server)])
        yield server.url
    finally:
        thread.close()
