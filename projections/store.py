"""The seam between the folds and a database. Rows and the positions they stand for change in one transaction.

Guarantees every adapter gives (one contract suite, `tests/contracts/test_store.py`):

1. `write` is all or nothing, over rows and positions alike.
2. `write` checks that the positions are still where the batch was read from, and raises `Superseded` otherwise: of two
   writers, or after a rebuild was swapped in, no batch is folded twice and none is stepped over.
3. A rebuild writes to tables of its own (`NEXT`); readers see the former ones (`LIVE`) until `swap`, which is atomic.
4. What was written is there after the process died; a batch that was not answered is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from projections.timeline import TimelineRow
from schemas.outcomes import Status
from schemas.responses import CallView, EventView

TIMELINE_MAX: Final = 10_000
"""Rows of one call's timeline that a query returns at most; a call is bounded by its openings, far below this."""


class ModelName(StrEnum):
    """The read models, each with its own tables and its own positions on the log."""

    CALL_STATUS = "call_status"
    TIMELINE = "timeline"


class Side(StrEnum):
    """Which tables of a model: those that are read, or those that a rebuild fills."""

    LIVE = "live"
    NEXT = "next"


class Superseded(Exception):
    """The positions moved under this writer: read them again and go on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One batch: `moves` is partition -> (position it was read from, position after it)."""

    model: ModelName
    moves: Mapping[int, tuple[int, int]]
    calls: Sequence[CallView] = field(default=())
    events: Sequence[TimelineRow] = field(default=())


@dataclass(frozen=True, slots=True)
class PageKey:
    """A place in the list of calls, newest first: everything strictly after it is the next page."""

    requested_at: datetime
    call_id: str


class Writer(Protocol):
    """What a runner needs."""

    async def positions(self, model: ModelName, side: Side) -> dict[int, int]:
        """Return, per partition, the offset of the first record that is not in the rows yet."""
        ...

    async def calls(self, side: Side, call_ids: Iterable[str]) -> dict[str, CallView]:
        """Return the rows of `call_status` that are there."""
        ...

    async def write(self, side: Side, change: Change) -> None:
        """Write rows and positions in one transaction. Raises: Superseded."""
        ...

    async def begin_rebuild(self, model: ModelName) -> None:
        """Make empty tables beside the live ones; those of a rebuild that did not end are dropped."""
        ...

    async def swap(self, model: ModelName, behind_max: int) -> bool:
        """Put the rebuilt tables in the live ones' place, unless a partition of theirs is further behind than that."""
        ...


class Queries(Protocol):
    """What the HTTP API needs."""

    async def call(self, call_id: str) -> CallView | None:
        """Return one call."""
        ...

    async def timeline(self, call_id: str) -> list[EventView]:
        """Return a call's records in order, `TIMELINE_MAX` at most; empty for a call that is not there."""
        ...

    async def page(
        self, *, campaign_id: str | None, status: Status | None, after: PageKey | None, limit: int
    ) -> list[CallView]:
        """Return calls newest first, those after a place where one is given."""
        ...


class Store(Writer, Queries, Protocol):
    """A database of read models."""

    async def close(self) -> None:
        """Let go of it."""
        ...
