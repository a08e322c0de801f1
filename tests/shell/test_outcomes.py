"""An outcome whose ownership is over is delivered by the log, however long the broker is away."""

from __future__ import annotations

import orjson

from dialer.outcomes import BACKOFFS_S, Outcomes
from runtime import metrics
from schemas.observations import DialOutcome
from schemas.topics import OBSERVATIONS
from schemas.values import partition_of
from tests.doubles.clock import VirtualClock
from tests.doubles.memory_feed import ClockedBroker, MemoryRequests
from tests.doubles.world import ANN, id_of, key_of

CALL = id_of(ANN)
BUSY = DialOutcome(attempt=2, result="failed", sip_status=486, code="resource_exhausted", phrase="Busy Here")


class Bed:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.broker = ClockedBroker(self.clock)
        self.requests = MemoryRequests(self.broker)
        self.outcomes = Outcomes(self.requests, self.clock)  # type: ignore[arg-type]

    def written(self) -> list[dict[str, object]]:
        stored = self.broker.uncommitted(OBSERVATIONS.name, partition_of(key_of(ANN)))
        assert all(s.key == key_of(ANN).encode() for s in stored)
        return [orjson.loads(s.value or b"") for s in stored]


async def test_an_outcome_is_written_under_its_derived_id() -> None:
    """Delivered twice it is the same record twice."""
    bed = Bed()
    await bed.outcomes.publish(CALL, BUSY)
    await bed.outcomes.publish(CALL, BUSY)
    first, second = bed.written()
    assert first == second
    assert (first["id"], first["subject"], first["type"]) == (f"dial/{CALL}-2", CALL, DialOutcome.TYPE)
    assert first["data"]["sip_status"] == 486  # type: ignore[index]
    assert bed.outcomes.open == 0


async def test_a_broker_that_is_away_is_waited_for() -> None:
    """Who ends the process sees that one is open."""
    bed = Bed()
    bed.requests.away = len(BACKOFFS_S) - 1
    bed.clock.spawn(bed.outcomes.publish(CALL, BUSY), "outcome")
    await bed.clock.advance(1)
    assert (bed.outcomes.open, bed.written()) == (1, [])
    await bed.clock.advance(sum(BACKOFFS_S))
    assert bed.outcomes.open == 0
    assert len(bed.written()) == 1


async def test_an_outcome_that_cannot_be_delivered_is_alarmed() -> None:
    """The next owner will fence and judge; somebody must look all the same."""
    bed = Bed()
    bed.requests.away = 1000
    before = metrics.ALARMS.labels("outcome_undelivered")._value.get()
    bed.clock.spawn(bed.outcomes.publish(CALL, BUSY), "outcome")
    await bed.clock.advance(sum(BACKOFFS_S) + 1)
    assert metrics.ALARMS.labels("outcome_undelivered")._value.get() == before + 1
    assert bed.outcomes.open == 0
