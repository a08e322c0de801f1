"""The state's own `replace` does what dataclasses.replace does."""

import dataclasses
from datetime import UTC, datetime

import pytest

from dialer.callee.copying import replace
from dialer.callee.state import Attempt, Callee, nothing
from tests import histories as h
from tests.spec import given

OPENED = Attempt(number=1, opened_at=datetime(2026, 11, 22, tzinfo=UTC))


def test_a_copy_is_what_the_standard_library_makes() -> None:
    """Changed fields are changed, all others kept, and the value copied from stays as it was."""
    changed = replace(OPENED, number=2, job_id="AJ_1")
    assert changed == dataclasses.replace(OPENED, number=2, job_id="AJ_1")
    assert type(changed) is Attempt
    assert OPENED.number == 1


def test_a_copy_is_frozen_again() -> None:
    """What was filled as a draft cannot be changed any more."""
    changed = replace(Callee(callee_key="k"), sequence=7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed.sequence = 8  # type: ignore[misc]


def test_a_name_that_is_no_field_is_refused() -> None:
    """A misspelt field is a bug, not a new attribute."""
    with pytest.raises(AttributeError):
        replace(OPENED, numbr=2)  # type: ignore[call-arg]


def test_the_one_empty_dict_stays_empty() -> None:
    """It stands for every memory that holds nothing yet: whoever wrote into it would write into all of them."""
    for _, history in (h.HISTORIES | h.TALKS).values():
        given(*history, h.fenced(900), h.tick(5000), h.cancel(5001, 9), h.hung_up(5002))
    assert Callee(callee_key="a").closed is Callee(callee_key="b").closed is nothing()
    assert nothing() == {}
