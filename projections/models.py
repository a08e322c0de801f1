"""The read models as the runner sees them: how a batch of records becomes one change of the store.

To add a model: a pure fold, a row here, its tables in the stores. Source: design §7.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from projections import call_status, timeline
from projections.logged import Logged
from projections.store import Change, ModelName, Side, Writer

Moves = Mapping[int, tuple[int, int]]
MakeChange = Callable[[Writer, Side, Sequence[Logged], Moves], Awaitable[Change]]


async def call_status_change(store: Writer, side: Side, records: Sequence[Logged], moves: Moves) -> Change:
    """Fold a batch onto the rows that it touches."""
    by_call: dict[str, list[Logged]] = {}
    for logged in records:
        if logged.call_id is not None:
            by_call.setdefault(logged.call_id, []).append(logged)
    before = await store.calls(side, by_call)
    after = ((before.get(call_id), call_status.fold(before.get(call_id), group)) for call_id, group in by_call.items())
    changed = [row for was, row in after if row is not None and row != was]
    return Change(model=ModelName.CALL_STATUS, moves=moves, calls=changed)


async def timeline_change(_: Writer, __: Side, records: Sequence[Logged], moves: Moves) -> Change:
    """Make a row of each record."""
    rows = [row for logged in records if (row := timeline.fold(logged)) is not None]
    return Change(model=ModelName.TIMELINE, moves=moves, events=rows)


MODELS: Final[Mapping[ModelName, MakeChange]] = MappingProxyType(
    {ModelName.CALL_STATUS: call_status_change, ModelName.TIMELINE: timeline_change}
)
