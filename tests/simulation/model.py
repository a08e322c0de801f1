"""What a log must say of itself to keep promises 1, 2, 3 and 5: laws over records of `dialer.events`, in order.

`accept(records)` takes any log, a simulated or a real one. It keeps its own small account of each call, from the
names and fields of the records alone; only the law of promise 5 uses the dialer's fold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final

import orjson

from dialer.callee.evolve import Copied, Recorded, evolve
from dialer.callee.state import Callee
from dialer.records import encode_snapshot
from schemas.codec import LOGGED, Unknown, decode_payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was broken: which, by which invariant, and what was seen."""

    promise: int
    invariant: str
    text: str


@dataclass(slots=True)
class Attempt:
    """What the records said of one attempt so far."""

    number: int
    joined: bool = False
    dialed: bool = False
    withdrawn: bool = False
    failed: str = ""
    sent: bool = True
    unknown: bool = False
    fencing: bool = False
    fenced: bool = False
    gave_up: bool = False
    retried: bool = False
    rang: bool = False


@dataclass(slots=True)
class _Call:
    """What the records said of one call so far."""

    requested: int = 0
    prepared: bool = False
    ended: str = ""
    cancelled: bool = False
    suppressed: bool = False
    answered: bool = False
    redials_unknown: bool = False
    not_before: datetime | None = None
    dials: int = 0
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(slots=True)
class _Person:
    """What the records said of one callee so far."""

    sequence: int | None = None
    suppressed: bool = False
    opted_out: bool = False
    """Asked in a call not to be called again, and nobody has lifted that since."""
    folded: Callee | None = None
    calls: list[_Call] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """One record, read."""

    name: str
    call_id: str | None
    at: datetime
    data: Mapping[str, Any]
    call: _Call
    attempt: Attempt | None
    person: _Person


Law = Callable[[_Said], str | None]
COMPARED_EVERY: Final = 4
"""One snapshot of so many is compared as it is written; the last ones all are."""
OPT_OUT: Final = "agent.fact.opt_out_heard.v1"
OF_AN_ANSWERED_LEG: Final = frozenset(
    f"agent.fact.{name}.v1"
    for name in ("notification_delivered", "answerer_detected", "voicemail_left", "turn_taken", "call_transferred")
)
"""Facts that tell of an answer, whatever the dialer makes of them."""
TERMINAL: Final = frozenset({"call_ended", "call_refused"})
_REQUESTED, _REFUSED, _ENDED, _OPENED, _DIALED, _RETRIED = (
    frozenset({name})
    for name in ("call_requested", "call_refused", "call_ended", "attempt_opened", "dial_started", "retry_scheduled")
)
_ANY: Final = None


def _one_request(s: _Said) -> str | None:
    return "requested twice" if s.call.requested else None


def _requested_first(s: _Said) -> str | None:
    known = s.call.requested or s.name in {"call_requested", "call_cancelled"}
    return None if s.call_id is None or known else f"{s.name} before the request"


def _one_end(s: _Said) -> str | None:
    return f"{s.name} after {s.call.ended}" if s.call.ended else None


def _nothing_after_the_end(s: _Said) -> str | None:
    late = s.call.ended and s.call_id is not None and s.name not in TERMINAL
    return f"{s.name} after {s.call.ended}" if late else None


def _refused_before_a_room(s: _Said) -> str | None:
    return "refused after its first room was asked for" if s.call.attempts else None


def _ended_after_a_room(s: _Said) -> str | None:
    return None if s.call.attempts else "ended before its first room was asked for"


def _attempts_count_up(s: _Said) -> str | None:
    wrong = s.data["attempt"] != len(s.call.attempts) + 1
    return f"attempt {s.data['attempt']} is opened after {len(s.call.attempts)}" if wrong else None


def _one_dial_an_attempt(s: _Said) -> str | None:
    if s.attempt is None or s.attempt is not s.call.attempts[-1]:
        return "a dial of an attempt that is not open"
    return "a second dial_started" if s.attempt.dialed else None


def _another_only_after_a_retry(s: _Said) -> str | None:
    if not s.call.attempts:
        return None
    if not s.call.attempts[-1].retried:
        return "opened without retry_scheduled"
    early = s.call.not_before is not None and s.at < s.call.not_before
    return f"opened at {s.at}, not before {s.call.not_before}" if early else None


def _retry_after_a_fence(s: _Said) -> str | None:
    if s.attempt is None:
        return None
    over = s.attempt.fenced or s.attempt.gave_up or not s.attempt.dialed
    return None if over else "a retry while the attempt's room may stand"


def _retry_after_a_known_outcome(s: _Said) -> str | None:
    if s.attempt is None:
        return None
    a = s.attempt
    known = not a.dialed or a.withdrawn or (a.failed not in {"", "unknown"}) or s.call.redials_unknown
    return None if known else "a retry of a dial nobody knows the outcome of"


