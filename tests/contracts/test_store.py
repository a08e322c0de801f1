"""One suite for every adapter of `projections.store.Store`. To add one: a factory in `ADAPTERS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from projections import call_status, timeline
from projections.cursor import key_of
from projections.logged import read
from projections.sqlite import MEMORY, SqliteStore
from projections.store import Change, ModelName, Side, Store, Superseded
from schemas.outcomes import Status
from schemas.responses import CallView
from tests.projections.records import LogBuilder, as_view, busy_then_delivered, call, delivered, refused

Open = Callable[[Path], Awaitable[Store]]
ADAPTERS: dict[str, Open] = {
    "sqlite-file": lambda path: SqliteStore.open(str(path / "deep" / "read.sqlite")),
    "sqlite-memory": lambda _: SqliteStore.open(MEMORY),
}


@pytest.fixture(params=list(ADAPTERS))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await ADAPTERS[request.param](tmp_path)
    yield opened
    await opened.close()


def view(number: int, campaign: str = "rx-refill") -> CallView:
    subject = call(number)
    records = LogBuilder().add(subject, *(refused(subject) if number % 3 == 0 else delivered(subject, campaign)))
    row = call_status.fold(None, [read(record) for record in records])
    assert row is not None
    assert row.requested_at is not None
    return replace(row, requested_at=row.requested_at + timedelta(minutes=number // 2))


def batch(*calls: CallView, start: int = 0, end: int = 10) -> Change:
    return Change(model=ModelName.CALL_STATUS, moves={3: (start, end)}, calls=calls)


async def test_rows_come_back_as_they_were_written(store: Store) -> None:
    """Every field, times to the microsecond, None as None."""
    rows = [view(number) for number in range(4)]
    rows[1] = replace(rows[1], next_at=rows[1].updated_at + timedelta(microseconds=1), sip_status=486)
    await store.write(Side.LIVE, batch(*rows))
    assert await store.calls(Side.LIVE, [row.call_id for row in rows] + [call(99)]) == {r.call_id: r for r in rows}
    assert await store.call(rows[1].call_id) == rows[1]
    assert await store.call(call(99)) is None


async def test_a_row_is_replaced_by_a_later_one(store: Store) -> None:
    """One row a call."""
    await store.write(Side.LIVE, batch(view(1)))
    later = replace(view(1), status=Status.WAITING, sequence=99)
    await store.write(Side.LIVE, batch(later, start=10, end=11))
    assert await store.call(call(1)) == later


async def test_positions_move_with_the_rows(store: Store) -> None:
    """Each model has its own; a partition never read is not there."""
    await store.write(Side.LIVE, Change(model=ModelName.CALL_STATUS, moves={3: (0, 10), 5: (0, 7)}))
    await store.write(Side.LIVE, Change(model=ModelName.CALL_STATUS, moves={3: (10, 12)}))
    assert await store.positions(ModelName.CALL_STATUS, Side.LIVE) == {3: 12, 5: 7}
    assert await store.positions(ModelName.TIMELINE, Side.LIVE) == {}


async def test_a_batch_read_from_another_position_is_refused_whole(store: Store) -> None:
    """Of two writers one is told; neither row nor position of its batch is there."""
    await store.write(Side.LIVE, batch(view(1)))
    with pytest.raises(Superseded):
        await store.write(
            Side.LIVE,
            Change(model=ModelName.CALL_STATUS, moves={4: (0, 5), 3: (0, 10)}, calls=[view(2)]),
        )
    assert await store.call(call(2)) is None
    assert await store.positions(ModelName.CALL_STATUS, Side.LIVE) == {3: 10}


async def test_the_timeline_is_in_order_and_a_repetition_adds_nothing(store: Store) -> None:
    """The same records again are the same rows."""
    subject = call(1)
    rows = [timeline.fold(read(record)) for record in LogBuilder().add(subject, *busy_then_delivered(subject))]
    kept = [row for row in rows if row is not None]
    for start, end in ((0, 5), (5, 9)):
        await store.write(
            Side.LIVE, Change(model=ModelName.TIMELINE, moves={1: (start, end)}, events=list(reversed(kept)))
        )
    assert await store.timeline(subject) == [as_view(row) for row in kept]
    assert await store.timeline(call(2)) == []


async def test_pages_are_newest_first_and_stable_under_inserts(store: Store) -> None:
    """A call that comes while one turns pages is on none of the later pages, and shifts none."""
    rows = [view(number) for number in range(20)]
    await store.write(Side.LIVE, batch(*rows))
    seen: list[CallView] = []
    after = None
    for turn in range(10):
        page = await store.page(campaign_id=None, status=None, after=after, limit=3)
        if not page:
            break
        seen += page
        after = key_of(page[-1])
        await store.write(Side.LIVE, batch(view(100 + turn), start=10 + turn, end=11 + turn))
    assert seen == sorted(rows, key=lambda row: (row.requested_at, row.call_id), reverse=True)


async def test_pages_are_filtered_by_campaign_and_status(store: Store) -> None:
    """Both filters, alone and together."""
    rows = [view(n, "rx-refill" if n % 2 else "flu-shots") for n in range(1, 13)]
    await store.write(Side.LIVE, batch(*rows))

    async def found(campaign: str | None, status: Status | None) -> set[str]:
        return {r.call_id for r in await store.page(campaign_id=campaign, status=status, after=None, limit=50)}

    for campaign in (None, "rx-refill", "flu-shots", "no-such"):
        for status in (None, Status.ENDED, Status.REFUSED, Status.RINGING):
            assert await found(campaign, status) == {
                r.call_id for r in rows if campaign in {None, r.campaign_id} and status in {None, r.status}
            }


async def test_a_rebuild_is_not_seen_before_its_swap_and_then_at_once(store: Store) -> None:
    """Rows and positions change together, and the former writer is told by its next batch."""
    await store.write(Side.LIVE, batch(view(1)))
    await store.begin_rebuild(ModelName.CALL_STATUS)
    assert await store.positions(ModelName.CALL_STATUS, Side.NEXT) == {}
    await store.write(Side.NEXT, batch(view(2), end=8))
    assert await store.call(call(2)) is None
    assert not await store.swap(ModelName.CALL_STATUS, 0), "partition 3 is behind the live rows"
    assert await store.swap(ModelName.CALL_STATUS, 2)
    assert await store.call(call(1)) is None
    assert await store.call(call(2)) == view(2)
    with pytest.raises(Superseded):
        await store.write(Side.LIVE, batch(view(3), start=10, end=11))
    await store.write(Side.LIVE, batch(view(3), start=8, end=11))


async def test_a_rebuild_that_did_not_end_leaves_nothing_to_the_next(store: Store) -> None:
    """It starts again from empty tables."""
    await store.begin_rebuild(ModelName.CALL_STATUS)
    await store.write(Side.NEXT, batch(view(1)))
    await store.begin_rebuild(ModelName.CALL_STATUS)
    assert await store.positions(ModelName.CALL_STATUS, Side.NEXT) == {}
    assert await store.calls(Side.NEXT, [call(1)]) == {}
    assert await store.swap(ModelName.CALL_STATUS, 0)
    await store.begin_rebuild(ModelName.CALL_STATUS)
    assert await store.swap(ModelName.CALL_STATUS, 0)
