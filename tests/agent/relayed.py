"""Calls through a real TURN server, in a network namespace of their own: run by `test_relay_e2e.py`.

    unshare --net -- python -m tests.agent.relayed RUN_DIR

livekit-server's embedded TURN server listens on an address of the namespace (198.51.100.1, for documentation: RFC 5737),
since libwebrtc takes no relay on loopback; over UDP, and over TCP to port 443 as Twilio's does. The last line of the
output is what was seen, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from rehearsal import faults, hearing, serving
from rehearsal.livekit_server import LiveKitServer
from rehearsal.personas import SCRIPTED
from rehearsal.twilio_tokens import Tokens, TurnServer
from schemas.conversation import Conversation
from schemas.facts import AgentReady, ConversationEnded
from tests.agent.conftest import ANSWERS, KEY, MESSAGE, SECRET, Call, Stage, agent_spec, staged

ADDRESS: Final = "198.51.100.1"
INTERFACE: Final = "turn0"
UDP_PORT: Final = 3478
TCP_PORT: Final = 443
NOBODY: Final = 9
"""A port that nobody listens on."""
RELAY: Final = TurnServer(ADDRESS, UDP_PORT, TCP_PORT, KEY, SECRET)
COMMANDS: Final = (
    "ip link set lo up",
    f"ip link add {INTERFACE} type veth peer name {INTERFACE}peer",
    f"ip address add {ADDRESS}/24 dev {INTERFACE}",
    f"ip link set {INTERFACE} up",
    f"ip link set {INTERFACE}peer up",
)
"""The namespace ends with its last process, and all this with it."""


def lay_out() -> None:
    """Give the namespace its network. Raises: CalledProcessError."""
    for command in COMMANDS:
        subprocess.run(command.split(), check=True, capture_output=True, text=True)


def with_turn(server: LiveKitServer) -> None:
    """Have livekit-server's sound on the namespace's address, its TURN server beside it; signalling stays on loopback."""
    config = yaml.safe_load(server.config_file.read_text())
    config["rtc"] |= {
        "node_ip": ADDRESS,
        "enable_loopback_candidate": False,
        "interfaces": {"includes": [INTERFACE]},
    }
    config["turn"] = {
        "enabled": True,
        "domain": "turn.example.com",
        "bind_addresses": [ADDRESS],
        "udp_port": UDP_PORT,
        "tls_port": TCP_PORT,
        "external_tls": True,  # plain TCP: TLS is somebody else's, who is not here
    }
    config["logging"]["level"] = "info"
    server.config_file.write_text(yaml.safe_dump(config))


@dataclass(kw_only=True)
class Calls:
    """The stage, the token API, and what the calls came to."""

    stage: Stage
    tokens: Tokens
    secrets_dir: Path
    seen: dict[str, Any]

    def told(self, call: Call) -> list[str]:
        facts = [(f.type.split(".")[2], f.data) for f in self.stage.facts(call)]
        return [
            " ".join([name, *(str(data[k]) for k in ("service", "code", "category", "reason") if k in data)])
            for name, data in facts
        ]

    async def delivers(self, case: str, agent_name: str) -> None:
        """Place a call, dial when its agent is ready, and note what the phone heard."""
        stage = self.stage
        call = await stage.place(agent_name=agent_name)
        await stage.comes(call, AgentReady.TYPE)
        await stage.dial(call, ANSWERS)
        await stage.comes(call, ConversationEnded.TYPE)
        _, heard = await stage.spoken(call)
        verdict = "nothing" if heard is None else hearing.compare(heard.samples, 16_000, MESSAGE).verdict.name
        self.seen[case] = {"facts": self.told(call), "heard": verdict, "room": call.room}

    async def hears(self, case: str, agent_name: str) -> None:
        """Place a call that listens, and let a mailbox speak to it: sound comes back through the relay, too."""
        stage = self.stage
        call = await stage.place(agent_name=agent_name, conversation=Conversation(machine="hangup"))
        await stage.comes(call, AgentReady.TYPE)
        mailbox = next(persona for persona in SCRIPTED["en"] if persona.name == "voicemail_beep")
        await stage.dial(call, replace(mailbox, rings_for_s=0.3))
        await stage.comes(call, ConversationEnded.TYPE)
        self.seen[case] = {"facts": self.told(call), "room": call.room}

    async def fails(self, case: str, agent_name: str) -> None:
        """Place a call whose agent cannot join; nobody is to be rung."""
        began = time.monotonic()
        call = await self.stage.place(agent_name=agent_name)
        await self.stage.comes(call, ConversationEnded.TYPE, timeout_s=40)
        took_s = round(time.monotonic() - began, 1)
        self.seen[case] = {"facts": self.told(call), "took_s": took_s, "room": call.room}
        await self.stage.hang_up(call)

    def gives(self, relay: TurnServer, *, forget: bool = True) -> None:
        """Have the token API give credentials of another relay from now on."""
        self.tokens.relay = relay
        if forget:
            shutil.rmtree(self.secrets_dir, ignore_errors=True)


def candidates(log: Path) -> dict[str, list[str]]:
    """Return, by participant, the way each of its candidates goes as livekit-server saw them: host, relay, ….

    Source: pkg/rtc/room.go, `connectionDetailsFields`: "[remote][selected:1] udp4 relay 198.51.100.1:30001 related …".
    """
    ways: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        if "Candidates" not in line or not line.startswith("{"):
            continue
        record = json.loads(line)
        for name in ("publisherCandidates", "subscriberCandidates"):
            remote = [text for text in record.get(name, []) if text.startswith("[remote]")]
            ways.setdefault(f"{record.get('room')} {record.get('participant')}", []).extend(remote)
    return ways


async def run(run_dir: Path) -> dict[str, Any]:
    """Make all calls, one after the other."""
    secrets_dir = run_dir / "secrets"
    tokens = Tokens("AC1", "auth", RELAY, faults.Script())
    runner, port = await serving.start(tokens.app(), 0)
    relayed = {
        "DIALER_ICE_TRANSPORT": "relay",
        "DIALER_TWILIO_URL": f"http://127.0.0.1:{port}",
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "auth",
        "DIALER_SECRETS_DIR": str(secrets_dir),
        "DIALER_AGENT_IDLE_PROCESSES": "1",
    }
    async with staged(run_dir, with_turn, **relayed) as stage:
        calls = Calls(stage=stage, tokens=tokens, secrets_dir=secrets_dir, seen={})
        agent, any_relay = "outbound-dialer", "any-relay"
        await calls.delivers("tcp443", agent)
        await calls.hears("mailbox", agent)
        calls.seen["tokens asked for"] = len(tokens.ttls)
        calls.gives(replace(RELAY, api_secret="x" * 32))
        await calls.fails("wrong credentials", agent)
        calls.gives(RELAY, forget=False)
        await calls.delivers("after wrong credentials", agent)
        calls.gives(replace(RELAY, tcp_port=8443))
        await calls.fails("no url on 443", agent)
        calls.gives(replace(RELAY, tcp_port=NOBODY))
        more = relayed | {"DIALER_TURN_URLS": "any", "DIALER_AGENT_NAME": any_relay}
        await stage.supervisor.start([agent_spec(stage, any_relay, **more)])
        await stage.registered(any_relay)
        await calls.delivers("udp", any_relay)
        await runner.cleanup()
        calls.gives(RELAY)
        await calls.fails("no token api", agent)
        await until(lambda: len(candidates(stage.supervisor.log_path("livekit"))) > 0)
        calls.seen["candidates"] = candidates(stage.supervisor.log_path("livekit"))
        log = stage.supervisor.log_path("agent").read_text() + stage.supervisor.log_path(any_relay).read_text()
        calls.seen["leaked"] = [password for password in tokens.given if password in log]
    return calls.seen


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a fact that nobody announces."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    lay_out()
    print(json.dumps(asyncio.run(run(Path(sys.argv[1])))))
