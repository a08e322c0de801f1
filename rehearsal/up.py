"""A rehearsal that stays: `up` starts it detached and returns, `down` ends it; its data and its ports are kept."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rehearsal import detached, kafka
from rehearsal import network as networks
from rehearsal.gcs import BUCKET
from rehearsal.network import ROOT, Network
from rehearsal.process_spec import NotReady, ProcessEvent, What
from rehearsal.provision import Provisions, provision
from rehearsal.run_env import PORTS_VARIABLE, read_env
from rehearsal.stop_signals import cancel_on_signals
from rehearsal.supervisor import Supervisor

READY_TIMEOUT_S = 180.0


def up(run_dir: Path, provisions: Provisions, say: Callable[[str], None]) -> int:
    """Bring the rehearsal up, unless it is; print where everything is. Returns the exit code."""
    argv = [sys.executable, "-m", "rehearsal", "stay", "--run-dir", str(run_dir.resolve())]
    if not detached.is_running(run_dir):
        networks.lay_out(run_dir, provisions, fixed_ports=True)
    _, new = detached.start_detached(run_dir, argv, cwd=ROOT)
    say(f"starting; {detached.supervisor_log(run_dir)} tells how it goes" if new else "it is up already")
    try:
        detached.await_ready(run_dir, READY_TIMEOUT_S, say)
    except NotReady as error:
        print(error, file=sys.stderr)
        detached.stop_detached(run_dir)
        return 1
    print(addresses(networks.of_running(run_dir, provisions)))
    return 0


def down(run_dir: Path) -> int:
    """End it; returns 0 whether or not it was up."""
    was_up = run_dir.exists() and detached.stop_detached(run_dir)
    print(f"stopped; {run_dir} keeps its data" if was_up else "nothing was up")
    return 0


async def stay(run_dir: Path) -> int:
    """Be the supervisor of a detached rehearsal until it is told to stop."""
    cancel_on_signals()
    network = networks.of_running(run_dir, provision(_log))
    async with Supervisor(run_dir, _log_event) as supervisor:
        try:
            await networks.start(network, supervisor)
        except NotReady as error:
            _log(str(error))
            return 1
        detached.announce_ready(run_dir)
        _log("everything is up")
        await asyncio.get_running_loop().create_future()
    return 0


def _log(line: str) -> None:
    print(line, flush=True)


def _log_event(event: ProcessEvent) -> None:
    if event.what is not What.STARTING:
        code = f" ({event.returncode})" if event.returncode is not None else ""
        _log(f"{event.name} {event.what}{code} after {event.took_s:.1f} s")


def first_command() -> str:
    """Return a `place_call` that rings a phone which answers: one line, as a console producer takes it."""
    data: dict[str, Any] = {
        "request_id": "first-1",
        "campaign_id": "rx-refill",
        "to": "+12125550100",
        "variables": {"first_name": "Ann", "store": "Main Street"},
    }
    kind = "dialer.command.place_call.v1"
    return json.dumps({"specversion": "1.0", "type": kind, "source": "/me", "id": "first-1", "data": data})


def addresses(network: Network) -> str:
    """Say where everything is, and what to type next."""
    run_dir, jars = network.run_dir, network.provisions.jars
    produce = kafka.console_producer(jars, network.bootstrap, "dialer.commands")
    consume = kafka.console_consumer(jars, network.bootstrap, "dialer.audit")
    return f"""
  Kafka          {network.bootstrap}
  LiveKit        {network.env["LIVEKIT_URL"]}
  dialer         {network.dialer_url}/docs
  read models    {network.env["QUERY_URL"]}/docs
  carrier        {network.carrier_url}/rehearsal/calls
  recordings     {network.storage.url}/storage/v1/b/{BUCKET}/o
  settings       {run_dir}/env
  logs           {run_dir}/logs

ring a phone from a pipeline (the last two digits choose who picks up; a new request_id is a new call):

  echo '{first_command()}' | {produce}

see what became of it:

  set -a; . {run_dir}/env; set +a; {sys.executable} -m dialer events --help
  {consume}

`make down` stops it and keeps its data; `make clean` deletes it.
"""


def status(run_dir: Path) -> int:
    """Say whether it is up, and each process's pid; returns 0 if it is, else 3 (as init scripts do)."""
    if not detached.is_running(run_dir):
        print(f"{run_dir}: not up")
        return 3
    env = read_env(run_dir / "env")
    pids = {path.stem: path.read_text().strip() for path in sorted((run_dir / "pids").glob("*.pid"))}
    print(f"{run_dir}: up; " + ", ".join(f"{name} {pid}" for name, pid in pids.items()))
    print(f"ports: {env[PORTS_VARIABLE]}")
    return 0
