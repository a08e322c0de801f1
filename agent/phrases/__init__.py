"""The sentences that the agent says by itself, per language; a campaign may say them in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import Final, Literal, get_args

import yaml

from agent.speech import SpeechFailed
from schemas.conversation import Phrases

Name = Literal["silence", "goodbye", "fallback", "wait", "opt_out"]
NAMES: Final[tuple[Name, ...]] = get_args(Name)


def announcement(language: str, own: Phrases) -> str:
    """Return what is said before a call is recorded. Raises: SpeechFailed."""
    return own.recording or _of_language(language.partition("-")[0])["recording"]


@cache
def _of_language(language: str) -> Mapping[str, str]:
    file = resources.files(__name__) / f"{language}.yaml"
    if not file.is_file():
        raise SpeechFailed("no_voice")
    known: Mapping[str, str] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return known


def phrases(language: str, own: Phrases) -> dict[Name, str]:
    """Return every sentence: the campaign's where it has one, else the language's. Raises: SpeechFailed."""
    known, given = _of_language(language.partition("-")[0]), asdict(own)
    return {name: given.get(name) or known[name] for name in NAMES}
