"""The worker's parent process: LiveKit's agent server, and the shipper of its jobs' facts.

It takes jobs by count and not by the machine's load, since LiveKit's own measure refuses the second job of a burst
(reference/livekit.md 1.4, 9). Jobs are processes; the thread executor panics.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import prometheus_client
from aiohttp import web
from aiokafka.errors import KafkaError
from livekit.agents import AgentServer, JobExecutorType
from livekit.agents.utils.http_server import HttpServer

from agent import job
from agent.shipper import Shipper, Sweeper
from agent.sink import KafkaSink
from agent.spool import Spool, SpoolFailed
from agent.wire import SOCKET_VARIABLE
from runtime.clock import SystemClock
from runtime.logs import Log
from runtime.metrics import REGISTRY
from runtime.settings import Settings

LOAD_FULL: Final = 0.69
"""The load we call full: livekit-server gives nothing to a worker at 0.7 (pkg/service/agentservice.go)."""
DRAIN_TIMEOUT_S: Final = 720
"""SIGTERM: how long running calls may take to end; the longest call of the default campaign, its ring and some grace."""
FACTS_TIMEOUT_S: Final = 3.0
"""SIGTERM: how long Kafka may take for the last facts before the disk has them."""
SESSION_END_TIMEOUT_S: Final = 90.0
"""A hang-up at its worst 17 s, 10 s for the facts, and a recording's end (`agent/recording.py`): 1, 5 and 40 s."""
PROCESS_START_TIMEOUT_S: Final = 30.0
REGISTER_TRIES: Final = 16
JOB_MEMORY_WARN_MB: Final = 300
SOCKET_PATH_MAX: Final = 100
"""Bytes of a Unix socket's path (108 in Linux), with some room."""

log = Log("agent.worker")


class WorkerFailed(Exception):
    """The worker cannot go on: one line for the operator; a supervisor starts it again."""


