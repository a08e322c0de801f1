"""The dialer that `bench.cancel` measures: `dialer serve` whole, with phones that answer at once and talk until hung up.

LiveKit is the port's own stand-in; agents say that they are ready, and renew it every 2 s over Kafka as real ones do.
"""

from __future__ import annotations

import asyncio
import base64
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import orjson

from bench.child import answer, lines
from bench.requests import MASTER, PEPPER
from dialer.app import App
from dialer.telephony import Deletion, DialAnswer, DialRequest, Leg, RoomAnswer, RoomRequest, Trunk
from runtime.clock import SystemClock
from runtime.kafka import idempotent_producer
from runtime.metrics import REGISTRY
from runtime.settings import Secret, Settings
from schemas.envelope import Envelope, encode, headers_of
from schemas.facts import AgentReady, fact_source
from schemas.topics import COMMANDS, OBSERVATIONS
from schemas.values import attempt_id, attempt_of_room, callee_identity, callee_of, partition_of

RENEWED_EVERY_S: Final = 2.0
POLL_S: Final = 0.01
ROOMS_BESIDE: Final = 24
"""Calls of the backlog that may be under way beside those that are cancelled: the trunk is a busy one, not an endless one."""
TRUNKS: Final = """
trunks:
  - {{name: cvs-retail-outbound, address: "127.0.0.1:5060", numbers: ["+12125550100"], calls_per_s: 48, concurrency_max: {0}}}
"""


class Phones:
    """`dialer.telephony.Telephony`: rooms by name; who is dialed answers, and stays until the room goes."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = idempotent_producer(bootstrap, "bench-agents")
        self._agents: dict[str, asyncio.Task[None]] = {}
        self.talking: set[str] = set()
        self.hung_up: dict[str, float] = {}
        """When each room's phone was first hung up, by the machine's monotonic clock."""

    async def start(self) -> None:
        """Connect the agents to Kafka."""
        await self._producer.start()

    async def create_room(self, request: RoomRequest) -> RoomAnswer:
        """Make a room; its agent comes."""
        if request.name not in self._agents:
            self._agents[request.name] = asyncio.create_task(self._agent(request.name))
        return RoomAnswer(ok=True, sid=f"RM_{request.name}")

    async def dial(self, request: DialRequest) -> DialAnswer:
        """Ring; answered at once."""
        self.talking.add(request.room)
        return DialAnswer(result="answered")

    async def delete_room(self, name: str) -> Deletion:
        """Hang up."""
        agent = self._agents.pop(name, None)
        if agent is None:
            return "not_found"
        agent.cancel()
        if name in self.talking:
            self.talking.discard(name)
            self.hung_up[name] = time.monotonic()
        return "deleted"

    async def legs(self, name: str) -> tuple[Leg, ...] | None:
        """List who is in a room."""
        found = attempt_of_room(name)
        if name not in self.talking or found is None:
            return ()
        return (Leg(identity=callee_identity(*found), kind="sip", call_status="active"),)

    async def ensure_trunk(self, trunk: Trunk) -> str:
        """Know every trunk."""
        return f"ST_{trunk.name}"

    async def auto_create_is_off(self) -> bool:
        """Rooms are fences."""
        return True

    async def close(self) -> None:
        """Send the agents home."""
        for agent in self._agents.values():
            agent.cancel()
        await self._producer.stop()

    async def _agent(self, room: str) -> None:
        found = attempt_of_room(room)
        assert found is not None
        call, attempt = found
        renewal = 0
        while True:
            ready = AgentReady(attempt=attempt, job_id="AJ_1", number=1, renewal=renewal)
            envelope = Envelope(
                type=ready.TYPE,
                source=fact_source(attempt, "AJ_1"),
                id=f"{attempt_id(call, attempt)}/AJ_1/1",
                subject=call,
                time=SystemClock().now(),
                data=ready,
            )
            key = callee_of(call)
            await self._producer.send_and_wait(
                OBSERVATIONS.name,
                encode(envelope),
                key=key.encode(),
                partition=partition_of(key),
                headers=headers_of(envelope),
            )
            renewal += 1
            await asyncio.sleep(RENEWED_EVERY_S)


def _settings(asked: dict[str, Any], folder: Path) -> Settings:
    rooms_max = asked["calls"] + ROOMS_BESIDE
    small = {name: asked[name] for name in ("open_calls_max", "inbox_max") if name in asked}
    (folder / "trunks.yaml").write_text(TRUNKS.format(rooms_max))
    return Settings(
        kafka_bootstrap=asked["bootstrap"],
        livekit_url="ws://127.0.0.1:9",
        livekit_api_key="bench",
        livekit_api_secret=Secret("s" * 40),
        pepper=Secret(base64.b64encode(PEPPER).decode()),
        master_key=Secret(base64.b64encode(MASTER).decode()),
        brief_key=Secret("b1:" + base64.b64encode(bytes(32)).decode()),
        trunks_file=str(folder / "trunks.yaml"),
        port=asked["port"],
        group_id="bench-cancel",
        rooms_max=rooms_max,
        **small,
    )


def _state(app: App, phones: Phones) -> dict[str, Any]:
    owners = app._intake.owners.values()
    done = sum(o.current.positions.get(COMMANDS.name, 0) for o in owners if o.current is not None)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ready": not app.not_ready(),
        "talking": sorted(phones.talking),
        "hung_up": phones.hung_up,
        "taken": done,
        "open_calls": sum(o.current.callees.open_calls for o in owners if o.current is not None),
        "rss_mib": used.ru_maxrss / 1024,
        "commits": REGISTRY.get_sample_value("dialer_commit_seconds_count"),
        "commits_s": REGISTRY.get_sample_value("dialer_commit_seconds_sum"),
    }


async def cancel() -> None:
    """Serve a parent: the first line starts the dialer, each further one is answered with what is going on."""
    reader = await lines()
    asked = orjson.loads(await reader.readline())
    if memory_mib := asked.get("memory_max_mib"):
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mib * 2**20, memory_mib * 2**20))
    with tempfile.TemporaryDirectory() as folder:
        app = App(_settings(asked, Path(folder)))
        phones = Phones(asked["bootstrap"])
        await phones.start()
        await app._telephony.close()
        app._telephony = app._shared.telephony = phones  # type: ignore[assignment]
        stop = asyncio.Event()
        running = asyncio.create_task(app.run(stop))
        while app.not_ready() and not running.done():
            await asyncio.sleep(POLL_S)
        answer(**_state(app, phones))
        while await reader.readline() and not running.done():
            answer(**_state(app, phones))
        stop.set()
        phones.talking.clear()
        await running
