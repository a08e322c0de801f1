"""The callee's side of a conversation: who has the floor, what was said in this turn, which keys were pressed.

A turn is over when the recogniser says that the speech ended and words came of it. Speech without words (a cough, a
door) is none, and neither is one of which nothing is heard for `SPEECH_MAX_S`; where it was long enough for words it was
missed, and who spoke waits for an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.recogniser import Heard, Hearing, Sound, SpeechEnded, SpeechStarted

SPEECH_MAX_S: Final = 20.0
"""Of speech of which no word comes: then it counts as noise."""
MISSED_MIN_S: Final = 1.0
"""The shortest speech that was missed when no word came of it."""
TURN_CHARS_MAX: Final = 4_000
KEYS_MAX: Final = 32
KEY_PAUSE_S: Final = 1.5
"""After the last key: what was pressed is taken as whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the callee said, or pressed, before it was somebody else's turn; times are monotonic seconds."""

    text: str
    started_at: float
    ended_at: float
    """When the last word ended."""
    heard_at: float
    """When its words were settled."""
    taken_at: float
    """When the turn was known to be over."""


class CalleeTurns:
    """Fed with sounds and keys; `news` is set whenever something changed."""

    def __init__(self, news: asyncio.Event) -> None:
        self._news = news
        self._words: list[Heard] = []
        self._keys = ""
        self._key_at = 0.0
        self._since = 0.0
        self.began_at = 0.0
        """When the speech that goes on, or the last, was known to begin."""
        self._hearing = False
        self.speaking = False
        self.missed = False
        """Whether the last speech was missed."""
        self.quiet_since = time.monotonic()
        """When the callee was last heard: the end of speech, or a key."""
        self.turns_taken = 0
        self.on_words: Callable[[Heard], None] = lambda _: None
        """Called with all words, at once."""

    @property
    def words_come(self) -> bool:
        """Tell whether the speech that goes on has words in it, or a whole turn waits."""
        return self._hearing or bool(self._words)

    @property
    def text(self) -> str:
        """Return what was said in this turn so far."""
        return " ".join(heard.text for heard in self._words)

    def take_sound(self, sound: Sound) -> None:
        """Hear something."""
        match sound:
            case SpeechStarted():
                self.speaking, self._since, self.began_at = True, sound.at, sound.at
            case Hearing():
                self.speaking = self._hearing = True
                self._since = sound.at
            case Heard():
                self._since = sound.at
                if sum(len(heard.text) for heard in self._words) < TURN_CHARS_MAX:
                    self._words.append(sound)
                self.on_words(sound)
            case SpeechEnded():
                self._quiet(sound.at)
        self._news.set()

    def take_key(self, digit: str) -> None:
        """See a key pressed."""
        if len(self._keys) < KEYS_MAX:
            self._keys += digit
        self._key_at = self.quiet_since = time.monotonic()
        self._news.set()

    def tick(self, now: float) -> None:
        """Let time pass: noise that never ends is not waited for."""
        if self.speaking and now - self._since > SPEECH_MAX_S:
            self._quiet(now)

    def take(self, now: float) -> Turn | None:
        """Take the turn that is over; None where there is none yet."""
        if self._words and not self.speaking:
            first, last = self._words[0], self._words[-1]
            turn = Turn(
                text=self.text,
                started_at=first.started_at,
                ended_at=last.ended_at,
                heard_at=last.at,
                taken_at=self.quiet_since,
            )
            self.forget()
        elif self._keys and now - self._key_at >= KEY_PAUSE_S:
            pressed = f"[keys: {self._keys}]"
            turn = Turn(
                text=pressed, started_at=self._key_at, ended_at=self._key_at, heard_at=self._key_at, taken_at=now
            )
            self._keys = ""
        else:
            return None
        self.turns_taken += 1
        return turn

    def forget(self) -> None:
        """Let what was said so far be no turn."""
        self._words.clear()
        self._hearing = False

    @property
    def due_at(self) -> float | None:
        """Return when `take` may find something though no news came."""
        if self._keys:
            return self._key_at + KEY_PAUSE_S
        return self._since + SPEECH_MAX_S if self.speaking else None

    def _quiet(self, at: float) -> None:
        self.missed = self.speaking and not self._words and at - self.began_at >= MISSED_MIN_S
        self.speaking = self._hearing = False
        self.quiet_since = at
