"""Who took the call: a pure state machine over what was heard, with time passed in (monotonic seconds, never going back).

It is fed the ear's events and the callee's sound. It gives one verdict when the first utterance is over, may be asked to
judge again (a call screener was answered; a person's greeting turns out to be a machine's), and says when a machine's
greeting is over: by its beep, or by silence. Source: issue S3 item 3; reference/livekit.md 2.7, reference/field.md E.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from agent.answerer.beep import SAMPLE_RATE, Beep, Listener
from agent.answerer.rules import DECIDES, Finding, Heard, RuleSet, normalised, rules_of
from schemas.facts import AnswererCategory

NO_SPEECH_S: Final = 3.0
"""From the answer: who has said nothing by then is spoken to as to a person."""
DECIDE_MAX_S: Final = 15.0
"""From the answer, or from being asked again: then it is judged, whatever is still being said."""
CONNECTING_MAX_S: Final = 40.0
"""From a screener's "stay on the line": how long its owner may take to come."""
PERSON_PAUSE_S: Final = 0.0
"""Silence after a sentence that only a person says."""
GREETING_PAUSE_S: Final = 0.7
"""After a bare greeting: a machine's next sentence has mostly begun by then."""
MACHINE_PAUSE_S: Final = 0.7
"""After a machine's sentence: a person's question may follow ("our office is closed, how may I help you")."""
DOUBT_PAUSE_S: Final = 1.05
"""After little evidence, or words that no rule knows: a machine goes on, a person waits."""
SOUND_HOLDS_S: Final = 2.0
"""How long sound alone, without words, may keep a verdict waiting: a recogniser is late to say that speech goes on."""
WORDS_WAIT_S: Final = 1.0
"""From the end of an utterance to its words, at most."""
SURELY: Final = 3 * DECIDES
"""A machine as plain as this is believed while it still speaks."""
SILENCE_S: Final = 1.8
"""After a machine's last word: nothing more will come."""
SILENCE_BEFORE_TONE_S: Final = 4.0
"""The same, where the greeting promised a tone: the beep may take its time, and a message before it is lost."""
RECOGNISER_LATE_S: Final = 1.0
"""How much longer the recogniser must have heard nothing, where the line is too noisy to find silence in the sound."""
GREETING_MAX_S: Final = 30.0
"""From the verdict: then the greeting counts as over, whatever is heard."""
DOUBTED_MAX_S: Final = 20.0
"""From the answer, or the last being asked again: a person who spoke so long stays one."""
FINALS_MAX: Final = 64
EVIDENCE_BYTES: Final = 8
UNHEARD: Final = "no_words"
SILENT: Final = "silence"

How = Literal["beep", "silence", "cap"]
MACHINES: Final[frozenset[AnswererCategory]] = frozenset({"machine-vm", "machine-ivr", "machine-unavailable"})
Samples = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `AnswererDetected` says: `evidence` is a hash of what was heard, never the words."""

    category: AnswererCategory
    rule: str
    evidence: str
    latency_ms: int
    """From the end of the utterance that was judged; 0 where it was still going on."""
    weight: int
    """Of the evidence, as the rules sum it; 0 where there is none."""
    words: int
    finals: int
    speech_ms: int
    silence_before_ms: int

    @property
    def is_machine(self) -> bool:
        """Tell whether nobody is there who could listen now; a screener has somebody behind it, `uncertain` may be one."""
        return self.category in MACHINES


@dataclass(frozen=True, slots=True, kw_only=True)
class GreetingOver:
    """A machine's greeting is over, and how that was known. `at` is when it ended, not when it was noticed."""

    how: How
    at: float
    takes_message: bool
    """False where the rest of the greeting said that no message can be left."""


