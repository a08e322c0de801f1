"""Rebuilds a read model: new tables beside the old, folded from offset 0, put in their place when they caught up.

The read side may run meanwhile: its runner notices the swap by its positions and goes on in the new tables. Nothing
is published: `dialer.audit` is not made from tables. Source: design §7.
"""

from __future__ import annotations

from typing import Final

from projections.events_log import EventsLog
from projections.runner import READY_LAG_MAX, Runner
from projections.store import ModelName, Side, Store
from runtime.clock import Clock
from runtime.logs import Log

EVEN_TRIES: Final = 20
"""Swaps tried with no record behind the live tables, before a lag that counts as ready is good enough."""

log = Log("projections.rebuild")


async def rebuild(model: ModelName, store: Store, events: EventsLog, clock: Clock) -> int:
    """Rebuild one model and return how many records were folded. Raises: KafkaLost, LogUnusable, StoreUnusable."""
    await store.begin_rebuild(model)
    runner = Runner(model, store, events, clock, Side.NEXT)
    folded = tries = 0
    await runner.start()
    try:
        while True:
            count = await runner.step()
            folded += count
            if count:
                log.debug("rebuilding", model=model.value, folded=folded)
                continue
            lag = await events.lag()
            if lag is None or max(lag.values()) > (0 if tries < EVEN_TRIES else READY_LAG_MAX):
                tries += 1
                continue
            if await store.swap(model, 0 if tries < EVEN_TRIES else READY_LAG_MAX):
                log.info("rebuilt", model=model.value, folded=folded)
                return folded
            tries += 1
    finally:
        await runner.stop()
