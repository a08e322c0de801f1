"""A whole dialer in memory on virtual time: real owner, runner, gate, pacer and core; the outside is doubled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from dialer.effector import Runner, Shared
from dialer.outcomes import Outcomes
from dialer.owner import Owner
from dialer.ownership import Ownership, Parts
from dialer.pacer import Pacer
from dialer.telephony import Trunk
from runtime.clock import Clock
from runtime.seal import BriefBox, MasterKey
from schemas.topics import COMMANDS, EVENTS, REJECTED, STOPS
from schemas.values import call_id, callee_key, parse_number, partition_of, request_hash
from tests.doubles.agents import ScriptedAgents
from tests.doubles.clock import VirtualClock
from tests.doubles.memory_feed import (
    CAMPAIGN,
    TRUNK,
    ClockedBroker,
    MemoryFeed,
    MemoryRequests,
    Shelf,
    campaign,
    campaigns_of,
)
from tests.doubles.memory_log import MemoryLog
from tests.doubles.telephony import TelephonyDouble

PEPPER = b"pepper of the tests, 32 bytes ok"
MASTER = b"master of the tests, 32 bytes ok"
BRIEF = b"briefs of the tests, 32 bytes ok"
ANN = "+12125550123"
BOB = "+12125550145"
MEMORY = timedelta(days=35)
CALLER = Trunk(name=TRUNK, address="127.0.0.1:5060", numbers=("+12125550100",), calls_per_s=5, concurrency_max=10)


@dataclass
class Sight:
    """What the gate sees; everything fresh unless a test says otherwise."""

    feed: MemoryFeed
    membership_s: float = 0.0
    stops_s: float | None = None
    control_s: float = 0.0
    stopped_campaigns: set[str] = field(default_factory=set)

    def membership_age_s(self) -> float:
        return self.membership_s

    def stops_age_s(self, ownership: Ownership) -> float:
        return self.feed.stops_age_s(ownership) if self.stops_s is None else self.stops_s

    def control_age_s(self) -> float:
        return self.control_s

    def stopped(self, campaign_id: str) -> bool:
        return campaign_id in self.stopped_campaigns

    def control_version(self) -> str:
        return "7"


class World:
    """Everything of one process in memory; `owned` are the partitions' owners."""

    def __init__(self, *, trunk: Trunk = CALLER, rooms_max: int = 100) -> None:
        self.clock = VirtualClock()
        self.broker = ClockedBroker(self.clock)
        self.feed = MemoryFeed(self.broker, self.clock)
        self.telephony = TelephonyDouble(self.clock)
        self.requests = MemoryRequests(self.broker)
        self.shelf = Shelf(campaign())
        self.campaigns = campaigns_of(self.shelf, self.clock)
        self.sight = Sight(self.feed)
        self.box = BriefBox({"b1": BRIEF})
        self.agents = ScriptedAgents(self.telephony, self.broker, self.box, self.clock)
        self.trunk = trunk
        self.shared = Shared(
            clock=self.clock,
            telephony=self.telephony,
            campaigns=self.campaigns,
            outcomes=Outcomes(self.requests, self.clock),  # type: ignore[arg-type]
            brief_box=self.box,
            agent_name="outbound-dialer",
            trunks={trunk.name: trunk},
            trunk_ids={},
            session_timeout_s=10.0,
            dials_max=50,
            sight=self.sight,
            pacer=Pacer([trunk], rooms_max, self.clock, lambda kind, key: self.shared.granted(kind, key)),
        )
        self.parts = parts(self.clock, self.campaigns, effects=lambda ownership: Runner(ownership, self.shared))
        self.owned: dict[int, Owner] = {}

    async def start(self, *numbers: str) -> None:
        """Ensure the trunk, warm the campaigns, own the partitions of these numbers."""
        self.shared.trunk_ids[self.trunk.name] = await self.telephony.ensure_trunk(self.trunk)
        await self.campaigns.warm()
        self.shared.pacer.set_share(24, 24)
        self.clock.spawn(self.shared.pacer.run(), "pacer")
        for number in numbers or (ANN,):
            self.own(partition_of(key_of(number)))
        await self.clock.advance(2.0)  # the pacer's first window

    def own(self, partition: int) -> Owner:
        """Start an owner where there is none."""
        if partition not in self.owned:
            owner = Owner(partition, MemoryLog(self.broker, self.clock), self.parts, self.feed, self.clock)
            self.owned[partition] = owner
            self.clock.spawn(owner.run(), f"owner-{partition}")
        return self.owned[partition]

    def ownership(self, number: str = ANN) -> Ownership:
        """Return the current ownership of a number's partition."""
        current = self.owned[partition_of(key_of(number))].current
        assert current is not None
        return current

    def runner(self, number: str = ANN) -> Runner:
        """Return the effects of that ownership."""
        effects = self.ownership(number)._effects
        assert isinstance(effects, Runner)
        return effects

    async def until(self, holds: Callable[[], bool], limit_s: float = 60.0) -> None:
        """Let time pass in hundredths of a second until something holds."""
        for _ in range(int(limit_s * 100)):
            await self.clock.settle()
            if holds():
                return
            await self.clock.advance(0.01)
        raise AssertionError("it never came to hold")

    async def until_told(self, call: str, name: str) -> None:
        """Wait for a decision about a call."""
        await self.until(lambda: name in self.told(call))

    def lose(self, number: str = ANN) -> Ownership:
        """End the ownership as an error of the log does; the owner takes the partition over again."""
        ended = self.ownership(number)
        ended.end()
        return ended

    def place(self, to: str = ANN, request: str = "r-1", **more: Any) -> str:
        """Ask for a call; return its id."""
        data = {"request_id": request, "campaign_id": CAMPAIGN, "to": to, "variables": variables()} | more
        self.broker.send(COMMANDS, key_of(to), command("place_call", f"cmd-{request}", data))
        return id_of(to, request, data["campaign_id"])

    def stop(self, kind: str, stop_id: str = "stop-1", **data: Any) -> None:
        """Ask for a stop, on its topic."""
        key = data["callee_key"] if "callee_key" in data else data["call_id"][:26]
        self.broker.send(STOPS, key, command(kind, stop_id, data))

    def log(self, call: str | None = None) -> list[dict[str, Any]]:
        """Return the log's records, of one call or of all partitions owned."""
        partitions = [partition_of(call[:26])] if call else sorted(self.owned)
        found = [orjson.loads(s.value or b"{}") for p in partitions for s in self.broker.committed(EVENTS.name, p)]
        return [e for e in found if call is None or e.get("subject") == call]

    def told(self, call: str) -> list[str]:
        """Return what was decided about a call, in short names; the agent's facts left out."""
        return [short(e) for e in self.log(call) if e["type"].startswith("dialer.event.")]

    def last(self, call: str, name: str) -> dict[str, Any]:
        """Return the data of the last record of that short name."""
        return next(e["data"] for e in reversed(self.log(call)) if short(e) == name)

    def rejected(self) -> list[dict[str, Any]]:
        """Return what was refused on all partitions owned."""
        found = [s for p in sorted(self.owned) for s in self.broker.committed(REJECTED.name, p)]
        return [orjson.loads(s.value or b"{}")["data"] for s in found]

    async def close(self) -> None:
        """End everything."""
        for owner in self.owned.values():
            owner.stop()
        await self.clock.close()


