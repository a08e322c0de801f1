"""The answerer's verdict and the end of a greeting, in time that the test owns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from agent.answerer import answerer as states
from agent.answerer.answerer import Answerer, GreetingOver, Verdict

LATE_S = 0.4
"""From the end of speech to its words: the recogniser's silence, and its own time."""


@dataclass
class Line:
    """A callee's line: what is said on it is told as the ear would tell it."""

    language: str = "en"
    at: float = 0.0
    answerer: Answerer = field(init=False)

    def __post_init__(self) -> None:
        self.answerer = Answerer(self.language, 0.0)

    def says(self, words: str, seconds: float | None = None) -> float:
        """Say it; return when it ended. The words are told `LATE_S` later."""
        self.answerer.speech_started(self.at)
        ended_at = self.at + (0.35 * len(words.split()) if seconds is None else seconds)
        self.until(ended_at + LATE_S)
        self.answerer.heard(words, self.at, ended_at)
        self.answerer.speech_ended(self.at)
        return ended_at

    def quiet(self, seconds: float) -> None:
        self.until(self.at + seconds)

    def until(self, at: float) -> None:
        while self.at < at:
            self.at = min(at, self.at + 0.05)
            self.answerer.tick(self.at)

    def beeps(self, seconds: float = 0.4) -> float:
        """Sound a tone between two silences, as sound; return when it ended."""
        tone = np.sin(2 * np.pi * 1000 * np.arange(round(seconds * 16_000)) / 16_000) * 8000
        sound = np.concatenate([np.zeros(1600), tone, np.zeros(3200)]).astype(np.int16)
        began = self.at
        for first in range(0, len(sound), 800):
            self.at = began + (first + 800) / 16_000
            self.answerer.sound(sound[first : first + 800], self.at)
        return began + 0.1 + seconds

    @property
    def verdict(self) -> Verdict:
        assert self.answerer.verdict is not None
        return self.answerer.verdict

    @property
    def over(self) -> GreetingOver:
        assert self.answerer.greeting_over is not None
        return self.answerer.greeting_over


def test_a_persons_question_is_answered_at_once() -> None:
    """What only a person says needs no silence after it."""
    line = Line()
    line.quiet(0.5)
    line.says("Hello, who is this?")
    assert line.verdict.category == "human"
    assert line.verdict.latency_ms == round(LATE_S * 1000)


def test_a_bare_greeting_waits_for_a_machines_next_sentence() -> None:
    """A hello alone may go on as a voicemail's greeting."""
    person, machine = Line(), Line()
    for line in (person, machine):
        line.says("Hello.")
        assert line.answerer.verdict is None
    person.quiet(1.0)
    assert person.verdict.category == "human"
    assert person.verdict.latency_ms <= 750
    machine.quiet(0.2)
    machine.says("You have reached Bob, please leave a message after the beep.")
    assert machine.verdict.category == "machine-vm"


def test_a_question_after_a_machines_sentence_makes_it_a_person() -> None:
    """An office that is closed may still have somebody at the telephone."""
    line = Line()
    line.says("Our offices are currently closed.")
    line.quiet(0.2)
    line.says("This is the answering service, how may I help you?")
    assert line.verdict.category == "human"


def test_who_says_nothing_counts_as_a_person() -> None:
    """Silence is a doubt, and comes to its end."""
    line = Line()
    line.quiet(states.NO_SPEECH_S + 0.1)
    assert (line.verdict.category, line.verdict.rule, line.verdict.evidence) == ("uncertain", "silence", "")
    assert not line.verdict.is_machine


def test_speech_that_nobody_understood_counts_as_a_person() -> None:
    """A recogniser that gives no words proves nothing."""
    line = Line()
    line.answerer.speech_started(0.2)
    line.until(1.0)
    line.answerer.speech_ended(1.0)
    line.quiet(states.WORDS_WAIT_S + 0.1)
    assert (line.verdict.category, line.verdict.rule) == ("uncertain", "no_words")


def test_the_evidence_is_a_hash_and_never_the_words() -> None:
    """The same words give the same evidence, however they are written."""
    lines = [Line(), Line()]
    for line, words in zip(lines, ("Who is this?", "who is THIS"), strict=True):
        line.says(words)
    first, second = (line.verdict.evidence for line in lines)
    assert first == second
    assert len(first) == 2 * states.EVIDENCE_BYTES
    assert "who" not in first


def test_a_verdict_says_what_it_was_judged_by_besides_the_words() -> None:
    """Enough to judge again by other rules of time, and nobody's words."""
    line = Line()
    line.quiet(0.5)
    line.says("Hello, who is this?", seconds=1.2)
    verdict = line.verdict
    assert (verdict.words, verdict.finals, verdict.silence_before_ms, verdict.speech_ms) == (4, 1, 500, 1200)
    assert verdict.weight >= 4


def test_an_opt_out_is_no_machine() -> None:
    """Whoever asks to be left alone is there to ask."""
    line = Line()
    line.says("Take me off your list, do not leave a message, stop calling.")
    assert line.verdict.category == "human"


def test_a_plain_machine_is_known_while_it_still_speaks() -> None:
    """A long greeting is not waited for where it is plain enough."""
    line = Line()
    line.answerer.speech_started(0.3)
    line.until(6.0)
    line.answerer.heard("You have reached Bob, please leave a message after the tone", 6.0)
    assert line.verdict.category == "machine-vm"
    assert line.verdict.latency_ms == 0