def _nothing_after_an_answer(s: _Said) -> str | None:
    return f"{s.name} after an answer" if s.call.answered else None


def _agent_before_the_dial(s: _Said) -> str | None:
    return "dial_started without agent_joined" if s.attempt is not None and not s.attempt.joined else None


def _permitted(s: _Said) -> str | None:
    permit = s.data.get("permit") or {}
    missing = [k for k in ("policy", "window", "region", "control") if not permit.get(k)]
    if missing or "zones" not in permit:
        return f"permit without {missing or 'zones'}"
    if permit["suppressed"]:
        return "a permit for a suppressed callee"
    counted = (permit["attempts_before"], permit["openings_before"])
    return None if counted == (s.call.dials, len(s.call.attempts) - 1) else f"permit counts {counted}"


def _prepared_before_a_room(s: _Said) -> str | None:
    return None if s.call.prepared else "opened without a definition"


def _stopped_means_no_dial(s: _Said) -> str | None:
    if s.call.cancelled:
        return f"{s.name} after call_cancelled"
    if s.person.opted_out:
        return f"{s.name} of somebody who has opted out"
    return f"{s.name} while suppressed" if s.person.suppressed or s.call.suppressed else None


LAWS: Final[tuple[tuple[int, str, Law, frozenset[str] | None], ...]] = (
    (1, "a call is requested once", _one_request, _REQUESTED),
    (1, "a call begins with its request", _requested_first, _ANY),
    (1, "a call ends once", _one_end, TERMINAL),
    (1, "nothing about a call's fate follows its end", _nothing_after_the_end, _ANY),
    (1, "a call is refused before its first room, and ended after", _refused_before_a_room, _REFUSED),
    (1, "a call is refused before its first room, and ended after", _ended_after_a_room, _ENDED),
    (2, "attempts count up by one", _attempts_count_up, _OPENED),
    (2, "an attempt is dialed once", _one_dial_an_attempt, _DIALED),
    (2, "a further attempt follows a committed retry, not before its time", _another_only_after_a_retry, _OPENED),
    (2, "a retry follows a fence", _retry_after_a_fence, _RETRIED),
    (2, "a retry follows a known outcome, or the campaign's rule", _retry_after_a_known_outcome, _RETRIED),
    (2, "no further attempt follows an answer", _nothing_after_an_answer, _RETRIED | _OPENED | _DIALED),
    (3, "a dial says why it was allowed", _permitted, _DIALED),
    (3, "an attempt follows a known definition", _prepared_before_a_room, _OPENED),
    (4, "a dial follows its agent", _agent_before_the_dial, _DIALED),
    (6, "a stop is a stop on the log", _stopped_means_no_dial, _OPENED | _DIALED),
)
"""Every law with its promise and the events it speaks of; a record is checked against what those before it said."""


@cache
def _laws_of(name: str) -> tuple[tuple[int, str, Law], ...]:
    return tuple((promise, invariant, law) for promise, invariant, law, of in LAWS if of is None or name in of)


