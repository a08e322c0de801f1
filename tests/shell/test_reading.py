"""Records read ahead, stage by stage, are what they are when read alone."""

from collections import deque

import orjson

from dialer.reading import AHEAD_MAX, ReadAhead, Reading, read_place_call
from dialer.records import RawRecord
from schemas.topics import COMMANDS

PEPPER = b"p" * 32
FIELDS = ("callee", "partition", "call_id", "body_hash", "zones", "number", "command", "envelope")


def record(offset: int, to: str = "+12125550123", type_name: str = "dialer.command.place_call.v1") -> RawRecord:
    """Return a place_call as it is fetched."""
    data = {"request_id": f"r-{offset}", "campaign_id": "rx-refill", "to": to}
    value = {"specversion": "1.0", "type": type_name, "source": "/t", "id": f"id-{offset}", "data": data}
    return RawRecord(
        topic=COMMANDS.name, partition=0, offset=offset, timestamp_ms=0, key=None, value=orjson.dumps(value)
    )


def told(reading: Reading) -> list[object]:
    """Return everything a reading found."""
    return [getattr(reading, name) for name in FIELDS]


def test_what_was_read_ahead_is_what_is_read_alone() -> None:
    """Every field of every record, in company or alone."""
    waiting = deque(record(offset, f"+1212555{offset:04d}") for offset in range(100, 105))
    ahead = ReadAhead(PEPPER)
    ahead.read(waiting)
    for raw in waiting:
        found = ahead.take(raw)
        assert found is not None
        assert told(found) == told(read_place_call(raw, PEPPER))


def test_a_record_that_cannot_be_read_is_left_to_its_turn() -> None:
    """Its neighbours are read; its own turn will say what is wrong with it."""
    waiting = deque([record(0), record(1, "911"), record(2, type_name="dialer.command.no_such.v1"), record(3)])
    ahead = ReadAhead(PEPPER)
    ahead.read(waiting)
    assert [ahead.take(raw) is not None for raw in waiting] == [True, False, False, True]


def test_reading_ahead_is_bounded_and_goes_on_where_it_ended() -> None:
    """No more than AHEAD_MAX at once, and the next ones when the first of them is up."""
    waiting = deque(record(offset) for offset in range(AHEAD_MAX + 1))
    ahead = ReadAhead(PEPPER)
    ahead.read(waiting)
    last = waiting[-1]
    for _ in range(AHEAD_MAX):
        ahead.read(waiting)
        assert ahead.take(waiting.popleft()) is not None
    assert ahead.take(last) is None
    ahead.read(waiting)
    assert ahead.take(last) is not None


def test_another_record_of_the_same_offset_is_not_mistaken() -> None:
    """What was read is handed out for the very record only."""
    ahead = ReadAhead(PEPPER)
    ahead.read(deque([record(7)]))
    assert ahead.take(record(7, "+12125550124")) is None
