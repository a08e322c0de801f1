"""What a plain phrase list would say, as many dialers ship one: a machine where any phrase occurs, else a person.

With `WORDS_MIN`, the rule of jambonz (lib/utils/amd-utils.js): nine words are a machine too.
"""

from __future__ import annotations

import random
from typing import Final

from agent.answerer.rules import normalised
from bench.amd.grammar import Opening
from bench.amd.replaying import Judged, utterances

WORDS_MIN: Final = 9
PHRASES: Final = {
    "en": (
        "leave a message",
        "leave your name",
        "leave your message",
        "after the tone",
        "at the tone",
        "after the beep",
        "record your message",
        "voicemail",
        "voice mail",
        "mailbox",
        "not available",
        "unavailable",
        "cant come to the phone",
        "cannot take your call",
        "cant take your call",
        "call has been forwarded",
        "youve reached",
        "you have reached",
        "get back to you",
        "return your call",
        "press one",
        "not in service",
        "state your name",
        "is full",
    ),
    "es": (
        "deje su mensaje",
        "deja tu mensaje",
        "deje un mensaje",
        "despues del tono",
        "despues de la senal",
        "buzon de voz",
        "no esta disponible",
        "no puedo atender",
        "no puedo contestar",
        "se ha comunicado con",
        "grabe su mensaje",
        "oprima uno",
        "marque uno",
        "presione uno",
        "no existe",
        "fuera de servicio",
        "diga su nombre",
        "esta lleno",
    ),
}


def phrase_list(opening: Opening, _: random.Random) -> Judged:
    """Judge the first utterance by the list."""
    return _judged(opening, words_min=None)


def phrase_list_or_length(opening: Opening, _: random.Random) -> Judged:
    """Judge the first utterance by the list, or by its length."""
    return _judged(opening, words_min=WORDS_MIN)


def _judged(opening: Opening, words_min: int | None) -> Judged:
    first = utterances(opening)[:1]
    text = normalised(first[0][0]) if first else ""
    is_machine = any(phrase in text for phrase in PHRASES[opening.language])
    if words_min is not None and len(text.split()) >= words_min:
        is_machine = True
    return Judged(
        opening=opening,
        category="machine-vm" if is_machine else "human",
        rule="phrase_list",
        latency_s=None,
    )
