"""The network of a proof: the real broker and livekit-server, three dialers, two agent workers and phones without media.

Each dialer takes orders to die at a named step from one directory (`orders/`, runtime/crash_points.py): whoever passes the
step first takes the order, so that kills spread over them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import yaml

from rehearsal import kafka, livekit_server
from rehearsal import network as networks
from rehearsal.network import ROOT, Network, answers
from rehearsal.ports import LOOPBACK, free_ports
from rehearsal.process_spec import NotReady, Predicate, ProcessSpec, log_tail
from rehearsal.provision import Provisions
from rehearsal.run_env import environment_of
from rehearsal.supervisor import Supervisor

DIALERS: Final = 3
AGENTS: Final = 2
CALLS_PER_S: Final = 30
CONCURRENCY_MAX: Final = 240
CAMPAIGN: Final = "proof"
ORDERS_VARIABLE: Final = "DIALER_CRASH_AT"
READY_TIMEOUT_S: Final = 60.0
DRAIN_TIMEOUT_S: Final = 60.0
_LOG_LINES: Final = 100
_STARTING, _REGISTERED = '"starting worker"', '"registered worker"'

CAMPAIGN_ROWS: Final[Mapping[str, object]] = {
    "id": CAMPAIGN,
    "type": "one_way",
    "language": "en-US",
    "message": "Hello {first_name}.",
    "attempts_max": 3,
    "retry_after_s": {"busy": 3, "no_answer": 3, "trunk_failed": 3, "agent_lost": 3},
    "unknown": {"redial": "never"},
    "ring_timeout_s": 15,
    "max_call_duration_s": 30,
    "trunk": "rehearsal",
    "countries_allowed": ["US"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One proof's network; `base` is laid out as any rehearsal's."""

    base: Network
    ports: tuple[int, ...]

    @property
    def run_dir(self) -> Path:
        """Return where everything of it lies."""
        return self.base.run_dir

    @property
    def orders(self) -> Path:
        """Return where orders to die are put."""
        return self.run_dir / "orders"

    @property
    def dialers(self) -> tuple[str, ...]:
        """Name the dialers' processes."""
        return tuple(f"dialer-{number}" for number in range(1, DIALERS + 1))

    @property
    def agents(self) -> tuple[str, ...]:
        """Name the agent workers' processes."""
        return tuple(f"agent-{number}" for number in range(1, AGENTS + 1))

    @property
    def witness_file(self) -> Path:
        """Return the carrier's own record of every INVITE."""
        return self.base.carrier_dir / "witness.jsonl"

    def url_of(self, dialer: str) -> str:
        """Return a dialer's HTTP address."""
        return f"http://{LOOPBACK}:{self.ports[self.dialers.index(dialer)]}"


def lay_out(run_dir: Path, provisions: Provisions, campaign: Mapping[str, object] = CAMPAIGN_ROWS) -> Proof:
    """Write the files of a proof: settings, campaign, trunk."""
    base = networks.lay_out(run_dir, provisions)
    ports = (base.ports.dialer, *free_ports(DIALERS - 1))
    campaigns, trunks = base.run_dir / "proof" / "campaigns", base.run_dir / "proof" / "trunks.yaml"
    campaigns.mkdir(parents=True, exist_ok=True)
    (campaigns / f"{campaign['id']}.yaml").write_text(yaml.safe_dump(dict(campaign)))
    rehearsed = yaml.safe_load((Path(__file__).parent / "trunks.yaml").read_text())["trunks"][0]
    trunk = {**rehearsed, "calls_per_s": CALLS_PER_S, "concurrency_max": CONCURRENCY_MAX}
    trunks.write_text(yaml.safe_dump({"trunks": [trunk]}))
    env = {
        **base.env,
        "DIALER_CAMPAIGNS_DIR": str(campaigns),
        "DIALER_TRUNKS_FILE": str(trunks),
        "DIALER_ROOMS_MAX": str(CONCURRENCY_MAX),
    }
    return Proof(base=replace(base, env=env), ports=ports)


async def start(proof: Proof, supervisor: Supervisor) -> None:
    """Start everything, each once what it needs is there. Raises: NotReady with the log's tail, kafka.FormatFailed."""
    base = proof.base
    livekit_server.prepare(base.livekit)
    await kafka.prepare(base.broker)
    await networks.together(
        [
            supervisor.start([livekit_server.server_spec(base.livekit), _carrier(proof)]),
            supervisor.start([kafka.broker_spec(base.broker), networks.topics_spec(base)]),
        ]
    )
    code = await supervisor.wait_exit("topics")
    if code != 0:
        raise NotReady(
            f"`dialer topics` ended with {code}; the end of its log:\n{log_tail(supervisor.log_path('topics'))}"
        )
    projections = next(spec for spec in networks.dialer_specs(base) if spec.name == "projections")
    await networks.together([supervisor.start([spec]) for spec in (projections, *_agents(proof), *_dialers(proof))])


def _python(name: str, argv: list[str], env: Mapping[str, str], ready: Predicate, stop_timeout_s: float) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        argv=[sys.executable, "-m", *argv],
        env=env,
        cwd=ROOT,
        ready=ready,
        ready_timeout_s=READY_TIMEOUT_S,
        stop_timeout_s=stop_timeout_s,
    )


def _page(url: str) -> Predicate:
    async def ready() -> bool:
        return await answers(url)

    return ready


def _carrier(proof: Proof) -> ProcessSpec:
    base = proof.base
    argv = ["rehearsal.carrier", "--signalling", "--port", str(base.ports.carrier), "--dir", str(base.carrier_dir)]
    argv += ["--livekit-url", base.env["LIVEKIT_URL"]]
    ready = _page(f"{base.carrier_url}/rehearsal/health")
    return _python("carrier", argv, environment_of("carrier", base.env), ready, 5.0)


def _dialers(proof: Proof) -> list[ProcessSpec]:
    def spec(name: str, port: int) -> ProcessSpec:
        env = environment_of("dialer", proof.base.env)
        env |= {"DIALER_PORT": str(port), "DIALER_URL": proof.url_of(name), ORDERS_VARIABLE: str(proof.orders)}
        return _python(name, ["dialer", "serve"], env, _page(f"{proof.url_of(name)}/ready"), DRAIN_TIMEOUT_S)

    return [spec(name, port) for name, port in zip(proof.dialers, proof.ports, strict=True)]


def _agents(proof: Proof) -> list[ProcessSpec]:
    def spec(name: str) -> ProcessSpec:
        async def registered() -> bool:
            log = log_tail(proof.run_dir / "logs" / f"{name}.log", _LOG_LINES)
            return _REGISTERED in log[max(0, log.rfind(_STARTING)) :]

        env = environment_of("agent", proof.base.env)
        return _python(name, ["rehearsal.signalled_agent"], env, registered, 5.0)

    return [spec(name) for name in proof.agents]
