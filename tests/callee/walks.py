"""Seeded walks: one callee, several calls, and a world that answers in any order, twice, late, or not at all.

The walker draws inputs; `Account` judges the log they leave, independently of the core's own state.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from dialer.callee import inputs as i
from dialer.callee.evolve import Copied, Recorded
from dialer.callee.owed import (
    AskSlot,
    AskTurn,
    Dial,
    Effect,
    Fence,
    LookUp,
    OpenRoom,
    WatchAgent,
    deadline,
    outstanding,
    owed,
)
from dialer.callee.state import Callee, Phase, active_call
from dialer.callee.step import step
from dialer.callee.witnessed import CAME_TO
from schemas import events as e
from schemas import facts as f
from schemas.outcomes import Refusal, Withdrawal
from tests import histories as h

CALLS: Final = 6
DRAIN_ROUNDS_MAX: Final = 400
SAID_AFTER_AN_ANSWER: Final = (
    f.ConversationStarted,
    f.NotificationDelivered,
    f.AnswererDetected,
    f.VoicemailLeft,
    f.TurnTaken,
    f.OptOutHeard,
    f.CallTransferred,
)
SIPS: Final = (486, 600, 480, 408, 603, 607, 608, 404, 503, 403, 488, 482, 487)
CODES: Final = ("canceled", "unavailable", "not_found", "failed_precondition", "invalid_argument", "")


@dataclass(slots=True)
class Account:
    """What the promises say about a log, counted from the log alone."""

    open: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    requested: set[str] = field(default_factory=set)
    attempts: dict[str, int] = field(default_factory=dict)
    under_way: dict[str, int] = field(default_factory=dict)
    dialed: set[tuple[str, int]] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    not_before: dict[str, datetime] = field(default_factory=dict)
    dials: dict[str, int] = field(default_factory=dict)
    unsent: set[tuple[str, int]] = field(default_factory=set)
    """Dials that are known not to have gone out: nobody can have answered them."""
    suppressed: bool = False
    opted_out: bool = False
    """Asked in a call not to be called again, and has not opted in since."""
    sequence: int = 0

    def take(self, record: Recorded) -> None:
        """Check one record against all that went before."""
        self.sequence += 1
        assert record.sequence == self.sequence, "sequences count up by one"
        call, body = record.call_id, record.body
        if isinstance(body, Copied):
            self.opted_out = self.opted_out or isinstance(body.fact, f.OptOutHeard)
            return
        if isinstance(body, e.CalleeSuppressed):
            self.suppressed = True
            self.stopped |= self.open
        elif isinstance(body, e.SuppressionLifted):
            self.suppressed = self.opted_out = False
        if call is None:
            return
        assert call not in self.ended, f"{body} follows the end of its call"
        if isinstance(body, e.CallRequested):
            assert call not in self.requested, "a request makes one call"
            self.requested.add(call)
            self.open.add(call)
        elif isinstance(body, e.CallCancelled):
            self.stopped.add(call)
        elif isinstance(body, e.CallRefused | e.CallEnded):
            self._end(call, body)
        else:
            self._attempt(call, body, record.at)

    def _end(self, call: str, body: e.CallRefused | e.CallEnded) -> None:
        assert call in self.open, "what was never requested cannot end"
        refused = isinstance(body, e.CallRefused)
        assert refused == (call not in self.attempts), "refused before its first room, ended after"
        self.open.discard(call)
        self.ended.add(call)
        self.under_way.pop(call, None)

    def _attempt(self, call: str, body: e.Decision, at: datetime) -> None:
        match body:
            case e.AttemptOpened():
                assert body.attempt == self.attempts.get(call, 0) + 1, "attempts count up by one"
                assert not self.under_way, "one call of a callee at a time"
                assert at >= self.not_before.get(call, at), "not sooner than its retry"
                assert call not in self.stopped, "a stop is a stop"
                assert not self.opted_out, "who opted out is called no more"
                assert call not in self.answered, "never after an answer"
                self.attempts[call] = self.under_way[call] = body.attempt
            case e.DialStarted():
                key = (call, body.attempt)
                assert key not in self.dialed, "one dial an attempt"
                assert self.under_way == {call: body.attempt}, "no dial while another call is under way"
                assert call not in self.answered, "never after an answer"
                assert call not in self.stopped, "a stop is a stop"
                assert not self.suppressed, "a suppression is a stop"
                assert at >= self.not_before.get(call, at), "not sooner than its retry"
                self.dialed.add(key)
                self.dials[call] = self.dials.get(call, 0) + 1
                assert self.dials[call] <= h.RULES.attempts_max, "attempts_max bounds rings"
            case e.DialWithdrawn():
                assert (call, body.attempt) in self.dialed
                self.unsent.add((call, body.attempt))
                self.dials[call] -= 1
            case e.DialFailed():
                assert (call, body.attempt) in self.dialed, "only a dial fails"
                self.dials[call] -= 0 if body.sent else 1
                if not body.sent:
                    self.unsent.add((call, body.attempt))
            case e.CallAnswered():
                assert (call, body.attempt) in self.dialed, "only a dial is answered"
                assert call not in self.answered, "answered once"
                self.answered.add(call)
            case e.RetryScheduled():
                assert call not in self.answered, "an answered attempt is never followed by another"
                assert call not in self.stopped, "a stopped call is not tried again"
                assert self.under_way.pop(call) == body.attempt
                self.not_before[call] = body.not_before
            case _:
                assert call in self.open

    def settle(self, records: tuple[Recorded, ...]) -> None:
        """Check what must be true once a whole step is recorded."""
        assert self.suppressed or not self.opted_out, "who opts out is suppressed in that very step"
        for record in records:
            fact = record.body.fact if isinstance(record.body, Copied) else None
            if record.call_id is None or fact is None or not isinstance(fact, SAID_AFTER_AN_ANSWER):
                continue
            sent = (record.call_id, fact.attempt) in self.dialed - self.unsent
            told = record.call_id in self.answered | self.ended
            assert told or not sent, f"{fact} tells of an answer that is not recorded"


class Walker:
    """Draws inputs, takes them, and checks after each."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.callee = Callee(callee_key=h.CALLEE)
        self.account = Account()
        self.log: list[Recorded] = []
        self.past: list[i.AnyInput] = []
        self.now = 0.0
        self.dials_owed: set[tuple[str, int]] = set()
        self.dials_over: set[tuple[str, int]] = set()
        self.stops = 0

    def walk(self, steps: int) -> None:
        """Take so many inputs."""
        for _ in range(steps):
            self.now = max(0.0, self.now + self.random.choice((0, 0.01, 0.5, 1, 2, 5, 40, -3)))
            self.take(self.draw())

    def drain(self) -> None:
        """Confirm fences and let deadlines pass until nothing is open; nobody else answers any more."""
        for _ in range(DRAIN_ROUNDS_MAX):
            if not self.callee.calls:
                break
            fences = [x for x in owed(self.callee, self.clock()) if isinstance(x, Fence)]
            for fence in fences:
                self.now += 1
                number = self.number_of(fence.call_id)
                self.take(h.fenced(self.now, fence.attempt, number))
            due = deadline(self.callee, self.clock())
            if due is not None:
                self.now = max(self.now, (due - h.T0).total_seconds())
                self.take(h.tick(self.now))
        assert not self.callee.calls, "every call ends"
        assert self.account.ended == self.account.requested, "in exactly one terminal event"

    def clock(self) -> datetime:
        """Return the owner's now for this callee."""
        return max(h.at(self.now), self.callee.now or h.T0)

    def take(self, one: i.AnyInput) -> None:
        """Take one input and hold the state and the log to their promises."""
        done = step(self.callee, one)
        for record in done.events:
            self.account.take(record)
        self.account.settle(done.events)
        self.log += done.events
        self.callee = done.callee
        self.past.append(one)
        self.watch_dials()

    def watch_dials(self) -> None:
        """A dial that is no longer owed is never owed again, and a taken-over one never at all; nor is a room."""
        now = self.clock()
        current = {(x.call_id, x.attempt) for x in owed(self.callee, now) if isinstance(x, Dial)}
        assert not current & self.dials_over, "a dial is owed once"
        assert current <= self.account.dialed, "a dial is owed after its DialStarted only"
        assert not any(isinstance(x, Dial | OpenRoom) for x in outstanding(self.callee, now))
        self.dials_over |= self.dials_owed - current
        self.dials_owed = current

    def number_of(self, call_id: str) -> int:
        return next(n for n in range(1, CALLS + 1) if h.call(n) == call_id)

    def draw(self) -> i.AnyInput:
        """Draw the next input: mostly what the world is owed, sometimes anything."""
        luck = self.random.random()
        effects = sorted(owed(self.callee, self.clock()), key=repr)
        due = deadline(self.callee, self.clock())
        active = active_call(self.callee)
        if luck < 0.55 and active is not None and active.phase is Phase.GATHERING:
            return h.ready(self.now, active.openings, self.number_of(active.call_id))
        if luck < 0.68 and effects:
            return self.answer(self.random.choice(effects))
        if luck < 0.76 and due is not None:
            if self.random.random() < 0.5:
                self.now = max(self.now, (due - h.T0).total_seconds())
            return h.tick(self.now)
        if luck < 0.84 and self.past:
            again = self.random.choice(self.past[-30:])
            shifted = timedelta(seconds=self.random.choice((0, 0, 5, -5)))
            return replace(again, at=max(h.T0, h.at(self.now) + shifted))
        if luck < (0.92 if self.callee.suppressed else 0.86):
            return self.stop()
        if luck < 0.96:
            return self.place()
        return self.anything()

    def stop(self) -> i.AnyInput:
        self.stops += 1
        name = f"stop-{self.stops}"
        kind = "lift" if self.callee.suppressed else self.random.choice(("cancel", "cancel", "suppress", "lift"))
        if kind == "cancel":
            return h.cancel(self.now, self.random.randint(1, CALLS), name)
        return h.suppress(self.now, name) if kind == "suppress" else h.lift(self.now, name)

    def place(self) -> i.AnyInput:
        number = self.random.randint(1, CALLS)
        rules = self.random.choice((h.RULES, h.REDIALS_UNKNOWN))
        verdict = self.random.choice((h.prepared(rules), h.prepared(rules), None, Refusal.MISSING_VARIABLE))
        not_before = self.random.choice((None, None, h.at(self.now + 30)))
        life_s = self.random.choice((60, 900, 8 * 3600))
        return h.place(
            self.now,
            number,
            verdict=verdict,
            not_before=not_before,
            not_after=h.at(self.now + life_s),
            remember_until=h.T0 + timedelta(days=365),
            priority=self.random.randint(0, 9),
        )

    def answer(self, effect: Effect) -> i.AnyInput:
        """Answer as the shell, LiveKit or the agent would: mostly well."""
        number = self.number_of(effect.call_id)
        well = self.random.random() < 0.85
        match effect:
            case LookUp():
                verdict = h.PREPARED if well else Refusal.UNKNOWN_CAMPAIGN
                return h.defined(self.now, number, verdict)
            case AskSlot():
                return h.slot(self.now, number)
            case OpenRoom(attempt=attempt):
                if self.random.random() < 0.2:
                    return h.ready(self.now, attempt, number)
                return h.room(self.now, attempt, number, ok=well)
            case AskTurn(attempt=attempt):
                return h.turn(self.now, attempt, number) if well else h.silent(self.now, attempt, number)
            case Dial(attempt=attempt):
                return self.outcome(attempt, number)
            case WatchAgent(attempt=attempt):
                dialed = (effect.call_id, attempt) in self.account.dialed
                return self.seen(attempt, number) if dialed else h.ready(self.now, attempt, number)
            case Fence(attempt=attempt):
                return h.fenced(self.now, attempt, number)
        raise AssertionError(effect)

    def outcome(self, attempt: int, number: int) -> i.AnyInput:
        match self.random.choice(("answered", "failed", "failed", "withheld", "unclear", "fact", "fact")):
            case "failed" if self.random.random() < 0.7:
                return h.failed(self.now, self.random.choice(SIPS), attempt, number)
            case "failed":
                return h.failed(self.now, None, attempt, number, code=self.random.choice(CODES))
            case "withheld":
                word = self.random.choice(list(Withdrawal)).value
                return h.dialled(self.now, "withheld", attempt, number, withheld=word)
            case "fact":
                return self.seen(attempt, number)
            case result:
                return h.dialled(self.now, result, attempt, number)

    def seen(self, attempt: int, number: int) -> i.AnyInput:
        facts: tuple[Callable[[float, int, int], i.AnyInput], ...] = (
            h.ready,
            lambda s, a, n: h.status(s, "ringing", a, n),
            lambda s, a, n: h.status(s, "active", a, n),
            h.delivered,
            h.hung_up,
            h.left,
            h.crashed,
            h.last_word,
            lambda s, a, n: h.last_word(s, a, n, reason="no_callee", seen=False),
            lambda s, a, n: h.last_word(s, a, n, reason="cancelled", seen=False, stayed=True),
            lambda s, a, n: h.last_word(s, a, n, reason="cancelled", stayed=True),
            lambda s, a, n: h.left(s, a, n, "USER_UNAVAILABLE"),
            lambda s, a, n: h.listed(s, "active", a, n),
            h.started,
            h.talked,
            h.opted_out,
            h.api_failed,
            h.voicemail,
            h.transferred,
            lambda s, a, n: h.detected(s, self.random.choice(("human", "machine-vm", "uncertain")), a, n),
            lambda s, a, n: h.last_word(s, a, n, reason=self.random.choice(list(CAME_TO))),
        )
        weights = (2, 4, 5, 3, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 0.5, 0.5, 1, 0.5, 1, 2)
        (kind,) = self.random.choices(facts, weights)
        return kind(self.now, attempt, number)

    def anything(self) -> i.AnyInput:
        """Draw an input about any call and any attempt, whether it makes sense or not."""
        number, attempt = self.random.randint(1, CALLS), self.random.randint(1, 4)
        kinds: tuple[Callable[[], i.AnyInput], ...] = (
            lambda: h.defined(self.now, number),
            lambda: h.slot(self.now, number),
            lambda: h.room(self.now, attempt, number),
            lambda: h.turn(self.now, attempt, number),
            lambda: h.gone(self.now, attempt, number),
            lambda: h.listed(self.now, self.random.choice(("ringing", "active")), attempt, number),
            lambda: h.silent(self.now, attempt, number),
            lambda: h.fenced(self.now, attempt, number),
            lambda: self.outcome(attempt, number),
            lambda: self.seen(attempt, number),
        )
        return self.random.choice(kinds)()