class CountingServer(AgentServer):
    """An agent server that is full when its jobs are, or the spool, and not before; `GET /ready` says if it is any use."""

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._served: HttpServer | None = None
        self._spool = spool
        super().__init__(
            job_executor_type=JobExecutorType.PROCESS,
            load_threshold=LOAD_FULL,
            load_fnc=self.load,
            job_memory_warn_mb=JOB_MEMORY_WARN_MB,
            drain_timeout=DRAIN_TIMEOUT_S,
            num_idle_processes=settings.agent_idle_processes,
            session_end_timeout=SESSION_END_TIMEOUT_S,
            initialize_process_timeout=PROCESS_START_TIMEOUT_S,
            max_retry=REGISTER_TRIES,
            ws_url=settings.livekit_url,
            api_key=settings.livekit_api_key,
            api_secret=settings.livekit_api_secret.reveal(),
            host=settings.agent_host,
            port=settings.agent_port,
            http_proxy=None,
            setup_fnc=job.warm_up,
            preload_modules=["agent.preload"],
            prometheus_port=settings.metrics_port or None,
        )
        self._jobs_max = settings.agent_jobs_max
        self.rtc_session(job.entrypoint, agent_name=settings.agent_name, on_session_end=job.session_ended)

    @property
    def registered(self) -> bool:
        """Tell whether livekit-server has this worker on its list right now."""
        return self.id != "unregistered" and not self._connecting and not self._closed

    def load(self) -> float:
        """Return the share of the jobs that this worker may take, as LiveKit's load; a full spool makes it full."""
        return self._load_of(len(self.active_jobs))

    def _load_of(self, jobs: int) -> float:
        return LOAD_FULL if self._spool.fullness() >= 1 else LOAD_FULL * min(jobs, self._jobs_max) / self._jobs_max

    def _get_effective_load(self) -> float:
        # livekit-agents 1.8.9 takes an idle worker as full after `num_idle_processes` answers of one burst.
        return self._load_of(len(self.active_jobs) + self._reserved_slots)

    async def give_up(self) -> None:
        """End a start that is not over. `aclose` would wait for it, since `run` holds the lock until all is warm."""
        if (pool := getattr(self, "_proc_pool", None)) is not None:
            await pool.aclose()

    @property
    def _http_server(self) -> HttpServer | None:
        return self._served

    @_http_server.setter
    def _http_server(self, server: HttpServer | None) -> None:
        # livekit-agents 1.8.9 makes its pages in `run` and lets nobody add one; its `/` is 200 before it is registered.
        if server is not None:
            server.app.add_routes([web.get("/ready", self._ready)])
        self._served = server

    async def _ready(self, _: web.Request) -> web.Response:
        said = {"registered": self.registered, "draining": self.draining, "jobs": len(self.active_jobs)}
        return web.json_response(said, status=200 if self.registered and not self.draining else 503)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; the second signal ends the calls. Raises: WorkerFailed."""
    stops = _signals()
    clock = SystemClock()
    spool = Spool.of(settings, clock)
    try:
        spool.prepare()
    except SpoolFailed as error:
        raise WorkerFailed(f"the spool cannot be written ({error}); check DIALER_AGENT_SPOOL_DIR") from None
    spool.measure()
    sink = KafkaSink(settings.kafka_bootstrap, "dialer-agent")
    try:
        await sink.start()
    except KafkaError as error:
        raise WorkerFailed(f"Kafka does not answer ({type(error).__name__}); check KAFKA_BOOTSTRAP_SERVERS") from None
    shipper = Shipper(sink, spool, clock)
    sweeping = asyncio.create_task(Sweeper(sink, spool, clock).run(), name="sweep")
    try:
        async with _socket(shipper):
            try:
                await _serve(CountingServer(settings, spool), stops, sweeping)
            finally:
                await shipper.close(FACTS_TIMEOUT_S)
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await sink.stop()


async def _serve(server: CountingServer, stops: asyncio.Queue[None], sweeping: asyncio.Task[None]) -> None:
    os.environ["LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"] = "0"  # a one-way call needs no local model: 27 MB, not 50
    # It looks 50 times a second, twice, in every job process, idle ones too: 0.4 CPU s a minute (a talk costs 4).
    os.environ.setdefault("LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS", "0")
    prometheus_client.REGISTRY.register(REGISTRY)
    started = asyncio.Event()
    server.on("worker_started", started.set)
    serving = asyncio.create_task(server.run(devmode=False), name="server")
    stopping = asyncio.create_task(stops.get(), name="stop")
    try:
        await asyncio.wait({serving, stopping, sweeping}, return_when=asyncio.FIRST_COMPLETED)
        if sweeping.done():
            sweeping.result()  # it sweeps for ever: this is a bug, and raises
        if serving.done():
            failure = serving.exception()
            raise WorkerFailed(f"LiveKit's agent server ended ({failure}); check LIVEKIT_URL and its keys") from failure
        if started.is_set():
            await _drain(server, stops)
    finally:
        stopping.cancel()
        if started.is_set():
            await server.aclose()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        if not started.is_set():
            await server.give_up()


async def _drain(server: CountingServer, stops: asyncio.Queue[None]) -> None:
    log.info("draining", jobs=len(server.active_jobs))
    draining = asyncio.create_task(server.drain(timeout=DRAIN_TIMEOUT_S), name="drain")
    again = asyncio.create_task(stops.get(), name="stop again")
    await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, again):
        task.cancel()
    await asyncio.gather(draining, again, return_exceptions=True)


@contextlib.asynccontextmanager
async def _socket(shipper: Shipper) -> AsyncIterator[None]:
    """Listen in a private directory (mode 0700) and name the socket to all job processes to come."""
    directory = tempfile.mkdtemp(prefix="dialer-agent-")
    if len(directory) > SOCKET_PATH_MAX:
        shutil.rmtree(directory)
        directory = tempfile.mkdtemp(prefix="dialer-agent-", dir="/tmp")
    path = str(Path(directory) / "facts")
    try:
        await shipper.start(path)
        os.environ[SOCKET_VARIABLE] = path
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _signals() -> asyncio.Queue[None]:
    stops: asyncio.Queue[None] = asyncio.Queue(2)

    def stop() -> None:
        with contextlib.suppress(asyncio.QueueFull):
            stops.put_nowait(None)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stops
