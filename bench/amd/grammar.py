"""The corpus: how calls are opened, made from phrases by a seed. Nothing of it is kept as text or sound.

An opening is a sequence of phrases with names, firms and numbers filled in, and pauses between them. A third of the
phrases is held out (`grammar/held_out_*.yaml`, drawn by hash before a rule was written): an opening is made of phrases of
one part only, so that none of the held-out openings holds a phrase that was in sight while rules were written.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import yaml

from schemas.facts import AnswererCategory

Part = Literal["seen", "held_out"]
PARTS: Final[tuple[Part, ...]] = ("seen", "held_out")
LANGUAGES: Final = ("en", "es")
ENGLISH_SHARE: Final = 0.65
WORD_S: Final = (0.28, 0.42)
"""How long a word takes, from the fastest speaker to the slowest."""
PERSON_PAUSE_S: Final = (0.1, 0.5)
MACHINE_PAUSE_S: Final = (0.15, 0.8)
"""Between two phrases of one opening."""
PICK_UP_S: Final = (0.2, 1.6)
"""From the answer to the first word."""

_SLOTS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "en": {
        "name": (
            "bob",
            "ann",
            "maria",
            "john",
            "linda",
            "steve",
            "rosa",
            "kevin",
            "priya",
            "tom",
            "susan",
            "dave",
            "elena",
            "marcus",
        ),
        "last": ("smith", "johnson", "garcia", "lee", "brown", "nguyen", "martinez", "patel", "wilson", "clark"),
        "firm": (
            "lakeside dental",
            "main street pharmacy",
            "smith and sons plumbing",
            "riverside family clinic",
            "acme auto",
            "the law offices of brown",
            "sunrise pediatrics",
            "city hardware",
        ),
        "number": ("five five five oh one two three", "two one two five five five oh one nine eight", "5550142"),
        "digits": ("four one two", "two two", "1034"),
        "day": ("monday", "tuesday", "friday", "next week"),
        "street": ("main street", "fifth avenue", "oak road"),
    },
    "es": {
        "name": (
            "juan",
            "ana",
            "maría",
            "josé",
            "lucía",
            "pedro",
            "carmen",
            "luis",
            "elena",
            "miguel",
            "sofía",
            "diego",
        ),
        "last": ("garcía", "lópez", "martínez", "rodríguez", "pérez", "sánchez", "torres", "flores"),
        "firm": ("clínica del sol", "farmacia central", "taller gómez", "consultorio dental", "ferretería moderna"),
        "number": ("cinco cinco cinco cero uno dos tres", "5550142", "dos uno dos cinco cinco cinco"),
        "digits": ("cuatro uno dos", "22"),
        "day": ("lunes", "martes", "viernes"),
        "street": ("calle mayor",),
    },
}
_HUMAN: Final[AnswererCategory] = "human"
Sequence = tuple[int, tuple[str, ...]]
_SEQUENCES: Final[dict[AnswererCategory, tuple[Sequence, ...]]] = {
    "human": (
        (28, ("greet",)),
        (8, ("greet", "identify")),
        (8, ("identify",)),
        (8, ("question",)),
        (5, ("greet", "question")),
        (12, ("absent",)),
        (4, ("greet", "absent")),
        (10, ("business",)),
        (5, ("service",)),
        (9, ("odd",)),
        (5, ("ramble",)),
        (3, ("opt_out",)),
        (2, ("greet", "opt_out")),
        (3, ()),
    ),
    "machine-vm": (
        (30, ("reach", "why", "leave")),
        (15, ("reach", "leave")),
        (12, ("why", "leave")),
        (6, ("leave",)),
        (10, ("short",)),
        (20, ("system", "after")),
        (3, ("reach", "why")),
        (4, ("system",)),
    ),
    "machine-ivr": (
        (45, ("welcome", "menu")),
        (15, ("welcome", "queue")),
        (15, ("menu",)),
        (15, ("menu", "menu")),
        (10, ("queue",)),
    ),
    "machine-unavailable": ((50, ("pre", "full")), (50, ("pre", "number"))),
    "call-screening": ((100, ("ask",)),),
}
"""Of each category: how often, and which phrases in which order. `()` is somebody who says nothing."""
MACHINE_SHARES: Final[dict[AnswererCategory, int]] = {
    "machine-vm": 55,
    "machine-ivr": 18,
    "machine-unavailable": 15,
    "call-screening": 12,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One call's first words: phrases, and the silence after each but the last."""

    language: str
    category: AnswererCategory
    part: Part
    kind: str
    phrases: tuple[str, ...]
    pauses_s: tuple[float, ...]
    pick_up_s: float
    word_s: float

    @property
    def text(self) -> str:
        """Return all of it."""
        return " ".join(self.phrases)


