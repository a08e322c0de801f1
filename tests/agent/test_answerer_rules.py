"""Who took the call, by the words alone: rules in English and Spanish, on what people and machines really say."""

from __future__ import annotations

import pytest

from agent.answerer.rules import LANGUAGES, BadRules, Heard, RuleSet, normalised, rules_of

PEOPLE = [
    ("en", "Hello?"),
    ("en", "He is not available at the moment."),
    ("en", "Hi, I'm not available right now, who is this?"),
    ("en", "You can leave a message with me."),
    ("en", "Thank you for calling Lakeside Dental, this is Maria, how may I help you?"),
    ("en", "The office is closed, this is the answering service. May I take a message for the doctor?"),
    ("en", "Stop calling me. Take me off your list."),
    ("en", "I got your voicemail, what is it?"),
    ("es", "¿Bueno?"),
    ("es", "Ella no está disponible, ¿quién la llama?"),
    ("es", "No se encuentra, ¿gusta dejar un recado?"),
    ("es", "No me llamen más, por favor."),
]
MACHINES = [
    ("en", "machine-vm", "Hi, you’ve reached Bob. Leave a message after the beep."),
    ("en", "machine-vm", "Your call has been forwarded to an automatic voice message system."),
    ("en", "machine-vm", "You know what to do."),
    ("en", "machine-ivr", "For English, press 1. Para español, oprima el 2."),
    ("en", "machine-ivr", "All of our representatives are busy, please stay on the line."),
    ("en", "machine-unavailable", "At the tone … The mailbox is full and cannot accept any messages. Goodbye."),
    ("en", "machine-unavailable", "The number you have dialed is not in service."),
    (
        "en",
        "call-screening",
        "Hi, if you record your name and reason for calling, I'll see if this person is available.",
    ),
    ("es", "machine-vm", "Te has comunicado con Ana. Deja tu mensaje después del tono."),
    ("es", "machine-ivr", "Para español, marque uno."),
    ("es", "machine-unavailable", "El buzón de voz está lleno."),
    ("es", "call-screening", "Diga su nombre y el motivo de su llamada."),
]


@pytest.mark.parametrize(("language", "words"), PEOPLE)
def test_a_person_is_never_taken_for_a_machine(language: str, words: str) -> None:
    """Hanging up on a person is the worst error; a doubt counts as a person."""
    found = rules_of(language).judge(Heard(text=normalised(words)))
    assert found.category in {"human", "uncertain"}, found


@pytest.mark.parametrize(("language", "category", "words"), MACHINES)
def test_a_machine_is_known_for_what_it_is(language: str, category: str, words: str) -> None:
    """What is done with it hangs on which machine it is."""
    found = rules_of(language).judge(Heard(text=normalised(words)))
    assert found.category == category, found
    assert found.rule.startswith(f"{language}.")


def test_words_are_read_without_accents_case_and_punctuation() -> None:
    """Recognisers write as they like; composed or not, curly or not."""
    for written in ("You’ve REACHED José!", "you've reached José", "  youve… reached, jose "):
        assert normalised(written) == "youve reached jose"


def test_every_rule_has_an_id_of_its_language() -> None:
    """An id on the log names one line of one file for ever."""
    for language in LANGUAGES:
        ids = rules_of(language).ids
        assert len(ids) == len(set(ids))
        assert all(i.split(".")[0] == language for i in ids)


def test_a_language_without_rules_is_judged_by_the_english_ones() -> None:
    """A campaign in another language still knows a carrier's greeting."""
    assert rules_of("fr-CA").language == "en"
    assert rules_of("es-MX").language == "es"


def test_a_rule_that_cannot_be_read_is_a_bug_that_is_found() -> None:
    """A pattern that does not compile, or names a macro that is not there, is refused when it is loaded."""
    from pydantic import TypeAdapter

    from agent.answerer import rules

    document = {"language": "en", "macros": {}, "tone_promised": "x", "connecting": "y"}
    for pattern in ("(", "<nothing>"):
        rule = {"id": "en.vm.broken", "category": "machine-vm", "weight": 3, "pattern": pattern}
        with pytest.raises(BadRules):
            RuleSet(TypeAdapter(rules._File).validate_python(document | {"rules": [rule]}))
