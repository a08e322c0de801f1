"""Does somebody ask not to be called again? Patterns per language, as data with ids; the id is the evidence.

Words are compared folded: lower case, no accents, no punctuation. A pattern with `unless` does not count where that
matches too ("do not stop calling" is not a wish to be left alone).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import yaml

WORDS_CHARS_MAX: Final = 2_000
"""Of what was heard, from its end, is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One way to say it."""

    id: str
    words: re.Pattern[str]
    unless: re.Pattern[str] | None


@cache
def patterns(language: str) -> tuple[Pattern, ...]:
    """Return a language's patterns; none for a language that has none."""
    file = resources.files(__name__) / f"{language}.yaml"
    if not file.is_file():
        return ()
    rows = yaml.safe_load(file.read_text(encoding="utf-8"))["patterns"]
    return tuple(
        Pattern(
            id=row["id"],
            words=re.compile(rf"\b(?:{row['words']})\b"),
            unless=re.compile(rf"\b(?:{row['unless']})\b") if "unless" in row else None,
        )
        for row in rows
    )


def folded(text: str) -> str:
    """Write words as the patterns expect them."""
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    kept = "".join(c for c in plain if not unicodedata.combining(c))
    kept = kept.replace("n't", "nt").replace("'", "")
    return " ".join("".join(c if c.isalnum() else " " for c in kept).split())


def asked(text: str, language: str) -> str | None:
    """Return the id of the pattern by which somebody asks not to be called again."""
    words = folded(text[-WORDS_CHARS_MAX:])
    for pattern in patterns(language.partition("-")[0]):
        if pattern.words.search(words) and not (pattern.unless and pattern.unless.search(words)):
            return pattern.id
    return None