Pools = dict[str, dict[str, list[str]]]
"""Phrases by category and by their place in an opening."""
SHARED: Final = "pre"
"""What carriers say before an announcement ("we're sorry"): too little to be held out."""


@cache
def phrases(part: Part, language: str) -> Pools:
    """Read a part's phrases; what stands in the seen part too, in whatever place, is not held out."""
    found = _read(part, language)
    if part == "seen":
        return found
    seen = {p for pools in _read("seen", language).values() for pool in pools.values() for p in pool}
    return {
        category: {name: pool if name == SHARED else [p for p in pool if p not in seen] for name, pool in pools.items()}
        for category, pools in found.items()
    }


def _read(part: Part, language: str) -> Pools:
    path = Path(__file__).parent / "grammar" / f"{part}_{language}.yaml"
    loaded: Pools = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def phrase_count(part: Part) -> int:
    """Return how many phrases a part has, over both languages."""
    return sum(len(pool) for tag in LANGUAGES for pools in phrases(part, tag).values() for pool in pools.values())


def openings(part: Part, people: int, machines: int, seed: int) -> list[Opening]:
    """Make so many openings of either side, the same ones for the same seed."""
    chance = random.Random(f"{seed} {part}")
    categories = list(MACHINE_SHARES)
    drawn = chance.choices(categories, [MACHINE_SHARES[c] for c in categories], k=machines)
    wanted: list[AnswererCategory] = [*(_HUMAN for _ in range(people)), *drawn]
    return [_opening(part, category, chance) for category in wanted]


def _opening(part: Part, category: AnswererCategory, chance: random.Random) -> Opening:
    language = "en" if chance.random() < ENGLISH_SHARE else "es"
    weights = [weight for weight, _ in _SEQUENCES[category]]
    _, pools = chance.choices(_SEQUENCES[category], weights)[0]
    found = [chance.choice(phrases(part, language)[category][pool]) for pool in pools]
    spoken = tuple(phrase for phrase in (_filled(p, language, chance) for p in found) if phrase)
    between = PERSON_PAUSE_S if category == _HUMAN else MACHINE_PAUSE_S
    return Opening(
        language=language,
        category=category,
        part=part,
        kind="+".join(pools) or "silence",
        phrases=spoken,
        pauses_s=tuple(chance.uniform(*between) for _ in spoken[1:]),
        pick_up_s=chance.uniform(*PICK_UP_S),
        word_s=chance.uniform(*WORD_S),
    )


def _filled(phrase: str, language: str, chance: random.Random) -> str:
    for slot, words in _SLOTS[language].items():
        while f"{{{slot}}}" in phrase:
            phrase = phrase.replace(f"{{{slot}}}", chance.choice(words), 1)
    return phrase


def misheard(opening: Opening, share: float, chance: random.Random) -> Opening:
    """The same opening as a recogniser may write it: each word lost, or taken for another, by that share."""
    if not share:
        return opening
    others = _vocabulary(opening.language)

    def worse(phrase: str) -> str:
        kept = []
        for word in phrase.split():
            if chance.random() >= share:
                kept.append(word)
            elif chance.random() < 0.5:
                kept.append(chance.choice(others))
        return " ".join(kept)

    phrases = tuple(worse(phrase) for phrase in opening.phrases)
    return Opening(
        **{name: getattr(opening, name) for name in Opening.__slots__ if name != "phrases"},
        phrases=phrases,
    )


@cache
def _vocabulary(language: str) -> list[str]:
    """Words that stand for a word that was misheard: those of people and machines alike, as often as they occur."""
    return [
        word
        for part in PARTS
        for pools in phrases(part, language).values()
        for pool in pools.values()
        for phrase in pool
        for word in phrase.split()
        if not word.startswith("{")
    ]
