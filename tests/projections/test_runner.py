"""Runner and rebuild against a real broker: the rows are the fold of the log, whatever happens between."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

import pytest

from projections import call_status, timeline
from projections.errors import LogUnusable
from projections.events_log import EventsLog
from projections.logged import Logged, read
from projections.rebuild import rebuild
from projections.runner import Runner
from projections.sqlite import SqliteStore
from projections.store import ModelName, Side
from projections.streams import Streams
from runtime.clock import SystemClock
from schemas.responses import CallView, EventView
from tests.projections.broker import PARTITIONS, cut_log, read_topic, running, until, write_log
from tests.projections.records import Record, as_view, mixed_log

pytestmark = pytest.mark.broker


def runner_of(model: ModelName, store: SqliteStore, bootstrap: str, streams: Streams) -> Runner:
    clock = SystemClock()
    return Runner(model, store, EventsLog(bootstrap, "test-runner", clock, streams), clock)


def folded(records: Sequence[Record]) -> dict[str, CallView]:
    groups: dict[str, list[Logged]] = {}
    for record in records:
        logged = read(record)
        if logged.call_id:
            groups.setdefault(logged.call_id, []).append(logged)
    rows = {call_id: call_status.fold(None, group) for call_id, group in groups.items()}
    return {call_id: row for call_id, row in rows.items() if row is not None}


def told(records: Sequence[Record]) -> dict[str, list[EventView]]:
    stories: dict[str, list[EventView]] = {}
    for record in records:
        row = timeline.fold(read(record))
        if row is not None:
            stories.setdefault(row.call_id, []).append(as_view(row))
    return stories


async def ends_of(bootstrap: str, streams: Streams) -> dict[int, int]:
    """Return the positions a model has when it has read everything."""
    log = await read_topic(bootstrap, streams.events)
    return {partition: records[-1].offset + 1 for partition, records in log.items() if records}


async def catch_up(runner: Runner, store: SqliteStore, bootstrap: str, streams: Streams) -> None:
    ends = await ends_of(bootstrap, streams)

    async def there() -> bool:
        return await store.positions(runner.model, Side.LIVE) == ends

    await until(there, runner.step)


async def test_rows_are_the_fold_of_the_log_over_restarts(
    kafka_bootstrap: str, streams: Streams, store: SqliteStore
) -> None:
    """Both models, the log written and read in two halves by two runners; aborted transactions are not seen."""
    records = mixed_log(40, PARTITIONS)
    half = len(records) // 2
    for part in (records[:half], records[half:]):
        await write_log(kafka_bootstrap, streams, part)
        for model in ModelName:
            async with running(runner_of(model, store, kafka_bootstrap, streams)) as runner:
                await catch_up(runner, store, kafka_bootstrap, streams)
    rows = folded(records)
    assert await store.calls(Side.LIVE, rows) == rows
    assert {call_id: await store.timeline(call_id) for call_id in rows} == told(records)


async def test_a_runner_is_ready_once_it_is_near_the_end(
    kafka_bootstrap: str, streams: Streams, store: SqliteStore
) -> None:
    """Its lag reaches 0: a transaction's marker at the end does not count as a record for ever."""
    await write_log(kafka_bootstrap, streams, mixed_log(8, PARTITIONS))
    async with running(runner_of(ModelName.CALL_STATUS, store, kafka_bootstrap, streams)) as runner:
        assert not runner.ready

        async def even() -> bool:
            return runner.lag is not None and sum(runner.lag.values()) == 0

        await until(even, runner.step)
        assert runner.ready


