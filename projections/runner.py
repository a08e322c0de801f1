"""Keeps one read model up to date: poll, fold the batch in memory, rows and positions in one database transaction.

One runner per model, each with its own reader and positions: the log is read and decoded once a model, and for that a
model is added, rebuilt or falls behind without touching another. Source: design §7.
"""

from __future__ import annotations

from typing import Final

from aiokafka import ConsumerRecord

from projections.events_log import EventsLog
from projections.logged import Logged, read
from projections.models import MODELS
from projections.store import ModelName, Side, Store, Superseded
from runtime.clock import Clock
from runtime.logs import Log
from runtime.metrics import ALARMS, PROJECTED, PROJECTION_LAG
from schemas.values import Invalid

BATCH_MAX: Final = 4000
"""Records a transaction takes at most: the fold holds the event loop some 40 ms, and the API answers in between."""
WAIT_S: Final = 0.5
LAG_INTERVAL_S: Final = 1.0
READY_LAG_MAX: Final = 1000
"""A partition that is further behind than this makes the read side not ready."""

log = Log("projections.runner")


class Runner:
    """One model's; `lag` is None until it was measured."""

    def __init__(self, model: ModelName, store: Store, events: EventsLog, clock: Clock, side: Side = Side.LIVE) -> None:
        self.model = model
        self.side = side
        self.lag: dict[int, int] | None = None
        self._store = store
        self._events = events
        self._clock = clock
        self._make_change = MODELS[model]
        self._measured_at = float("-inf")
        self._projected = PROJECTED.labels(model.value)
        self._lag_gauge = PROJECTION_LAG.labels(model.value)

    async def start(self) -> None:
        """Stand where the store stands. Raises: KafkaLost, LogUnusable."""
        await self._events.start(await self._store.positions(self.model, self.side))

    async def run(self) -> None:
        """Project until cancelled. Raises: KafkaLost, LogUnusable, StoreUnusable."""
        while True:
            await self.step()

    async def step(self) -> int:
        """Project one batch, or wait a little for one; return how many records it had."""
        fetched = await self._events.poll(BATCH_MAX, WAIT_S)
        if fetched.records:
            logged = [record for raw in fetched.records if (record := _readable(raw)) is not None]
            change = await self._make_change(self._store, self.side, logged, fetched.moves)
            try:
                await self._store.write(self.side, change)
            except Superseded:
                log.info("positions moved under this runner; reading them again", model=self.model.value)
                await self._events.seek(await self._store.positions(self.model, self.side))
                return 0
            self._projected.inc(len(fetched.records))
        await self._measure()
        return len(fetched.records)

    @property
    def ready(self) -> bool:
        """Tell whether every partition is near the log's end."""
        return self.lag is not None and max(self.lag.values()) <= READY_LAG_MAX

    async def _measure(self) -> None:
        if self._clock.monotonic() - self._measured_at < LAG_INTERVAL_S:
            return
        lag = await self._events.lag()
        self._measured_at = self._clock.monotonic()
        if lag is not None:
            self.lag = lag
            self._lag_gauge.set(sum(lag.values()))

    async def stop(self) -> None:
        """Let go of the connection."""
        await self._events.stop()


def _readable(record: ConsumerRecord) -> Logged | None:
    """Decode a record; one that is none of ours is stepped over, aloud: the log has one writer, so it is a fault."""
    try:
        return read(record)
    except Invalid as error:
        ALARMS.labels("unreadable_event").inc()
        log.alarm(
            "a record of the log cannot be read", partition=record.partition, offset=record.offset, rule=str(error)
        )
        return None
