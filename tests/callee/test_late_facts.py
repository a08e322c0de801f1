"""Facts that come out of an agent's spool, hours or weeks late, twice or in another order."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations

import pytest

from dialer.callee.inputs import FactSeen
from dialer.callee.policy import FACTS_COPIED_FOR
from dialer.callee.witnessed import has_fact
from schemas import facts as f
from schemas.events import CalleeSuppressed
from schemas.values import request_hash
from tests import histories as h
from tests.spec import given

ENDED = (*h.fencing(), h.fenced(15))
DAY_S = FACTS_COPIED_FOR.total_seconds()
REQUEST = request_hash(h.CAMPAIGN, "refill-1")
SUPPRESSED = CalleeSuppressed(stop_id=h.fact(0, f.OptOutHeard, 20, evidence="").id, scope="all", reason="opt_out")


def opt_out(seconds: float) -> FactSeen:
    return h.fact(seconds, f.OptOutHeard, 20, evidence="stop_calling")


def test_an_opt_out_is_copied_however_late_it_comes_and_once() -> None:
    """A day after the end all other facts are dropped; an opt-out is not, and its repetition adds nothing."""
    late = 15 + DAY_S + 1
    spec = given(*ENDED).when(h.hung_up(late)).then_nothing()
    spec.when(opt_out(late + 1)).then(f.OptOutHeard, SUPPRESSED).when(opt_out(late + 2)).then_nothing()


def test_an_opt_out_is_copied_on_the_last_day_that_the_call_is_remembered() -> None:
    """A spool that was forgotten for a month is still heard."""
    late = (h.MEMORY - timedelta(minutes=1)).total_seconds()
    given(*ENDED).when(opt_out(late)).then(f.OptOutHeard, SUPPRESSED)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_late_facts_are_copied_once_each_in_any_order(order: tuple[int, ...]) -> None:
    """The owner keeps the set of numbers, not the highest: a spool may be shipped after what came behind it."""
    kinds = (h.hung_up, h.left, opt_out)
    late = [kinds[place](3600 + n) for n, place in enumerate(order)]
    told = [type(one.fact) for one in late]
    told.insert(order.index(2) + 1, CalleeSuppressed)
    spec = given(*ENDED).when(*late).then(*told)
    spec.when(*late).then_nothing()
    assert all(has_fact(spec.callee.closed[REQUEST].facts, one.fact) for one in late)


def test_a_late_fact_of_another_job_with_the_same_number_is_its_own() -> None:
    """Numbers are counted per attempt and job; who is suppressed already is not suppressed again."""
    spec = given(*ENDED).when(opt_out(100)).then(f.OptOutHeard, SUPPRESSED)
    spec.when(h.fact(101, f.OptOutHeard, 20, job="AJ_other", evidence="no")).then(f.OptOutHeard)