def parts(clock: Clock, campaigns: Any, effects: Any, **over: Any) -> Parts:
    """Return what all ownerships share."""
    return Parts(
        **{
            "clock": clock,
            "pepper": PEPPER,
            "master": MasterKey(MASTER),
            "memory": MEMORY,
            "campaigns": campaigns,
            "batch_max": 2000,
            "inbox_max": 10_000,
            "effects": effects,
        }
        | over
    )


def key_of(number: str) -> str:
    return callee_key(parse_number(number).e164, PEPPER)


def id_of(number: str, request: str = "r-1", campaign_id: str = CAMPAIGN) -> str:
    return call_id(key_of(number), request_hash(campaign_id, request))


def variables() -> dict[str, str]:
    return {"first_name": "Ann", "store": "Main Street"}


def command(kind: str, command_id: str, data: dict[str, Any], **attributes: Any) -> bytes:
    """Write a command as a pipeline does."""
    envelope = {
        "specversion": "1.0",
        "type": f"dialer.command.{kind}.v1",
        "source": "/campaigns/rx-refill",
        "id": command_id,
        "data": data,
    }
    return orjson.dumps(envelope | attributes)


def short(event: dict[str, Any]) -> str:
    """Return the name of an event without family and version."""
    return str(event["type"]).split(".")[2]
