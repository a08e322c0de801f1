"""The settings of a rehearsal: its ports and its secrets, kept in `<run_dir>/env` as a shell reads it.

The file is written once and kept (mode 0600), so that a network that comes up again has its ports, its pepper and its
keys. Each process is given the variables of its row and no others.
"""

from __future__ import annotations

import base64
import os
import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from rehearsal.gcs import BUCKET, EMULATOR_VARIABLE
from rehearsal.ports import LOOPBACK, free_ports, is_free

HERE: Final = Path(__file__).resolve().parent
PORTS_VARIABLE: Final = "REHEARSAL_PORTS"
BRAIN_VARIABLE: Final = "REHEARSAL_BRAIN_URL"
"""Where the agent API of the rehearsal's own campaigns is (`agent_api.url`)."""
SESSION_TIMEOUT_S: Final = 6
"""The least a broker takes by default: so much later the partitions of a killed dialer are given to the next one."""
AGENT_IDLE_PROCESSES: Final = 4
ROOMS_MAX: Final = 4
"""Open rooms at once: what two cores can speak for without a stutter."""
_OURS: Final = (
    "DIALER_",
    "LIVEKIT_",
    "KAFKA_",
    "BRIEF_KEY",
    "DEEPGRAM_",
    "AGENT_API_KEY",
    "QUERY_URL",
    "DIAL_REAL_PHONES",
    "VAULT_",
    "TWILIO_",
    "STORAGE_",
)
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
    egress: int = 7886
    gcs: int = 4443
    speech: int = 8080
    brain: int = 8090
    agent: int = 8081
    dialer: int = 21121
    projections: int = 21122


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


def remembered(text: str) -> dict[str, int]:
    """Read the ports of `REHEARSAL_PORTS`: `name=port`, with blanks between; names that are none of ours are left out."""
    names = {field.name for field in fields(Ports)}
    pairs = (pair.partition("=") for pair in text.split())
    return {name: int(port) for name, _, port in pairs if name in names}


def choose_ports(known: Mapping[str, int], *, fixed: bool) -> Ports:
    """Return the known ports, and the default ones when `fixed`, as far as they are free; free ones for the rest."""
    wanted = {**(asdict(Ports()) if fixed else {}), **known}
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
    "AGENT_API_KEY": lambda: secrets.token_hex(12),
}


def environment(run_dir: Path, ports: Ports, known: Mapping[str, str]) -> dict[str, str]:
    """Return all settings of a rehearsal; secrets that are known stay as they are."""
    http = f"http://{LOOPBACK}"
    return {
        **{name: known.get(name) or make() for name, make in _SECRETS.items()},
        "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{ports.kafka}",
        "LIVEKIT_URL": f"ws://{LOOPBACK}:{ports.livekit}",
        "LIVEKIT_API_URL": f"{http}:{ports.carrier}",
        "DIALER_PORT": str(ports.dialer),
        "DIALER_URL": f"{http}:{ports.dialer}",
        "DIALER_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
        "DIALER_CAMPAIGNS_DIR": str(run_dir.resolve() / "campaigns"),
        "DIALER_TRUNKS_FILE": str(HERE / "trunks.yaml"),
        "DIALER_ROOMS_MAX": str(ROOMS_MAX),
        "DIALER_AGENT_PORT": str(ports.agent),
        "DIALER_AGENT_IDLE_PROCESSES": str(AGENT_IDLE_PROCESSES),
        "DIALER_AGENT_SPOOL_DIR": str(run_dir.resolve() / "spool"),
        "DIALER_SPEAK_URL": f"ws://{LOOPBACK}:{ports.speech}/v1/speak",
        "DIALER_LISTEN_URL": f"ws://{LOOPBACK}:{ports.speech}/v1/listen",
        "DIALER_RECORDING_BUCKET": BUCKET,
        EMULATOR_VARIABLE: f"{http}:{ports.gcs}",
        "DIALER_PROJECTIONS_PORT": str(ports.projections),
        "DIALER_STORE_PATH": str(run_dir.resolve() / "read.sqlite"),
        "QUERY_URL": f"{http}:{ports.projections}",
        BRAIN_VARIABLE: f"{http}:{ports.brain}/v1",
        PORTS_VARIABLE: " ".join(f"{name}={port}" for name, port in asdict(ports).items()),
    }


_LIVEKIT: Final = ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
_AGENT: Final = (
    *("DIALER_AGENT_PORT", "DIALER_AGENT_IDLE_PROCESSES", "DIALER_AGENT_SPOOL_DIR"),
    *("DIALER_SPEAK_URL", "DIALER_LISTEN_URL", "LIVEKIT_API_URL", "DIALER_RECORDING_BUCKET"),
    *("AGENT_API_KEY", "DIALER_URL"),
)
_SERVE: Final = (
    *("DIALER_PORT", "DIALER_URL", "QUERY_URL", "DIALER_SESSION_TIMEOUT_S", "DIALER_PEPPER", "DIALER_MASTER_KEY"),
    *("DIALER_CAMPAIGNS_DIR", "DIALER_TRUNKS_FILE", "DIALER_ROOMS_MAX"),
)
VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "carrier": _LIVEKIT,
    "egress": (*_LIVEKIT, EMULATOR_VARIABLE),
    "speech": (),
    "brain": (),
    "topics": ("KAFKA_BOOTSTRAP_SERVERS",),
    "dialer": ("KAFKA_BOOTSTRAP_SERVERS", "LIVEKIT_URL", "LIVEKIT_API_URL", *_LIVEKIT, "BRIEF_KEY", *_SERVE),
    "agent": ("KAFKA_BOOTSTRAP_SERVERS", "LIVEKIT_URL", *_LIVEKIT, "BRIEF_KEY", "DEEPGRAM_API_KEY", *_AGENT),
    "projections": ("KAFKA_BOOTSTRAP_SERVERS", "DIALER_STORE_PATH", "DIALER_PROJECTIONS_PORT"),
}
"""Which settings each process is given: the pepper and the master key reach `dialer serve` only."""


def environment_of(name: str, env: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of one process: the machine's, without settings of another rehearsal, and its row."""
    kept = {key: value for key, value in os.environ.items() if key in _KEPT or not key.startswith(_OURS)}
    return kept | {key: env[key] for key in VARIABLES[name]} | {"PYTHONUNBUFFERED": "1"}
