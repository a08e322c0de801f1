"""A translator's desk: one partition, real keys, a directory of campaigns, and records to put on it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from dialer.callee import inputs as i
from dialer.campaigns import Campaigns, Directory
from dialer.data_keys import DataKeys
from dialer.records import RawRecord
from dialer.translate import Given, Translator
from runtime.seal import MasterKey
from schemas import topics
from schemas.values import Invalid, call_id, callee_key, partition_of, request_hash
from tests.doubles.clock import START, VirtualClock

PEPPER = b"pepper of the tests"
NUMBER = "+12125550123"
KEY = callee_key(NUMBER, PEPPER)
CALL = call_id(KEY, request_hash("rx-refill", "refill-1"))
PARTITION = partition_of(KEY)
MEMORY = timedelta(days=35)
NOW_MS = round(START.timestamp() * 1000)
PLACE = "dialer.command.place_call.v1"
CANCEL = "dialer.command.cancel_call.v1"
SUPPRESS = "dialer.command.suppress_callee.v1"
DATA: dict[str, Any] = {
    "request_id": "refill-1",
    "campaign_id": "rx-refill",
    "to": NUMBER,
    "variables": {"first_name": "Ann"},
}
CAMPAIGN = 'id: {id}\ntype: one_way\nmessage: "{message}"\ntrunk: t\ncountries_allowed: [{countries}]\n'


class Desk:
    """A translator of one partition with everything it needs."""

    def __init__(self, campaigns: Campaigns, clock: VirtualClock) -> None:
        self.clock = clock
        self.keys = DataKeys(PARTITION, MasterKey(bytes(32)), clock)
        self.translator = Translator(PARTITION, PEPPER, MEMORY, self.keys, campaigns, clock)

    def read(self, raw: RawRecord) -> Any:
        return self.translator.translate(raw, self.clock.now())

    def refusal(self, raw: RawRecord) -> tuple[str, str]:
        with pytest.raises(Invalid) as refused:
            self.read(raw)
        assert NUMBER[2:] not in str(refused.value)
        return refused.value.field, refused.value.rule

    def place(self, **more: Any) -> i.PlaceCall:
        read = self.read(command({**DATA, **more}))
        assert isinstance(read, Given)
        assert isinstance(read.given, i.PlaceCall)
        return read.given


async def open_desk(tmp_path: Path) -> Desk:
    """Open a desk: a directory of campaigns, published and at hand."""
    definitions = {
        "rx-refill": ("Hello {first_name}.", "US"),
        "empty": ("{first_name}", "US"),
        "british": ("Hello {first_name}.", "GB"),
        "long": ("{first_name}" * 21, "US"),
    }
    for name, (message, countries) in definitions.items():
        (tmp_path / f"{name}.yaml").write_text(CAMPAIGN.format(id=name, message=message, countries=countries))
    clock = VirtualClock()

    async def publish(key: str, value: bytes) -> None:
        assert key
        assert value

    campaigns = Campaigns(Directory(tmp_path), publish, clock, None)
    assert await campaigns.warm()
    return Desk(campaigns, clock)


def event(kind: str, data: Any, **more: Any) -> bytes:
    envelope = {"specversion": "1.0", "type": kind, "source": "/campaigns/rx-refill", "id": "b7c1", "data": data}
    return orjson.dumps(envelope | more)


def raw(value: bytes | None, topic: str = topics.COMMANDS.name, key: str | None = KEY, **more: Any) -> RawRecord:
    fields = {"partition": PARTITION, "offset": 17, "timestamp_ms": NOW_MS, "headers": ()}
    return RawRecord(topic=topic, key=None if key is None else key.encode(), value=value, **(fields | more))


def command(data: Any, kind: str = PLACE, **more: Any) -> RawRecord:
    return raw(event(kind, data, **more))


def stop(data: Any, kind: str = CANCEL, **more: Any) -> RawRecord:
    return raw(event(kind, data), topics.STOPS.name, **more)


def observed(kind: str, data: Any, **more: Any) -> RawRecord:
    return raw(event(kind, data, subject=CALL, **more), topics.OBSERVATIONS.name)