def voicemail(greeting: str = "You have reached Bob, please leave a message.") -> Line:
    line = Line()
    line.quiet(0.3)
    line.says(greeting)
    line.quiet(0.3)
    return line


def test_a_greeting_is_over_with_its_beep() -> None:
    """Known within a frame or two of the beep's end."""
    line = voicemail("You have reached Bob, please leave a message after the beep.")
    ended_at = line.beeps()
    assert line.over.how == "beep"
    assert line.over.takes_message
    assert abs(line.over.at - ended_at) < 0.05


def test_a_greeting_without_a_tone_is_over_with_silence() -> None:
    """No tone was promised: nobody waits for one."""
    line = Line()
    ended_at = line.says("You have reached Bob, please leave a message.")
    line.until(ended_at + states.SILENCE_S - 0.1)
    assert line.answerer.greeting_over is None
    line.quiet(0.2)
    assert (line.over.how, line.over.at) == ("silence", ended_at)


def test_a_promised_tone_is_waited_for_longer() -> None:
    """A message before the beep would be lost."""
    line = Line()
    ended_at = line.says("Please leave a message after the tone.")
    line.until(ended_at + states.SILENCE_BEFORE_TONE_S - 0.1)
    assert line.answerer.greeting_over is None
    line.quiet(0.2)
    assert line.over.how == "silence"


def test_a_greeting_without_an_end_is_cut_off() -> None:
    """Nobody listens to a machine for ever."""
    line = voicemail()
    while line.answerer.greeting_over is None:
        line.answerer.speech_started(line.at)
        line.quiet(1.0)
    assert line.over.how == "cap"
    assert line.at < states.DECIDE_MAX_S + states.GREETING_MAX_S + 1


def test_a_mailbox_that_turns_out_to_be_full_takes_no_message() -> None:
    """What is said after the verdict counts for what is done."""
    line = Line()
    line.says("Your call has been forwarded to voicemail, the person you are calling is not available.")
    line.quiet(0.5)
    assert line.verdict.category == "machine-vm"
    line.says("The mailbox is full and cannot accept any messages. Goodbye.")
    line.quiet(5.0)
    assert not line.over.takes_message


def test_a_beep_before_any_word_is_the_networks() -> None:
    """SIT tones and the like say nothing of who answers."""
    line = Line()
    line.beeps()
    line.says("You have reached Bob, please leave a message.")
    line.quiet(0.5)
    assert line.answerer.greeting_over is None


def test_a_screener_is_judged_again_after_it_was_answered() -> None:
    """A call to stay on the line is nobody yet; then somebody is there."""
    line = Line()
    line.says("Please record your name and reason for calling and I will see if this person is available.")
    line.quiet(1.0)
    assert line.verdict.category == "call-screening"
    line.answerer.judge_again(line.at)
    line.says("Thank you, please stay on the line.")
    line.quiet(4.0)
    assert line.answerer.verdict is None
    line.says("Hello?")
    line.quiet(1.0)
    assert line.verdict.category == "human"


def test_a_screener_that_puts_through_to_a_mailbox_is_a_machine() -> None:
    """What comes after the screener may be its owner's voicemail."""
    line = Line()
    line.says("State your name and the purpose of your call.")
    line.quiet(1.0)
    line.answerer.judge_again(line.at)
    line.says("Bob is not available, please leave a message after the tone.")
    line.quiet(1.0)
    assert line.verdict.category == "machine-vm"


def test_a_screener_whose_owner_never_comes_is_not_waited_for_for_ever() -> None:
    """Bounded, and then a doubt."""
    line = Line()
    line.says("State your name and the purpose of your call.")
    line.quiet(1.0)
    line.answerer.judge_again(line.at)
    line.quiet(states.CONNECTING_MAX_S + 0.2)
    assert line.verdict.category == "uncertain"


def test_a_person_who_is_doubted_stays_one_unless_a_machine_speaks() -> None:
    """A greeting that pauses long after its first words is found out all the same."""
    line = Line()
    line.says("Hello, this is Bob.")
    line.quiet(1.5)
    assert line.verdict.category == "uncertain"
    line.answerer.doubt(line.at)
    line.quiet(1.0)
    assert line.answerer.verdict is None
    line.says("I can't come to the phone, please leave a message after the beep.")
    line.quiet(1.0)
    assert line.verdict.category == "machine-vm"


def test_a_person_is_not_doubted_for_ever() -> None:
    """Words about messages late in a call are a person's."""
    line = Line()
    line.says("Hello, this is Bob.")
    line.quiet(1.5)
    line.answerer.doubt(line.at)
    line.quiet(states.DOUBTED_MAX_S)
    line.says("Please leave a message after the beep.")
    line.quiet(2.0)
    assert line.answerer.verdict is None


def test_spanish_is_judged_by_its_own_rules() -> None:
    """And its rule's id says so."""
    line = Line(language="es-MX")
    line.says("Ha llamado a Ana, deje su mensaje después de la señal.")
    line.quiet(1.0)
    assert line.verdict.category == "machine-vm"
    assert line.verdict.rule.startswith("es.vm.")