class Answerer:
    """One callee, from the answer on. Feed it in the order of time; look at `verdict` and `greeting_over` after each."""

    def __init__(self, language: str, answered_at: float) -> None:
        self._rules: RuleSet = rules_of(language)
        self._listener = Listener()
        self._beep: Beep | None = None
        self._beep_wanted_from = answered_at
        self._loud_at: float | None = None
        self.verdict: Verdict | None = None
        self.greeting_over: GreetingOver | None = None
        self._begin(answered_at)

    def _begin(self, at: float) -> None:
        self._from = self._now = self._began_at = at
        self._finals: list[str] = []
        self._speaking = False
        self._first_started_at: float | None = None
        self._last_started_at: float | None = None
        self._last_ended_at: float | None = None
        self._words_at: float | None = None
        self._words_end_at: float | None = None
        self._verdict_at: float | None = None
        self._finding: Finding | None = None
        self._machines_only = False
        self._connecting = False

    def speech_started(self, at: float) -> None:
        """Somebody speaks."""
        self._speaking, self._finding = True, None
        self._last_started_at = at
        if self._first_started_at is None:
            self._first_started_at = at
        self.tick(at)

    def speech_ended(self, at: float) -> None:
        """They stopped, as the recogniser knows only after some silence: the words themselves say better when."""
        self._speaking, self._finding = False, None
        if self._words_end_at is None or self._words_end_at <= (self._last_started_at or 0.0):
            self._last_ended_at = at
        self.tick(at)

    def heard(self, text: str, at: float, ended_at: float | None = None) -> None:
        """These were the words: a final of the recogniser, which may come before or after the end of the speech.

        `ended_at` is when the last of them was said, where that is known.
        """
        words = normalised(text)
        if words and len(self._finals) < FINALS_MAX:
            self._finals.append(words)
            self._words_at, self._finding = at, None
            if self._first_started_at is None:
                self._first_started_at = at
            if ended_at is not None:
                self._words_end_at = self._last_ended_at = ended_at
        self.tick(at)

    def hearing(self, at: float) -> None:
        """Words are being said, which ones is not settled: as good as the beginning of speech."""
        if not self._speaking:
            self.speech_started(at)

    def sounding(self, at: float) -> None:
        """Something is to be heard on the line, whatever it is; `sound` finds this out by itself."""
        self._loud_at = at

    def sound(self, samples_16k: Samples | memoryview | bytes, at: float) -> None:
        """Take the callee's sound; `at` is when its last sample was heard."""
        samples = np.frombuffer(samples_16k, dtype=np.int16)
        found = self._listener.feed(samples, at)
        self._loud_at = self._listener.loud_at
        # A beep is one only after words: before them it is the network's (SIT, ring-back, comfort tones).
        if found is not None and self._first_started_at is not None and found.ended_at >= self._beep_wanted_from:
            self._beep = found
        self.tick(at)

    def tick(self, at: float) -> None:
        """Let time pass; call it every 100 ms at least while nothing else comes."""
        self._now = max(self._now, at)
        if self.verdict is None:
            self._judge()
        if self.verdict is not None and self.verdict.is_machine and self.greeting_over is None:
            self._look_for_the_end()

    def judge_again(self, at: float) -> None:
        """Forget what was heard and judge what comes now: a screener was answered."""
        self.verdict = self.greeting_over = self._beep = None
        self._beep_wanted_from = at
        self._begin(at)
        self._connecting = True

    def doubt(self, at: float) -> None:
        """Go on judging what was heard and what follows: only a machine comes of it, and a person stays one."""
        if self.verdict is not None and not self.verdict.is_machine:
            self.verdict, self._machines_only = None, True
            self._from = self._now = max(self._now, at)

    @property
    def beeped_at(self) -> float | None:
        """Return when the last beep ended that came after words; it may come after the greeting was taken as over."""
        return None if self._beep is None else self._beep.ended_at

    @property
    def text(self) -> str:
        """Return what was heard, normalised. Never to be logged."""
        return " ".join(self._finals)

    def _heard(self) -> Heard:
        first = self._first_started_at
        until = self._now if self._speaking or self._last_ended_at is None else self._last_ended_at
        return Heard(
            text=self.text,
            seconds=0.0 if first is None else max(0.0, until - first),
            silence_before_s=0.0 if first is None else max(0.0, first - self._began_at),
            finals=len(self._finals),
        )

    def _judge(self) -> None:
        if not self._finals:
            self._judge_silence()
            return
        if self._finding is None:  # what changes it are words and speech, not the ticks between them
            self._finding = self._rules.judge(self._heard())
        finding = self._finding
        waiting = self._connecting and finding.category not in {"machine-vm", "machine-unavailable"}
        if waiting and self._rules.is_connecting(self.text):
            self._finals.clear()  # "thank you, stay on the line": nobody is there yet
            self._finding = self._first_started_at = None
            return
        is_machine = finding.category in MACHINES or finding.category == "call-screening"
        if self._machines_only and (not is_machine or self._now - self._began_at > DOUBTED_MAX_S):
            return
        if self._is_due(finding):
            self._decide(finding.category, finding.rule, finding.weight)

    def _judge_silence(self) -> None:
        """Judge where there are no words: nobody spoke, or nobody understood."""
        patience_s = CONNECTING_MAX_S if self._connecting else NO_SPEECH_S
        waited_s = self._now - self._from
        if self._machines_only:
            return
        if self._first_started_at is None:
            if waited_s >= patience_s:
                self._decide("uncertain", SILENT)
            return
        unheard = not self._speaking and self._quiet_s() >= WORDS_WAIT_S
        if unheard or waited_s >= max(patience_s, DECIDE_MAX_S):
            self._decide("uncertain", UNHEARD)

    def _is_due(self, finding: Finding) -> bool:
        """Tell whether the opening is over as far as this finding needs it."""
        is_machine = finding.category not in {"human", "uncertain"}
        if is_machine and (finding.weight >= SURELY or self._beep is not None):
            return True
        if self._now - self._from >= (CONNECTING_MAX_S if self._connecting else DECIDE_MAX_S):
            return True
        if self._speaking:
            return False
        return self._quiet_s() >= _pause_of(finding, is_machine=is_machine)

    def _quiet_s(self) -> float:
        """Seconds without speech. A recogniser that never says that speech ended is taken by its last words."""
        ends = [at for at in (self._last_ended_at, self._last_started_at) if at is not None]
        if self._last_ended_at is None and self._words_at is not None:
            ends.append(self._words_at)
        ended_at = max(ends, default=self._from)
        if self._loud_at is not None and self._now - ended_at < SOUND_HOLDS_S:
            ended_at = max(ended_at, self._loud_at)
        return self._now - ended_at

    def _decide(self, category: AnswererCategory, rule: str, weight: int = 0) -> None:
        ended_at = None if self._speaking else self._last_ended_at
        heard = self._heard()
        self.verdict = Verdict(
            category=category,
            rule=rule,
            evidence=hashlib.sha256(self.text.encode()).digest()[:EVIDENCE_BYTES].hex() if self._finals else "",
            latency_ms=0 if ended_at is None else max(0, round((self._now - ended_at) * 1000)),
            weight=weight,
            words=heard.words,
            finals=heard.finals,
            speech_ms=round(heard.seconds * 1000),
            silence_before_ms=round(heard.silence_before_s * 1000),
        )
        self._verdict_at = self._now

    def _look_for_the_end(self) -> None:
        """Find out whether the machine has finished its greeting."""
        assert self._verdict_at is not None
        if self._beep is not None and not self._spoke_since(self._beep.ended_at):
            self._over("beep", self._beep.ended_at)
        elif (quiet_from := self._quiet_from()) is not None:
            self._over("silence", quiet_from)
        elif self._now - self._verdict_at >= GREETING_MAX_S:
            self._over("cap", self._now)

    def _patience_s(self) -> float:
        return SILENCE_BEFORE_TONE_S if self._rules.promises_tone(self.text) else SILENCE_S

    def _spoke_since(self, at: float) -> bool:
        return self._last_started_at is not None and self._last_started_at > at

    def _quiet_from(self) -> float | None:
        """When the silence began that is the greeting's end; None while there is none.

        By the sound where it is fed (the recogniser is late), and by the recogniser where the line is too noisy.
        """
        patience_s = self._patience_s()
        loud_at = self._loud_at
        if loud_at is not None and loud_at >= (self._last_started_at or 0.0):
            if self._now - loud_at >= patience_s:
                return loud_at
            patience_s += RECOGNISER_LATE_S
        if self._speaking or self._last_ended_at is None or self._now - self._last_ended_at < patience_s:
            return None
        return self._last_ended_at

    def _over(self, how: How, at: float) -> None:
        takes_message = self.verdict is not None and self.verdict.category == "machine-vm"
        if self._rules.judge(self._heard()).category == "machine-unavailable":
            takes_message = False
        self.greeting_over = GreetingOver(how=how, at=at, takes_message=takes_message)


def _pause_of(finding: Finding, *, is_machine: bool) -> float:
    """How long nothing may be said before this finding is believed."""
    if is_machine:
        return MACHINE_PAUSE_S if finding.weight >= 2 * DECIDES else DOUBT_PAUSE_S
    if finding.category == "uncertain" or not finding.weight:
        return DOUBT_PAUSE_S
    return PERSON_PAUSE_S if finding.weight >= DECIDES else GREETING_PAUSE_S


__all__ = ["SAMPLE_RATE", "Answerer", "GreetingOver", "Verdict"]
