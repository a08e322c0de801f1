"""The rules by which an opening is judged: patterns per language, as data, each with an id and a weight.

A rule that matches adds its weight to its category. A machine is believed from `DECIDES` on, and only where it outweighs
what speaks for a person: hanging up on a person is the worst error. Source: issue S3 item 3; reference/field.md E.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from schemas.facts import AnswererCategory

DECIDES: Final = 3
"""Weight from which a machine is believed."""
HEARD_CHARACTERS_MAX: Final = 2_000
"""More of an opening is not looked at: it is bounded, as everything."""
LANGUAGE_OTHERWISE: Final = "en"
"""Whose rules judge a language that has none: greetings of carriers are English more often than not."""
LANGUAGES: Final = ("en", "es")
NOTHING_MATCHED: Final = "no_rule"
WEAK: Final = "weak_evidence"

_STRICT: Final = ConfigDict(extra="forbid")
_ORDER: Final[tuple[AnswererCategory, ...]] = ("machine-unavailable", "call-screening", "machine-vm", "machine-ivr")
"""Which machine it is when the weights are equal: the one where a wrong word costs most comes first."""
_MACRO: Final = re.compile(r"<([a-z_]+)>")


class BadRules(Exception):
    """A file of rules does not follow the format: a bug of this package, found when it is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An opening as it is judged: its words, normalised, and what its sound says besides."""

    text: str
    seconds: float = 0.0
    """How long the first utterance lasted so far."""
    silence_before_s: float = 0.0
    finals: int = 0

    @property
    def words(self) -> int:
        """Return how many words were heard."""
        return len(self.text.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of evidence. Every condition that is given must hold."""

    __pydantic_config__ = _STRICT
    id: Annotated[str, Field(pattern=r"^[a-z]{2}(\.[a-z0-9_]+){2}$")]
    category: Literal["human", "machine-vm", "machine-ivr", "machine-unavailable", "call-screening"]
    weight: Annotated[int, Field(ge=1, le=9)]
    pattern: str | None = None
    words_min: Annotated[int, Field(ge=1)] | None = None
    words_max: Annotated[int, Field(ge=1)] | None = None
    seconds_min: Annotated[float, Field(gt=0)] | None = None
    silence_before_min_s: Annotated[float, Field(gt=0)] | None = None
    finals_min: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    __pydantic_config__ = _STRICT
    language: Literal["en", "es"]
    macros: dict[Annotated[str, Field(pattern=r"^[a-z_]+$")], str]
    tone_promised: str
    connecting: str
    rules: Annotated[list[Rule], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the rules say of an opening, and how sure: `human` without a rule of its own is `plain`."""

    category: AnswererCategory
    rule: str
    weight: int
    """Of the winning side, summed."""


class RuleSet:
    """All rules of one language, compiled."""

    def __init__(self, document: _File) -> None:
        self.language = document.language
        self._macros = document.macros
        self._rules = [(rule, self._compiled(rule.pattern) if rule.pattern else None) for rule in document.rules]
        self._tone_promised = self._compiled(document.tone_promised)
        self._connecting = self._compiled(document.connecting)
        ids = [rule.id for rule in document.rules]
        if len(ids) != len(set(ids)):
            raise BadRules(f"{document.language}: an id stands twice")
        if wrong := [i for i in ids if not i.startswith(f"{document.language}.")]:
            raise BadRules(f"{document.language}: {wrong[0]} is of another language")

    def _compiled(self, pattern: str) -> re.Pattern[str]:
        try:
            return re.compile(_MACRO.sub(lambda found: f"(?:{self._macros[found[1]]})", pattern))
        except (re.error, KeyError) as error:
            raise BadRules(f"{self.language}: {error}") from error

    @property
    def ids(self) -> tuple[str, ...]:
        """Return every rule's id."""
        return tuple(rule.id for rule, _ in self._rules)

    def matching(self, heard: Heard) -> list[Rule]:
        """Return the rules that hold, heaviest first."""
        found = [rule for rule, pattern in self._rules if _holds(rule, pattern, heard)]
        return sorted(found, key=lambda rule: -rule.weight)

    def judge(self, heard: Heard) -> Finding:
        """Weigh what was heard."""
        found = self.matching(heard)
        weights = {category: sum(r.weight for r in found if r.category == category) for category in ("human", *_ORDER)}
        machine = max(_ORDER, key=lambda category: weights[category])  # the first of equals
        person, evidence = weights["human"], sum(weights[category] for category in _ORDER)
        if evidence >= DECIDES and evidence > person:
            return Finding(category=machine, rule=_heaviest(found, machine), weight=evidence)
        if person:
            return Finding(category="human", rule=_heaviest(found, "human"), weight=person)
        if evidence:
            return Finding(category="uncertain", rule=WEAK, weight=evidence)
        return Finding(category="human", rule=NOTHING_MATCHED, weight=0)

    def promises_tone(self, text: str) -> bool:
        """Tell whether a greeting says that a tone will come: then silence alone is not its end so soon."""
        return self._tone_promised.search(text) is not None

    def is_connecting(self, text: str) -> bool:
        """Tell whether a call screener says that it asks its owner now: nothing to judge, somebody may come."""
        return self._connecting.search(text) is not None


def _holds(rule: Rule, pattern: re.Pattern[str] | None, heard: Heard) -> bool:
    bounds = (
        (rule.words_min, heard.words),
        (rule.seconds_min, heard.seconds),
        (rule.silence_before_min_s, heard.silence_before_s),
        (rule.finals_min, heard.finals),
    )
    if any(least is not None and value < least for least, value in bounds):
        return False
    if rule.words_max is not None and heard.words > rule.words_max:
        return False
    return pattern is None or pattern.search(heard.text) is not None


def _heaviest(found: list[Rule], category: AnswererCategory) -> str:
    return next(rule.id for rule in found if rule.category == category)


def normalised(text: str) -> str:
    """Write what was heard as the rules read it: lower case, without accents, apostrophes and punctuation."""
    decomposed = unicodedata.normalize("NFKD", text[:HEARD_CHARACTERS_MAX]).casefold()
    plain = "".join(c for c in decomposed if not unicodedata.combining(c) and c not in "'’`ʼ")
    return " ".join("".join(c if c.isalnum() else " " for c in plain).split())


@functools.cache
def rules_of(language: str) -> RuleSet:
    """Return the rules of a language tag (`es-MX`: those of `es`), loaded once. Raises: BadRules."""
    subtag = language.partition("-")[0].lower()
    return _load(subtag if subtag in LANGUAGES else LANGUAGE_OTHERWISE)


@functools.cache
def _load(language: str) -> RuleSet:
    content = resources.files("agent.answerer").joinpath(f"rules_{language}.yaml").read_text(encoding="utf-8")
    document: Any = yaml.safe_load(content)
    try:
        return RuleSet(TypeAdapter(_File).validate_python(document))
    except ValidationError as error:
        raise BadRules(f"{language}: {error}") from error
