"""The bench's corpus and its arithmetic, and the rules over a small part of it: what must never get worse unseen."""

from __future__ import annotations

import random

import pytest

from bench.amd.grammar import LANGUAGES, PARTS, SHARED, misheard, openings, phrases
from bench.amd.matrix import Share, machines_as_people, people_as_machines
from bench.amd.replaying import happenings, ours


def test_a_seed_makes_the_same_openings_again() -> None:
    """And another seed makes others."""
    assert openings("seen", 50, 50, 1) == openings("seen", 50, 50, 1)
    assert openings("seen", 50, 50, 1) != openings("seen", 50, 50, 2)


def test_no_phrase_that_is_held_out_was_in_sight() -> None:
    """A third of all, in both languages and of every kind; only what carriers say before an announcement is shared."""
    for language in LANGUAGES:
        seen, held_out = (
            [p for pools in phrases(part, language).values() for name, pool in pools.items() if name != SHARED
             for p in pool]
            for part in PARTS
        )  # fmt: skip
        assert not set(seen) & set(held_out)
        assert 0.28 < len(held_out) / (len(seen) + len(held_out)) < 0.36
        assert all(pool for pools in phrases("held_out", language).values() for pool in pools.values())


def test_a_recogniser_that_errs_loses_as_many_words_as_asked() -> None:
    """Half of them lost, half taken for others."""
    clean = openings("seen", 300, 300, 3)
    worse = [misheard(opening, 0.2, random.Random(i)) for i, opening in enumerate(clean)]
    words = sum(len(o.text.split()) for o in clean)
    left = sum(len(o.text.split()) for o in worse)
    assert 0.07 < 1 - left / words < 0.13
    assert [o.category for o in clean] == [o.category for o in worse]


def test_the_ear_tells_of_an_opening_in_order() -> None:
    """Every utterance begins and ends, its words before its end, time never going back."""
    for opening in openings("seen", 30, 30, 5):
        told = happenings(opening, random.Random(1))
        assert [h.at for h in told] == sorted(h.at for h in told)
        assert [h.kind for h in told].count("started") == [h.kind for h in told].count("ended")
        assert " ".join(h.text for h in told if h.kind == "words") == opening.text


@pytest.mark.parametrize(
    ("count", "of", "low", "high"), [(0, 1000, 0.0, 0.00383), (10, 100, 0.05523, 0.17437), (100, 100, 0.96301, 1.0)]
)
def test_wilsons_interval_is_the_textbooks(count: int, of: int, low: float, high: float) -> None:
    """95 %."""
    found_low, found_high = Share(count=count, of=of).interval
    assert found_low == pytest.approx(low, abs=1e-4)
    assert found_high == pytest.approx(high, abs=1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_people_are_not_lost_and_few_machines_are_missed(part: str) -> None:
    """A tenth of the bench: the figures themselves are held by `make bench-amd`."""
    judged = [ours(opening, random.Random(i)) for i, opening in enumerate(openings(part, 300, 200, 11))]
    assert people_as_machines(judged).count == 0
    assert machines_as_people(judged).value < 0.04
