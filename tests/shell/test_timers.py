"""Deadlines of a partition: each callee once, the latest word counts, and nothing piles up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dialer.timers import Timers
from tests.histories import at


def test_callees_come_due_in_order_and_once() -> None:
    """The owner sets a new deadline after each."""
    timers = Timers()
    for key, due in (("b", 2), ("a", 1), ("c", 9)):
        timers.set(key, at(due))
    assert timers.next_due() == at(1)
    assert timers.take_due(at(5), 10) == ["a", "b"]
    assert timers.take_due(at(5), 10) == []
    assert len(timers) == 1


def test_a_later_word_replaces_the_earlier() -> None:
    """Sooner, later, or not at all."""
    timers = Timers()
    timers.set("a", at(1))
    timers.set("a", at(5))
    assert timers.take_due(at(2), 10) == []
    timers.set("a", at(3))
    assert timers.next_due() == at(3)
    timers.set("a", None)
    assert timers.next_due() is None
    assert timers.take_due(at(100), 10) == []


def test_no_more_are_taken_than_asked_for() -> None:
    """A turn is bounded."""
    timers = Timers()
    for n in range(10):
        timers.set(str(n), at(n))
    assert len(timers.take_due(at(100), 3)) == 3
    assert len(timers) == 7


@given(st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 20)))), st.integers(0, 20))
def test_timers_do_what_a_plain_dictionary_would(words: list[tuple[str, int | None]], now: int) -> None:
    """The heap forgets lazily, and nobody notices."""
    timers, model = Timers(), dict[str, int]()
    for key, due in words:
        timers.set(key, None if due is None else at(due))
        if due is None:
            model.pop(key, None)
        else:
            model[key] = due
    assert timers.next_due() == (at(min(model.values())) if model else None)
    assert set(timers.take_due(at(now), 10)) == {k for k, due in model.items() if due <= now}
    assert len(timers) == sum(due > now for due in model.values())
