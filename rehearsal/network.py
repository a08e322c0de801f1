"""One telephone network in a box: which processes a run directory has, with which ports, secrets and environment.

    kafka, livekit, carrier, speech -> topics -> dialer, agent, projections

`<run_dir>/env` (mode 0600) holds every setting as a shell reads it; it is written once and kept, so that a network that
comes up again has its ports, its pepper and its keys. Each process is given the variables of its row and no others.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

import aiohttp

from rehearsal import kafka, livekit_server
from rehearsal.kafka import Broker
from rehearsal.livekit_server import LiveKitServer
from rehearsal.ports import LOOPBACK, free_ports, is_free
from rehearsal.process_spec import NotReady, ProcessSpec, log_tail
from rehearsal.provision import Provisions
from rehearsal.supervisor import Supervisor

ROOT: Final = Path(__file__).resolve().parent.parent
HERE: Final = Path(__file__).resolve().parent
PORTS_VARIABLE: Final = "REHEARSAL_PORTS"
SESSION_TIMEOUT_S: Final = 6
"""The least a broker takes by default: so much later the partitions of a killed dialer are given to the next one."""
AGENT_IDLE_PROCESSES: Final = 4
ROOMS_MAX: Final = 12
"""Open rooms at once: what two cores can speak for without a stutter."""
_READY_TIMEOUT_S: Final = 60.0
_REQUEST_TIMEOUT_S: Final = 2.0
_OURS: Final = ("DIALER_", "LIVEKIT_", "KAFKA_", "BRIEF_KEY", "DEEPGRAM_", "QUERY_URL", "DIAL_REAL_PHONES", "VAULT_")
_KEPT: Final = frozenset({"DIALER_CACHE_DIR"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Every port of a network, all on 127.0.0.1; the defaults are what the settings of the dialer expect."""

    kafka: int = 9092
    kafka_controller: int = 9093
    livekit: int = 7880
    livekit_tcp: int = 7881
    livekit_udp: int = 7882
    carrier: int = 7885
    speech: int = 8080
    agent: int = 8081
    dialer: int = 21121
    projections: int = 21122


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


def lay_out(run_dir: Path, provisions: Provisions, *, fixed_ports: bool = False) -> Network:
    """Return the network of a run directory: as its file `env` has it, with what is missing made now.

    `fixed_ports`: take the default ports where they are free. A remembered port that somebody else has taken by now is
    replaced; call it only while the network is down.
    """
    run_dir = run_dir.resolve()
    env_file = run_dir / "env"
    known = read_env(env_file) if env_file.exists() else {}
    ports = _choose_ports(_remembered(known.get(PORTS_VARIABLE, "")), fixed=fixed_ports)
    network = Network(run_dir=run_dir, provisions=provisions, ports=ports, env=_environment(run_dir, ports, known))
    write_env(env_file, network.env)
    return network


def of_running(run_dir: Path, provisions: Provisions) -> Network:
    """Return the network of a run directory that is up, exactly as its file `env` has it."""
    run_dir = run_dir.resolve()
    env = read_env(run_dir / "env")
    return Network(run_dir=run_dir, provisions=provisions, ports=Ports(**_remembered(env[PORTS_VARIABLE])), env=env)


