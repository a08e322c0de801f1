"""Relay-only calls through a real TURN server: sound flows by it, and without it nobody is rung.

livekit-server's own TURN server, in a network namespace that this test makes for itself and that ends with it; what
happens in there is `relayed.py`. The relay is reached over TCP to port 443 (Twilio's third entry, and our default) and
over UDP where that is allowed. TURN inside TLS (`turns:`) is not tried: libwebrtc trusts no certificate that a test has.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.job import CONNECT_TIMEOUT_S
from rehearsal.provision import Provisions
from tests.agent.relayed import COMMANDS

pytestmark = [pytest.mark.broker, pytest.mark.livekit, pytest.mark.e2e, pytest.mark.slow, pytest.mark.realtime]
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 280.0


def delivered(facts: list[str]) -> bool:
    """Tell whether a call went as it should; facts of the leg may come between any two of the agent's own."""
    own = [fact for fact in facts if not fact.startswith("callee_")]
    return own == ["agent_ready", "conversation_started", "notification_delivered", "conversation_ended delivered"]


def in_a_namespace(*argv: str) -> list[str]:
    """Return the command in a network namespace of its own; it ends with the command's last process."""
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    return [*alone, "--", *argv]


@pytest.fixture(scope="module")
def seen(provisions: Provisions, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each call."""
    assert provisions.livekit.exists()
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here (Debian: util-linux, iproute2): no network namespace can be made")
    probe = subprocess.run(
        in_a_namespace("sh", "-ec", "\n".join(COMMANDS)), capture_output=True, text=True, timeout=30, check=False
    )
    if probe.returncode:
        pytest.skip(f"a network namespace of our own is not allowed here: {probe.stderr.strip()[:200]}")
    run_dir = tmp_path_factory.mktemp("relayed")
    argv = in_a_namespace(sys.executable, "-m", "tests.agent.relayed", str(run_dir))
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("case", ["tcp443", "udp"])
def test_sound_flows_through_the_relay(seen: dict[str, Any], case: str) -> None:
    """Over TCP to port 443 by default, over UDP where it is allowed: the phone hears the message whole."""
    assert delivered(seen[case]["facts"]), seen[case]["facts"]
    assert seen[case]["heard"] == "SAME"


def test_the_agent_hears_through_the_relay(seen: dict[str, Any]) -> None:
    """A mailbox's greeting is heard and known for what it is."""
    assert "answerer_detected machine-vm" in seen["mailbox"]["facts"]
    assert seen["mailbox"]["facts"][-1] == "conversation_ended machine_hung_up"


@pytest.mark.parametrize("case", ["tcp443", "udp"])
def test_livekit_sees_nothing_of_the_agent_but_its_relay(seen: dict[str, Any], case: str) -> None:
    """Of the agent only relayed addresses, though the phone's own address shows that the direct way was open."""
    ways = {name: list(map(way, c)) for name, c in seen["candidates"].items() if seen[case]["room"] in name}
    (agent,) = (found for name, found in ways.items() if "agent-" in name)
    (phone,) = (found for name, found in ways.items() if " callee-" in name)
    relayed = {port for kind, port in agent if kind == "relay"}
    assert relayed
    assert all(
        kind in {"relay", "prflx"} and port in relayed for kind, port in agent
    )  # prflx: the relay's, unannounced
    assert phone and not any(kind == "relay" for kind, _ in phone)


def way(candidate: str) -> tuple[str, str]:
    """Return kind and port: "[remote][selected:1] udp relay 198.51.10...:39016  related 0.0.0.0:0"."""
    found = re.search(r"\] \w+ (\w+) [^:]+:(\d+)", candidate)
    assert found is not None, candidate
    return found[1], found[2]


@pytest.mark.parametrize(
    ("case", "code", "within_s"),
    [
        ("wrong credentials", "no_connection", CONNECT_TIMEOUT_S + 5),
        ("no url on 443", "no_url_left", 10),
        ("no token api", "unreachable", 10),
    ],
)
def test_without_a_relay_nobody_is_rung(seen: dict[str, Any], case: str, code: str, within_s: float) -> None:
    """The job says so, readiness is never said, and no other way was tried: the direct one would have worked."""
    assert seen[case]["facts"] == [f"agent_api_failed turn {code}", "conversation_ended failed"]
    assert seen[case]["took_s"] < within_s
    tried = [found for name, found in seen["candidates"].items() if seen[case]["room"] in name]
    assert not any(tried)


def test_credentials_are_shared_and_a_bad_one_is_not_kept(seen: dict[str, Any]) -> None:
    """Several calls ask the token API once; after a credential that led nowhere the next call has a new one."""
    assert seen["tokens asked for"] == 1
    assert delivered(seen["after wrong credentials"]["facts"]), seen["after wrong credentials"]["facts"]
    assert seen["leaked"] == []
