"""Which agents are alive: ages from the broker's time, so that an old renewal makes nobody look alive."""

from __future__ import annotations

import pytest

from dialer.agents import SILENT_AFTER_S, Agents
from tests.doubles.clock import VirtualClock

CALL = "a-call"


def ms(clock: VirtualClock, ago_s: float = 0) -> int:
    return round((clock.now().timestamp() - ago_s) * 1000)


def test_an_agent_nobody_heard_of_is_very_old() -> None:
    """The gate stays shut."""
    assert Agents(VirtualClock()).age_s(CALL, 1) > 1e6


def test_a_renewal_makes_an_agent_as_old_as_its_record() -> None:
    """Read late, it is old already; an older one read later does not rejuvenate, nor age."""
    clock = VirtualClock()
    agents = Agents(clock)
    agents.renewed(CALL, 1, ms(clock, ago_s=4))
    assert agents.age_s(CALL, 1) == pytest.approx(4, abs=0.01)
    agents.renewed(CALL, 1, ms(clock))
    agents.renewed(CALL, 1, ms(clock, ago_s=9))
    clock.move(2)
    assert agents.age_s(CALL, 1) == pytest.approx(2, abs=0.01)
    assert agents.age_s(CALL, 2) > 1e6


def test_a_watched_agent_that_is_not_renewed_falls_silent() -> None:
    """And one that is renewed does not."""
    clock = VirtualClock()
    agents = Agents(clock)
    agents.watch(CALL, 1)
    agents.watch("another", 1)
    clock.move(SILENT_AFTER_S - 1)
    agents.renewed("another", 1, ms(clock))
    clock.move(2)
    assert agents.silent() == [(CALL, 1)]
    agents.forget(CALL, 1)
    assert agents.silent() == []


def test_watching_again_does_not_make_an_agent_younger() -> None:
    """The owner aligns after every commit; a taken-over one counts as heard of just now."""
    clock = VirtualClock()
    agents = Agents(clock)
    agents.watch(CALL, 1)
    clock.move(SILENT_AFTER_S + 1)
    agents.watch(CALL, 1)
    assert agents.silent() == [(CALL, 1)]
    agents.watch(CALL, 1, taken_over=True)
    assert agents.silent() == []


def test_a_broker_ahead_of_us_is_a_skew_and_a_lag_in_reading_is_none() -> None:
    """The gate refuses on a clock that is off."""
    clock = VirtualClock()
    agents = Agents(clock)
    agents.renewed(CALL, 1, ms(clock, ago_s=60))
    assert agents.skew_s == 0
    agents.renewed(CALL, 1, ms(clock, ago_s=-3))
    assert agents.skew_s == pytest.approx(3, abs=0.01)
    assert agents.age_s(CALL, 1) == 0