class LogModel:
    """Takes a log record by record; violations are kept, the first of each law and call."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.calls: dict[str, _Call] = defaultdict(_Call)
        self.people: dict[str, _Person] = defaultdict(_Person)
        self._snapshots = 0
        self.rules: set[str] = set()
        """Rows of the SIP table that were met."""

    def take(self, record: Mapping[str, Any]) -> str:
        """Take the next record of the log; return the event's name, empty for a fact's copy."""
        call_id = record.get("subject")
        callee_key = (call_id or record["id"])[:26]
        person = self.people[callee_key]
        kind, data, name = record["type"], record["data"], ""
        at = datetime.fromisoformat(record["time"])
        self._count(person, callee_key, int(record["sequence"]))
        if kind.startswith("dialer.event."):
            call = self.calls[call_id] if call_id is not None else _Call()
            number = data.get("attempt")
            attempt = next((a for a in reversed(call.attempts) if a.number == number), None)
            name = kind.split(".")[2]
            said = _Said(name=name, call_id=call_id, at=at, data=data, call=call, attempt=attempt, person=person)
            for promise, invariant, law in _laws_of(name):
                wrong = law(said)
                if wrong is not None:
                    self.violations.append(Violation(promise=promise, invariant=invariant, text=f"{call_id}: {wrong}"))
            self._note(said)
        elif kind == OPT_OUT:
            person.opted_out = True
        elif kind in OF_AN_ANSWERED_LEG:
            self.calls[call_id].answered = True
        self._fold(person, callee_key, record, at)
        return name

    def snapshot(self, callee_key: str, value: bytes) -> None:
        """Compare a snapshot with the fold of the log so far (promise 5)."""
        self._snapshots += 1
        folded = self.people[callee_key].folded
        if self._snapshots % COMPARED_EVERY == 0 and folded is not None and encode_snapshot(folded) != value:
            text = f"{callee_key}: the snapshot is not the fold of its events"
            self.violations.append(Violation(promise=5, invariant="state is the fold of the log", text=text))

    def is_dialing(self) -> bool:
        """Tell whether any call is between the opening of an attempt and its dial's end or fence."""
        last = (call.attempts[-1] for call in self.calls.values() if call.attempts and not call.ended)
        return any(not (attempt.fencing or attempt.retried or attempt.rang) for attempt in last)

    def unended(self) -> list[str]:
        """Name the calls that were requested and have no terminal event."""
        return [call_id for call_id, call in self.calls.items() if call.requested and not call.ended]

    def _count(self, person: _Person, callee_key: str, sequence: int) -> None:
        known = person.sequence is not None and (person.folded is None or person.folded.calls)
        if person.sequence is not None and (sequence <= person.sequence or (known and sequence != person.sequence + 1)):
            text = f"{callee_key}: {sequence} after {person.sequence}"
            self.violations.append(Violation(promise=5, invariant="a callee's sequence counts up by one", text=text))
        person.sequence = sequence

    def _fold(self, person: _Person, callee_key: str, record: Mapping[str, Any], at: datetime) -> None:
        body = decode_payload(LOGGED, record["type"], record["data"])
        if isinstance(body, Unknown):
            return
        if not record["type"].startswith("dialer.event."):
            body = Copied(fact=body, source=record["source"], id=record["id"])
        recorded = Recorded(int(record["sequence"]), at, record.get("subject"), body, record.get("causationid", ""))
        person.folded = evolve(person.folded or Callee(callee_key=callee_key), recorded)

    def _note(self, s: _Said) -> None:
        note = _NOTES.get(s.name)
        if note is not None:
            note(s)
        if s.name == "dial_failed":
            self.rules.add(s.data["rule"])
        elif s.name == "callee_suppressed" and s.call_id is None:
            s.person.suppressed = True
            for call in s.person.calls:
                call.suppressed = True
        if s.name in TERMINAL:
            s.call.ended = s.name


def _requested(s: _Said) -> None:
    s.call.requested += 1
    s.person.calls.append(s.call)


def _prepared(s: _Said) -> None:
    s.call.prepared = True
    s.call.redials_unknown = s.data["rules"]["unknown_after_s"] is not None


def _opened(s: _Said) -> None:
    s.call.attempts.append(Attempt(number=s.data["attempt"]))


def _dial_failed(s: _Said) -> None:
    assert s.attempt is not None
    s.attempt.failed, s.attempt.sent = s.data["outcome"], s.data["sent"]
    if not s.data["sent"]:
        s.call.dials -= 1


def _withdrawn(s: _Said) -> None:
    assert s.attempt is not None
    s.attempt.withdrawn = True
    s.call.dials -= 1


def _dialed(s: _Said) -> None:
    s.call.dials += 1
    if s.attempt is not None:
        s.attempt.dialed = True


def _answered(s: _Said) -> None:
    s.call.answered = True


def _retry(s: _Said) -> None:
    s.call.not_before = datetime.fromisoformat(s.data["not_before"])
    if s.attempt is not None:
        s.attempt.retried = True


def _lifted(s: _Said) -> None:
    s.person.suppressed = s.person.opted_out = False


def _mark(name: str) -> Callable[[_Said], None]:
    def mark(s: _Said) -> None:
        if s.attempt is not None:
            setattr(s.attempt, name, True)

    return mark


def _dial_unknown(s: _Said) -> None:
    assert s.attempt is not None
    s.attempt.unknown, s.attempt.gave_up = True, s.data["alarm"]


def _cancelled(s: _Said) -> None:
    s.call.cancelled = True


_NOTES: Final[dict[str, Callable[[_Said], None]]] = {
    "call_requested": _requested,
    "call_prepared": _prepared,
    "call_cancelled": _cancelled,
    "attempt_opened": _opened,
    "agent_joined": _mark("joined"),
    "dial_started": _dialed,
    "dial_failed": _dial_failed,
    "dial_withdrawn": _withdrawn,
    "dial_unknown": _dial_unknown,
    "callee_ringing": _mark("rang"),
    "call_answered": _answered,
    "fence_started": _mark("fencing"),
    "fence_confirmed": _mark("fenced"),
    "retry_scheduled": _retry,
    "suppression_lifted": _lifted,
}


def accept(records: Iterable[bytes | Mapping[str, Any]], *, complete: bool = True) -> tuple[Violation, ...]:
    """Check a log: records of `dialer.events` as bytes or parsed, each callee's in their order on the log.

    `complete`: the log was read after everything had come to rest, so that every call has ended.
    """
    model = LogModel()
    for record in records:
        model.take(orjson.loads(record) if isinstance(record, bytes) else record)
    found = list(model.violations)
    if complete:
        found += [
            Violation(promise=1, invariant="every call ends", text=f"{call_id}: no terminal event")
            for call_id in model.unended()
        ]
    return tuple(found)
