"""The sound-level run: lines with voices, noise and beeps through the answerer's detector of beeps and its clock.

It proves timing only: the words come from the script and not from a recogniser, at the moment at which one would give
them; speech, silence and beeps are found in the sound itself.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from agent.answerer.answerer import Answerer, GreetingOver, Verdict
from bench.amd.replaying import happenings_of
from bench.amd.telephone import RATE, Sounding

FRAME_S: Final = 0.05
"""As the ear gives them (`agent/ear.FRAME_MS`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What came of one line, in seconds."""

    line: Sounding
    verdict: Verdict | None
    latency_s: float | None
    """From the end of the speech before the verdict; None where nothing was said."""
    over: GreetingOver | None
    over_at: float | None
    """When the agent takes the greeting as over, and would speak."""
    noticed_s: float | None
    """From the true end of the beep to the moment when the agent knows of it."""


def listen(line: Sounding, chance: random.Random) -> Timed:
    """Play a line to an answerer, frame by frame."""
    answerer = Answerer(line.opening.language, answered_at=0.0)
    told = happenings_of(line.spoken, chance)
    verdict_at = over_at = None
    size = round(FRAME_S * RATE)
    for first in range(0, len(line.samples) - size + 1, size):
        at = (first + size) / RATE
        while told and told[0].at <= at:
            happening = told.pop(0)
            if happening.kind == "started":
                answerer.speech_started(happening.at)
            elif happening.kind == "words":
                answerer.heard(happening.text, happening.at, happening.ended_at)
            else:
                answerer.speech_ended(happening.at)
        answerer.sound(line.samples[first : first + size], at)
        if answerer.verdict is not None and verdict_at is None:
            verdict_at = at
        if answerer.greeting_over is not None:
            over_at = at
            break
    before = [end for _, _, end in line.spoken if verdict_at is not None and end <= verdict_at]
    latency_s = None if not line.spoken or verdict_at is None else verdict_at - before[-1] if before else 0.0
    over = answerer.greeting_over
    beeped = line.beep is not None and over is not None and over.how == "beep"
    return Timed(
        line=line,
        verdict=answerer.verdict,
        latency_s=latency_s,
        over=over,
        over_at=over_at,
        noticed_s=over_at - line.beep[1] if beeped and over_at is not None and line.beep is not None else None,
    )
