"""One telephone network in a box: which processes a run directory has, with which ports, secrets and environment.

kafka, livekit, gcs, carrier, egress, speech, brain -> topics -> dialer, agent, projections
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from rehearsal import campaign_files, gcs, kafka, livekit_server
from rehearsal.gcs import StorageServer
from rehearsal.kafka import Broker
from rehearsal.livekit_server import LiveKitServer
from rehearsal.ports import LOOPBACK
from rehearsal.process_spec import BACKGROUND, REAL_TIME, NotReady, Predicate, ProcessSpec, log_tail
from rehearsal.provision import Provisions
from rehearsal.run_env import (
    PORTS_VARIABLE,
    Ports,
    choose_ports,
    environment,
    environment_of,
    read_env,
    remembered,
    write_env,
)
from rehearsal.supervisor import Supervisor

ROOT: Final = Path(__file__).resolve().parent.parent
_READY_TIMEOUT_S: Final = 60.0
_REQUEST_TIMEOUT_S: Final = 2.0
_DRAIN_TIMEOUT_S: Final = 20.0
_HEALTH: Final = "/rehearsal/health"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One run directory's network, laid out but not started. `env` is the content of its file `env`."""

    run_dir: Path
    provisions: Provisions
    ports: Ports
    env: Mapping[str, str]

    @property
    def bootstrap(self) -> str:
        """Return Kafka's host:port."""
        return self.broker.bootstrap

    @property
    def pepper(self) -> bytes:
        """Return the secret of callee keys: the rehearsal, which made it, names calls as the dialer does."""
        return base64.b64decode(self.env["DIALER_PEPPER"])

    @property
    def dialer_url(self) -> str:
        """Return the dialer's HTTP address."""
        return self.env["DIALER_URL"]

    @property
    def carrier_url(self) -> str:
        """Return the carrier's HTTP address."""
        return self.env["LIVEKIT_API_URL"]

    @property
    def carrier_dir(self) -> Path:
        """Return where the carrier keeps its witness and what phones heard."""
        return self.run_dir / "carrier"

    @property
    def broker(self) -> Broker:
        """Return the Kafka broker."""
        ports = self.ports
        return Broker(
            jars=self.provisions.jars,
            data_dir=self.run_dir / "kafka",
            port=ports.kafka,
            controller_port=ports.kafka_controller,
        )

    @property
    def livekit(self) -> LiveKitServer:
        """Return the livekit-server; the dialer hears its webhooks."""
        return LiveKitServer(
            binary=self.provisions.livekit,
            data_dir=self.run_dir / "livekit",
            http_port=self.ports.livekit,
            rtc_tcp_port=self.ports.livekit_tcp,
            rtc_udp_port=self.ports.livekit_udp,
            api_key=self.env["LIVEKIT_API_KEY"],
            api_secret=self.env["LIVEKIT_API_SECRET"],
            webhook_urls=(f"{self.dialer_url}/v1/livekit/webhook",),
        )

    @property
    def storage(self) -> StorageServer:
        """Return the Cloud Storage server; its buckets lie in the run directory."""
        return StorageServer(binary=self.provisions.gcs, data_dir=self.run_dir / "gcs", port=self.ports.gcs)


def lay_out(run_dir: Path, provisions: Provisions, *, fixed_ports: bool = False) -> Network:
    """Return the network of a run directory: as its file `env` has it, with what is missing made now.

    `fixed_ports`: take the default ports where they are free. A remembered port that somebody else has taken by now is
    replaced; call it only while the network is down.
    """
    run_dir = run_dir.resolve()
    env_file = run_dir / "env"
    known = read_env(env_file) if env_file.exists() else {}
    ports = choose_ports(remembered(known.get(PORTS_VARIABLE, "")), fixed=fixed_ports)
    network = Network(run_dir=run_dir, provisions=provisions, ports=ports, env=environment(run_dir, ports, known))
    campaign_files.lay_out(run_dir, ports.brain)
    write_env(env_file, network.env)
    return network


def of_running(run_dir: Path, provisions: Provisions) -> Network:
    """Return the network of a run directory that is up, exactly as its file `env` has it."""
    run_dir = run_dir.resolve()
    env = read_env(run_dir / "env")
    return Network(run_dir=run_dir, provisions=provisions, ports=Ports(**remembered(env[PORTS_VARIABLE])), env=env)


