"""Who picks up: the last two digits of the number dialed choose how its phone behaves. Nothing is drawn by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rehearsal.sip_outcomes import OUTCOMES, SipOutcome

GREETING: Final = "Hello?"
"""What a person says who answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """How the phones of one range of numbers behave.

    `rings_for_s`: from 180 Ringing to the final response. `refusal`: a final response that is not an answer, at once or
    (`refuses_ringing`) after it rang; with `answers` False and no refusal it rings until the caller gives up.
    `dials_refused_max`: only so many dials of one number are refused, those after it are answered (None: all of them).
    `hangs_up_after_s`: after the mark that the far end's words begin with was heard (or, without one, 2 s of sound). `sends_audio`: False = not one RTP packet.
    """

    name: str
    endings: range
    rings_for_s: float = 0.0
    answers: bool = False
    refusal: SipOutcome | None = None
    refuses_ringing: bool = False
    dials_refused_max: int | None = None
    hangs_up_after_s: float | None = None
    sends_audio: bool = True
    says: str = GREETING


PERSONAS: Final = (
    Persona(name="answers", endings=range(10), rings_for_s=1.5, answers=True),
    Persona(name="answers_late", endings=range(10, 20), rings_for_s=6.0, answers=True),
    Persona(name="busy", endings=range(20, 30), refusal=OUTCOMES["busy_here"]),
    Persona(name="declines", endings=range(30, 40), rings_for_s=1.5, refusal=OUTCOMES["decline"], refuses_ringing=True),
    Persona(name="no_answer", endings=range(40, 50)),
    Persona(name="number_not_found", endings=range(50, 60), refusal=OUTCOMES["not_found"]),
    Persona(name="carrier_blocks", endings=range(60, 65), refusal=OUTCOMES["network_blocked"]),
    Persona(name="carrier_rejects", endings=range(65, 70), refusal=OUTCOMES["rejected"]),
    Persona(
        name="trunk_overloaded",
        endings=range(70, 80),
        rings_for_s=1.5,
        answers=True,
        refusal=OUTCOMES["cps_limit_exceeded"],
        dials_refused_max=1,  # the second dial of a number is answered
    ),
    Persona(name="hangs_up_early", endings=range(80, 90), rings_for_s=1.5, answers=True, hangs_up_after_s=0.5),
    Persona(name="never_sends_audio", endings=range(90, 100), rings_for_s=1.5, answers=True, sends_audio=False),
)
"""The whole table; the ranges cover 00 to 99 once (a test holds it)."""

_BY_ENDING: Final = {ending: persona for persona in PERSONAS for ending in persona.endings}


def persona_of(number: str) -> Persona:
    """The persona of a number: by its last two digits.

    Raises: ValueError when it has fewer than two.
    """
    digits = "".join(c for c in number if c.isdigit())
    if len(digits) < 2:
        raise ValueError("a phone number needs at least two digits")
    return _BY_ENDING[int(digits[-2:])]


def refusal_of(persona: Persona, dials_before: int) -> SipOutcome | None:
    """How this dial is refused, given how often the number was dialed before; None when it is not."""
    if persona.dials_refused_max is not None and dials_before >= persona.dials_refused_max:
        return None
    return persona.refusal


def masked(number: str) -> str:
    """A number as the control surface shows it: its last two digits only (they name the persona)."""
    return f"{'*' * max(0, len(number) - 2)}{number[-2:]}"