def read_env(path: Path) -> dict[str, str]:
    """Read a file of `NAME=value` lines, quoted as a shell does."""
    lines = (line.partition("=") for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {name: "".join(shlex.split(value)) for name, _, value in lines}


def write_env(path: Path, env: Mapping[str, str]) -> None:
    """Write it, readable by its owner only: it holds secrets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    head = f"# set -a; . {path}; set +a    # then every command of `dialer` speaks to this rehearsal\n"
    path.write_text(head + "".join(f"{name}={shlex.quote(value)}\n" for name, value in env.items()))


def _remembered(text: str) -> dict[str, int]:
    names = {field.name for field in fields(Ports)}
    pairs = (pair.partition("=") for pair in text.split())
    return {name: int(port) for name, _, port in pairs if name in names}


def _choose_ports(remembered: Mapping[str, int], *, fixed: bool) -> Ports:
    wanted = {**(asdict(Ports()) if fixed else {}), **remembered}
    names = [field.name for field in fields(Ports)]
    kept = {name: wanted[name] for name in names if name in wanted and is_free(wanted[name])}
    missing = [name for name in names if name not in kept]
    return Ports(**kept, **dict(zip(missing, free_ports(len(missing)), strict=True)))


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


_SECRETS: Final[Mapping[str, Callable[[], str]]] = {
    "LIVEKIT_API_KEY": lambda: f"API{secrets.token_hex(6)}",
    "LIVEKIT_API_SECRET": lambda: secrets.token_hex(24),
    "BRIEF_KEY": lambda: f"k1:{_key()}",
    "DIALER_PEPPER": _key,
    "DIALER_MASTER_KEY": _key,
    "DEEPGRAM_API_KEY": lambda: "rehearsal",
}


def _environment(run_dir: Path, ports: Ports, known: Mapping[str, str]) -> dict[str, str]:
    http = f"http://{LOOPBACK}"
    return {
        **{name: known.get(name) or make() for name, make in _SECRETS.items()},
        "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{ports.kafka}",
        "LIVEKIT_URL": f"ws://{LOOPBACK}:{ports.livekit}",
        "LIVEKIT_API_URL": f"{http}:{ports.carrier}",
        "DIALER_PORT": str(ports.dialer),
        "DIALER_URL": f"{http}:{ports.dialer}",
        "DIALER_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
        "DIALER_CAMPAIGNS_DIR": str(HERE / "campaigns"),
        "DIALER_TRUNKS_FILE": str(HERE / "trunks.yaml"),
        "DIALER_ROOMS_MAX": str(ROOMS_MAX),
        "DIALER_AGENT_PORT": str(ports.agent),
        "DIALER_AGENT_IDLE_PROCESSES": str(AGENT_IDLE_PROCESSES),
        "DIALER_SPEAK_URL": f"ws://{LOOPBACK}:{ports.speech}/v1/speak",
        "DIALER_LISTEN_URL": f"ws://{LOOPBACK}:{ports.speech}/v1/listen",
        "DIALER_PROJECTIONS_PORT": str(ports.projections),
        "DIALER_STORE_PATH": str(run_dir.resolve() / "read.sqlite"),
        "QUERY_URL": f"{http}:{ports.projections}",
        PORTS_VARIABLE: " ".join(f"{name}={port}" for name, port in asdict(ports).items()),
    }


_LIVEKIT: Final = ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
_AGENT: Final = ("DIALER_AGENT_PORT", "DIALER_AGENT_IDLE_PROCESSES", "DIALER_SPEAK_URL", "DIALER_LISTEN_URL")
_SERVE: Final = (
    *("DIALER_PORT", "DIALER_URL", "QUERY_URL", "DIALER_SESSION_TIMEOUT_S", "DIALER_PEPPER", "DIALER_MASTER_KEY"),
    *("DIALER_CAMPAIGNS_DIR", "DIALER_TRUNKS_FILE", "DIALER_ROOMS_MAX"),
)
_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "carrier": _LIVEKIT,
    "speech": (),
    "topics": ("KAFKA_BOOTSTRAP_SERVERS",),
    "dialer": ("KAFKA_BOOTSTRAP_SERVERS", "LIVEKIT_URL", "LIVEKIT_API_URL", *_LIVEKIT, "BRIEF_KEY", *_SERVE),
    "agent": ("KAFKA_BOOTSTRAP_SERVERS", "LIVEKIT_URL", *_LIVEKIT, "BRIEF_KEY", "DEEPGRAM_API_KEY", *_AGENT),
    "projections": ("KAFKA_BOOTSTRAP_SERVERS", "DIALER_STORE_PATH", "DIALER_PROJECTIONS_PORT"),
}
"""Which settings each process is given: the pepper and the master key reach `dialer serve` only."""


def _python(network: Network, name: str, argv: list[str], health: str | None, **options: object) -> ProcessSpec:
    """Return one of our own processes, ready when `health` answers 200."""
    env = {key: value for key, value in os.environ.items() if key in _KEPT or not key.startswith(_OURS)}
    env |= {key: network.env[key] for key in _VARIABLES[name]}
    env |= {"PYTHONUNBUFFERED": "1"}

    async def ready() -> bool:
        return health is None or await answers(health)

    return ProcessSpec(
        name=name,
        argv=[sys.executable, "-m", *argv],
        env=env,
        cwd=ROOT,
        ready=ready if health else None,
        ready_timeout_s=_READY_TIMEOUT_S,
        **options,  # type: ignore[arg-type]
    )


def stand_ins(network: Network) -> list[ProcessSpec]:
    """Return the carrier and the speech service."""
    ports, place = network.ports, str(network.carrier_dir)
    carrier = ["rehearsal.carrier", "--port", str(ports.carrier), "--livekit-url", network.env["LIVEKIT_URL"]]
    return [
        _python(network, "carrier", [*carrier, "--dir", place], f"http://{LOOPBACK}:{ports.carrier}/rehearsal/health"),
        _python(
            network,
            "speech",
            ["rehearsal.speech", "--port", str(ports.speech)],
            f"http://{LOOPBACK}:{ports.speech}/rehearsal/health",
        ),
    ]


def dialer_processes(network: Network) -> list[ProcessSpec]:
    """Return the three processes of the dialer itself."""
    ports = network.ports
    return [
        _python(network, "projections", ["projections"], f"http://{LOOPBACK}:{ports.projections}/ready"),
        _python(network, "agent", ["agent"], f"http://{LOOPBACK}:{ports.agent}/"),
        _python(network, "dialer", ["dialer", "serve"], f"{network.dialer_url}/ready", stop_timeout_s=20.0),
    ]


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
    await supervisor.start([livekit_server.server_spec(network.livekit)])
    await _together([_start_log(network, supervisor), *(supervisor.start([spec]) for spec in stand_ins(network))])
    await _together([supervisor.start([spec]) for spec in dialer_processes(network)])


async def _start_log(network: Network, supervisor: Supervisor) -> None:
    """Start the broker and make its topics."""
    await kafka.prepare(network.broker)
    await supervisor.start([kafka.broker_spec(network.broker)])
    topics = topics_spec(network)
    await supervisor.start([topics])
    code = await supervisor.wait_exit(topics.name)
    if code != 0:
        log = supervisor.log_path(topics.name)
        raise NotReady(f"`dialer topics` ended with {code}; the end of {log}:\n{log_tail(log)}")


async def _together(starts: Iterable[Coroutine[None, None, None]]) -> None:
    """Wait for all; the first failure ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for start_one in starts:
                group.create_task(start_one)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
