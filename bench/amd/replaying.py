"""An opening replayed to a judge in simulated time, as the ear would tell of it: speech, words, silence, and the ticks.

The recogniser of the replay is a plain one: it notices speech 60 ms late, takes 300 ms of silence for an end
(`agent/recogniser.ENDPOINTING_MS`), and needs 50 to 250 ms more for the words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from agent.answerer.answerer import Answerer
from bench.amd.grammar import Opening
from schemas.facts import AnswererCategory

NOTICED_S: Final = 0.06
INTERIM_S: Final = 0.4
"""Speech that goes on before its last pause was told of is noticed by its first words only (livekit-plugins-deepgram)."""
ENDPOINTING_S: Final = 0.3
WORDS_MAX: Final = 14
"""Words of one final: a service settles a long sentence piece by piece."""
FINAL_S: Final = (0.05, 0.25)
TICK_S: Final = 0.05
PATIENCE_S: Final = 25.0
"""After an opening's last word a judge has so long; none needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that the ear tells. `ended_at`: when the speech before it really ended."""

    at: float
    kind: Literal["started", "words", "ended"]
    text: str = ""
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a judge made of one opening."""

    opening: Opening
    category: AnswererCategory
    rule: str
    latency_s: float | None
    """From the end of the speech before the verdict; None where nothing was said."""


def utterances(opening: Opening) -> list[tuple[str, float, float]]:
    """Return what a recogniser takes for one utterance each: words, start, end. Short pauses join phrases."""
    found: list[tuple[str, float, float]] = []
    at = opening.pick_up_s
    for phrase, pause_s in zip(opening.phrases, (*opening.pauses_s, 0.0), strict=False):
        ends = at + max(1, len(phrase.split())) * opening.word_s
        if found and at - found[-1][2] < ENDPOINTING_S:
            found[-1] = (f"{found[-1][0]} {phrase}", found[-1][1], ends)
        else:
            found.append((phrase, at, ends))
        at = ends + pause_s
    return found


def happenings(opening: Opening, chance: random.Random) -> list[Happening]:
    """Return all that the ear tells of an opening, in order."""
    return happenings_of(utterances(opening), chance)


def happenings_of(spoken: list[tuple[str, float, float]], chance: random.Random) -> list[Happening]:
    """Return all that the ear tells of utterances: words, start, end."""
    found: list[Happening] = []
    ended_at = 0.0
    for text, starts, ends in spoken:
        words_at = ends + ENDPOINTING_S + chance.uniform(*FINAL_S)
        noticed_at = starts + (NOTICED_S if starts + NOTICED_S > ended_at else INTERIM_S)
        found.append(Happening(at=max(noticed_at, ended_at + 0.001), kind="started"))
        ended_at = words_at + 0.001
        found += _words(text.split(), starts, ends, words_at)
        found.append(Happening(at=ended_at, kind="ended", ended_at=ends))
    return sorted(found, key=lambda h: h.at)


def _words(words: list[str], starts: float, ends: float, last_at: float) -> list[Happening]:
    """Return an utterance's finals: a long one comes in pieces, as services send them."""
    found = []
    for first in range(0, len(words), WORDS_MAX):
        piece = words[first : first + WORDS_MAX]
        ended_at = starts + (ends - starts) * (first + len(piece)) / len(words)
        at = min(last_at, ended_at + ENDPOINTING_S)
        found.append(Happening(at=at, kind="words", text=" ".join(piece), ended_at=ended_at))
    if found:
        found[-1] = Happening(at=last_at, kind="words", text=found[-1].text, ended_at=ends)
    return found


def ours(opening: Opening, chance: random.Random) -> Judged:
    """Replay an opening to the agent's own answerer."""
    answerer = Answerer(opening.language, answered_at=0.0)
    spoken = [(start, end) for _, start, end in utterances(opening)]
    ends = [end for _, end in spoken]
    for happening, at in _with_ticks(happenings(opening, chance), max(ends, default=0.0) + PATIENCE_S):
        if happening is None:
            if any(start <= at <= end for start, end in spoken):
                answerer.sounding(at)
            answerer.tick(at)
        elif happening.kind == "started":
            answerer.speech_started(at)
        elif happening.kind == "ended":
            answerer.speech_ended(at)
        else:
            answerer.heard(happening.text, at, happening.ended_at)
        if answerer.verdict is not None:
            before = [end for end in ends if end <= at]
            latency_s = None if not ends else at - before[-1] if before else 0.0
            verdict = answerer.verdict
            return Judged(opening=opening, category=verdict.category, rule=verdict.rule, latency_s=latency_s)
    raise AssertionError("an opening was never judged")


def _with_ticks(told: list[Happening], until: float) -> Iterator[tuple[Happening | None, float]]:
    at, left = 0.0, list(told)
    while at < until:
        at += TICK_S
        while left and left[0].at <= at:
            happening = left.pop(0)
            yield happening, happening.at
        yield None, at