def _python(network: Network, name: str, argv: list[str], ready: Predicate | None, **options: Any) -> ProcessSpec:
    """Return one of our own processes."""
    return ProcessSpec(
        name=name,
        argv=[sys.executable, "-m", *argv],
        env=environment_of(name, network.env),
        cwd=ROOT,
        ready=ready,
        ready_timeout_s=_READY_TIMEOUT_S,
        **options,
    )


def stand_ins(network: Network) -> list[ProcessSpec]:
    """Return the carrier, the egress behind it with its storage, the speech service and the brain."""
    carrier, egress, speech = str(network.ports.carrier), str(network.ports.egress), str(network.ports.speech)
    brain = str(network.ports.brain)
    livekit = ("--livekit-url", network.env["LIVEKIT_URL"])
    rooms = (*livekit, "--dir", str(network.carrier_dir), "--egress-url", f"http://{LOOPBACK}:{egress}")
    return [
        _python(
            network,
            "carrier",
            ["rehearsal.carrier", "--port", carrier, *rooms],
            _page(carrier, _HEALTH),
            niceness=REAL_TIME,
        ),
        _python(
            network,
            "egress",
            ["rehearsal.egress", "--port", egress, *livekit],
            _page(egress, _HEALTH),
            niceness=REAL_TIME,
        ),
        gcs.server_spec(network.storage),
        _python(network, "speech", ["rehearsal.speech", "--port", speech], _page(speech, _HEALTH)),
        _python(network, "brain", ["rehearsal.brain", "--port", brain], _page(brain, _HEALTH)),
    ]


def real_time_spec(network: Network) -> ProcessSpec:
    """Return the process that has sound scheduled in real time; where it may not, it says so and ends."""
    script = str(Path(__file__).resolve().parent / "real_time.py")
    return ProcessSpec(
        name="real_time", argv=[sys.executable, "-I", "-S", script, str(network.run_dir)], cwd=ROOT, restart=False
    )


def agent_spec(network: Network) -> ProcessSpec:
    """Return the agents' worker, ready once LiveKit has it on its list: jobs for nobody are never offered again."""
    return _python(network, "agent", ["agent"], _page(str(network.ports.agent), "/ready"), niceness=REAL_TIME)


def dialer_specs(network: Network) -> list[ProcessSpec]:
    """Return the write side and the read side."""
    projections, dialer = str(network.ports.projections), str(network.ports.dialer)
    return [
        _python(network, "projections", ["projections"], _page(projections, "/ready"), niceness=BACKGROUND),
        _python(network, "dialer", ["dialer", "serve"], _page(dialer, "/ready"), stop_timeout_s=_DRAIN_TIMEOUT_S),
    ]


def _page(port: str, path: str) -> Predicate:
    async def ready() -> bool:
        return await answers(f"http://{LOOPBACK}:{port}{path}")

    return ready


def topics_spec(network: Network) -> ProcessSpec:
    """Return the process that makes the topics and ends."""
    return _python(network, "topics", ["dialer", "topics"], None, restart=False)


async def answers(url: str) -> bool:
    """Tell whether a page answers 200."""
    timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as page:
            return page.status == 200
    except (TimeoutError, aiohttp.ClientError):
        return False


async def start(network: Network, supervisor: Supervisor) -> None:
    """Start everything, side by side where nothing waits for another.

    Raises: NotReady with the log's tail; kafka.FormatFailed.
    """
    livekit_server.prepare(network.livekit)
    await supervisor.start([livekit_server.server_spec(network.livekit), real_time_spec(network)])
    await together([_start_dialer(network, supervisor), *(supervisor.start([spec]) for spec in stand_ins(network))])


async def _start_dialer(network: Network, supervisor: Supervisor) -> None:
    """Start the broker; then the agents, and beside them topics, write side and read side."""
    await kafka.prepare(network.broker)
    await supervisor.start([kafka.broker_spec(network.broker)])
    await together([supervisor.start([agent_spec(network)]), _start_sides(network, supervisor)])


async def _start_sides(network: Network, supervisor: Supervisor) -> None:
    topics = topics_spec(network)
    await supervisor.start([topics])
    code = await supervisor.wait_exit(topics.name)
    if code != 0:
        log = supervisor.log_path(topics.name)
        raise NotReady(f"`dialer topics` ended with {code}; the end of {log}:\n{log_tail(log)}")
    await together([supervisor.start([spec]) for spec in dialer_specs(network)])


async def together(starts: Iterable[Coroutine[None, None, None]]) -> None:
    """Wait for all; the first failure ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for start_one in starts:
                group.create_task(start_one)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