async def test_a_rebuild_makes_the_same_rows_while_the_runner_goes_on(
    kafka_bootstrap: str, streams: Streams, store: SqliteStore, store_path: str
) -> None:
    """New tables beside the old, swapped; the live runner finds its place in them and misses nothing."""
    records = mixed_log(40, PARTITIONS)
    half = len(records) // 2
    await write_log(kafka_bootstrap, streams, records[:half])
    async with running(runner_of(ModelName.CALL_STATUS, store, kafka_bootstrap, streams)) as runner:
        await catch_up(runner, store, kafka_bootstrap, streams)
        rows = folded(records[:half])
        assert await store.calls(Side.LIVE, rows) == rows
        other = await SqliteStore.open(store_path)
        clock = SystemClock()
        count = await rebuild(
            ModelName.CALL_STATUS, other, EventsLog(kafka_bootstrap, "test-rebuild", clock, streams), clock
        )
        await other.close()
        assert count == half
        assert await store.calls(Side.LIVE, rows) == rows
        await write_log(kafka_bootstrap, streams, records[half:])
        await catch_up(runner, store, kafka_bootstrap, streams)
        assert await store.calls(Side.LIVE, folded(records)) == folded(records)


async def test_a_rebuild_of_the_timeline_is_identical(
    kafka_bootstrap: str, streams: Streams, store: SqliteStore
) -> None:
    """Row by row."""
    records = mixed_log(12, PARTITIONS)
    await write_log(kafka_bootstrap, streams, records)
    async with running(runner_of(ModelName.TIMELINE, store, kafka_bootstrap, streams)) as runner:
        await catch_up(runner, store, kafka_bootstrap, streams)
    before = {call_id: await store.timeline(call_id) for call_id in folded(records)}
    clock = SystemClock()
    await rebuild(ModelName.TIMELINE, store, EventsLog(kafka_bootstrap, "test-rebuild", clock, streams), clock)
    assert {call_id: await store.timeline(call_id) for call_id in folded(records)} == before == told(records)


async def test_killed_between_rows_and_positions_neither_is_there(
    kafka_bootstrap: str, streams: Streams, store_path: str
) -> None:
    """One transaction: after the kill the database is as before the batch, and the next runner makes it right."""
    records = mixed_log(12, PARTITIONS)
    await write_log(kafka_bootstrap, streams, records)
    assert await die_at("between_rows_and_positions", kafka_bootstrap, streams, store_path) == -signal.SIGKILL
    rows = folded(records)
    store = await SqliteStore.open(store_path)
    try:
        assert await store.calls(Side.LIVE, rows) == {}
        assert await store.positions(ModelName.CALL_STATUS, Side.LIVE) == {}
        async with running(runner_of(ModelName.CALL_STATUS, store, kafka_bootstrap, streams)) as runner:
            await catch_up(runner, store, kafka_bootstrap, streams)
        assert await store.calls(Side.LIVE, rows) == rows
    finally:
        await store.close()


async def test_a_log_that_was_cut_is_refused_by_name(
    kafka_bootstrap: str, streams: Streams, store: SqliteStore
) -> None:
    """Rows made from a log without its beginning would be wrong in silence."""
    await write_log(kafka_bootstrap, streams, mixed_log(12, PARTITIONS))
    partition = next(iter(await ends_of(kafka_bootstrap, streams)))
    await cut_log(kafka_bootstrap, streams, partition, 3)
    runner = runner_of(ModelName.CALL_STATUS, store, kafka_bootstrap, streams)
    with pytest.raises(LogUnusable, match=f"partition {partition} holds 3 to"):
        await runner.start()
    await runner.stop()


async def test_a_topic_that_is_not_there_is_refused_by_name(kafka_bootstrap: str, store: SqliteStore) -> None:
    """One line that says what to do."""
    runner = runner_of(ModelName.CALL_STATUS, store, kafka_bootstrap, Streams(events="never-made"))
    with pytest.raises(LogUnusable, match="dialer topics"):
        await runner.start()
    await runner.stop()


async def die_at(where: str, bootstrap: str, streams: Streams, path: str) -> int:
    """Run the child that dies there and return how it ended."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.projections.dying",
        *(where, bootstrap, streams.events, streams.audit, streams.publisher, str(streams.partitions), path),
    )
    async with asyncio.timeout(60):
        return await child.wait()
