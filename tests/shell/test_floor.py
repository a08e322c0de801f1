"""Whose turn it is: one at a time, the urgent first, and no backlog of commits before a hang-up's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from dialer.floor import COMMITS_MAX, Floor
from runtime.clock import SystemClock


@pytest.fixture
def floor() -> Floor:
    """Return a floor that nobody holds."""
    return Floor(SystemClock())


def asked(work: Awaitable[None]) -> asyncio.Future[None]:
    """Begin to wait."""
    return asyncio.ensure_future(work)


async def settled() -> None:
    """Let everybody who may go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_place_holds_the_floor_and_the_urgent_are_let_in_first(floor: Floor) -> None:
    """Whoever waited longest is next among equals."""
    first, patient, urgent = floor.place(), floor.place(), floor.place()
    await first.take(urgent=False)
    waiting, hurrying = asked(patient.take(urgent=False)), asked(urgent.take(urgent=True))
    await settled()
    assert not waiting.done() and not hurrying.done()
    first.give()
    await settled()
    assert hurrying.done() and not waiting.done()
    urgent.give()
    await settled()
    assert waiting.done()


async def test_a_patient_place_that_hurries_is_let_in_before_its_line(floor: Floor) -> None:
    """What came in while it waited is urgent."""
    holder, before, hurried = floor.place(), floor.place(), floor.place()
    await holder.take(urgent=False)
    lines = asked(before.take(urgent=False)), asked(hurried.take(urgent=False))
    await settled()
    hurried.hurry()
    holder.give()
    await settled()
    assert [line.done() for line in lines] == [False, True]
    hurried.give()
    await lines[0]


async def test_a_slice_keeps_the_floor_unless_somebody_urgent_waits(floor: Floor) -> None:
    """And who gave way is the first after them."""
    holder, patient, urgent = floor.place(), floor.place(), floor.place()
    await holder.take(urgent=False)
    waiting = asked(patient.take(urgent=False))
    await holder.rest()
    assert not waiting.done()
    hurrying, resting = asked(urgent.take(urgent=True)), asked(holder.rest())
    await settled()
    assert hurrying.done() and not resting.done()
    urgent.give()
    await settled()
    assert resting.done() and not waiting.done()
    holder.give()
    await waiting


async def test_many_open_commits_hold_up_the_patient_and_nobody_urgent(floor: Floor) -> None:
    """Until one of them is answered."""
    committing = [floor.place() for _ in range(COMMITS_MAX)]
    for place in committing:
        await place.take(urgent=False)
        place.commits()
        place.give()
    patient, urgent = floor.place(), floor.place()
    waiting = asked(patient.take(urgent=False))
    await urgent.take(urgent=True)
    urgent.give()
    await settled()
    assert not waiting.done()
    committing[0].settle()
    await waiting


async def test_who_stops_waiting_leaves_the_floor_to_the_next(floor: Floor) -> None:
    """Even one that was let in and cancelled before it knew."""
    holder, gone, patient = floor.place(), floor.place(), floor.place()
    await holder.take(urgent=False)
    leaving, waiting = asked(gone.take(urgent=False)), asked(patient.take(urgent=False))
    await settled()
    holder.give()
    leaving.cancel()
    await settled()
    assert leaving.cancelled() and waiting.done()
