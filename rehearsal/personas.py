"""Who picks up: the number dialed chooses how its phone behaves. Nothing is drawn by chance.

The last two digits choose; in the area codes of `SCRIPTED_AREAS` they choose a script (`scripts/*.yaml`), in the
language of the area, everywhere else a row of `PERSONAS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rehearsal.script import LANGUAGES, Script, script_of
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
    script: Script | None = None
    """What it does once it answered, instead of saying `says`."""
    language: str = "en"
    """Of its script: one of `script.LANGUAGES`."""


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

SCRIPTED_AREAS: Final[Mapping[str, str]] = {"646": "en", "917": "es"}
"""Area codes whose phones converse, and in which language."""
PER_SCRIPT: Final = 5
SCRIPT_NAMES: Final = (
    *("talks", "interrupts", "stays_silent", "presses_keys", "opts_out", "opts_out_by_key", "asks_for_person"),
    *("voicemail_beep", "voicemail_silence", "voicemail_long", "mailbox_full", "screening_connects"),
    *("screening_refuses", "menu", "not_available", "business_greeting", "answering_service", "hangs_up_amid"),
    *("late_hello", "says_nothing"),
)
"""The scripts, `PER_SCRIPT` endings each: 00-04 talks, 05-09 interrupts, and so on to 95-99 (a test holds it)."""


def _scripted(name: str, first: int, language: str) -> Persona:
    script = script_of(name)
    return Persona(
        name=name if language == "en" else f"{name}_{language}",
        endings=range(first, first + PER_SCRIPT),
        rings_for_s=script.rings_for_s,
        answers=True,
        script=script,
        language=language,
    )


SCRIPTED: Final[Mapping[str, tuple[Persona, ...]]] = {
    language: tuple(_scripted(name, place * PER_SCRIPT, language) for place, name in enumerate(SCRIPT_NAMES))
    for language in LANGUAGES
}
"""Phones that converse, by language."""

_BY_ENDING: Final = {ending: persona for persona in PERSONAS for ending in persona.endings}
_SCRIPTED_BY_ENDING: Final = {
    language: {ending: persona for persona in personas for ending in persona.endings}
    for language, personas in SCRIPTED.items()
}


def lines() -> list[str]:
    """Return everything that any phone may say: what can be recognised."""
    scripted = [line for language in LANGUAGES for name in SCRIPT_NAMES for line in script_of(name).lines(language)]
    return list(dict.fromkeys([*(persona.says for persona in PERSONAS), *scripted]))


def persona_of(number: str) -> Persona:
    """The persona of a number: by its last two digits, and its area code.

    Raises: ValueError when it has fewer than two.
    """
    digits = "".join(c for c in number if c.isdigit())
    if len(digits) < 2:
        raise ValueError("a phone number needs at least two digits")
    language = SCRIPTED_AREAS.get(digits[-10:-7])
    table = _BY_ENDING if language is None else _SCRIPTED_BY_ENDING[language]
    return table[int(digits[-2:])]


def refusal_of(persona: Persona, dials_before: int) -> SipOutcome | None:
    """How this dial is refused, given how often the number was dialed before; None when it is not."""
    if persona.dials_refused_max is not None and dials_before >= persona.dials_refused_max:
        return None
    return persona.refusal


def masked(number: str) -> str:
    """A number as the control surface shows it: its last two digits only (they name the persona)."""
    return f"{'*' * max(0, len(number) - 2)}{number[-2:]}"
