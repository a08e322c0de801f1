"""The accounts of the promises, from three witnesses: the producer's own list, the carrier's file, the log as read.

Pure, and it imports nothing of the dialer: it must be able to contradict it. `lost` and `doubled` are the two figures
that must be 0; `findings` says in a line each what is wrong and where to look. Source: design §1; issue S1, "Done when".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from rehearsal.producer import Kind, Sent
from rehearsal.reader import Logged
from rehearsal.witness import Dial
from schemas import topics

TERMINAL: Final = frozenset({"call_ended", "call_refused"})
_AFTER_THE_END: Final = TERMINAL | {"call_cancelled"}
"""Decisions that may stand behind a terminal one: a second terminal is counted on its own; a cancel changes no fate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The figures of one run; `findings` is empty when every promise held."""

    commands: int
    accepted: int
    rejected: int
    terminal_events: int
    dials_by_witness: int
    attempts_in_log: int
    unknown: int
    doubled: int
    lost: int
    repeated: int
    outcomes: dict[str, int]
    audit: dict[str, int]
    findings: tuple[str, ...]


@dataclass(slots=True)
class Books:
    """The three witnesses, sorted for the questions that are asked of them."""

    sent: Sequence[Sent]
    dials: Sequence[Dial]
    rejected: Sequence[Logged]
    audit: Sequence[Logged]
    by_call: dict[str, list[Logged]] = field(default_factory=dict)
    """Decisions of each call, in the order of the log."""

    def decisions(self, call_id: str, *names: str) -> list[Logged]:
        """Return a call's decisions of these names."""
        return [event for event in self.by_call.get(call_id, ()) if event.name in names]

    def all_of(self, *names: str) -> Iterator[tuple[str, Logged]]:
        """Return (call_id, decision) of all calls."""
        return ((call, event) for call in self.by_call for event in self.decisions(call, *names))


def books(sent: Sequence[Sent], dials: Sequence[Dial], records: Iterable[Logged]) -> Books:
    """Sort the witnesses' records."""
    by_topic: dict[str, list[Logged]] = defaultdict(list)
    for record in records:
        by_topic[record.topic].append(record)
    result = Books(
        sent=sent,
        dials=sorted(dials, key=lambda dial: dial.invite_at),
        rejected=by_topic[topics.REJECTED.name],
        audit=by_topic[topics.AUDIT.name],
    )
    for event in by_topic[topics.EVENTS.name]:
        if event.is_decision and event.call_id is not None:
            result.by_call.setdefault(event.call_id, []).append(event)
    return result


def settle(sent: Sequence[Sent], dials: Sequence[Dial], records: Iterable[Logged], *, killed: bool = False) -> Accounts:
    """Make the accounts. `killed`: the dialer was killed, so an attempt of the log may have been seen by nobody."""
    b = books(sent, dials, records)
    terminal = list(b.all_of(*TERMINAL))
    sent_dials = attempts_sent(b)
    lost, doubled = list(_lost(b)), [finding for clause in _DOUBLED for finding in clause(b)]
    findings = [*lost, *doubled, *(finding for clause in _OTHERS for finding in clause(b))]
    figures = Accounts(
        commands=sum(one.kind in _COMMANDS for one in sent),
        accepted=len(b.by_call),
        rejected=len(b.rejected),
        terminal_events=len(terminal),
        dials_by_witness=len(b.dials),
        attempts_in_log=len(sent_dials),
        unknown=sum(1 for _ in b.all_of("dial_unknown")),
        doubled=len(doubled),
        lost=len(lost),
        repeated=sum(one.kind is Kind.REPEATED for one in sent),
        outcomes=dict(sorted(Counter(outcome_of(event) for _, event in terminal).items())),
        audit=dict(sorted(Counter(record.name for record in b.audit).items())),
        findings=(),
    )
    findings += _sums(figures, killed=killed)
    return replace(figures, findings=tuple(findings))


_COMMANDS: Final = (Kind.COMMAND, Kind.CONFLICT, Kind.BROKEN)


def outcome_of(event: Logged) -> str:
    """Return what a terminal event says became of its call; a refusal is `refused_{reason}`."""
    return str(event.data["outcome"]) if event.name == "call_ended" else f"refused_{event.data['reason']}"


def attempts_sent(b: Books) -> set[str]:
    """Return the attempts that the log holds for sent: `DialStarted`, neither withdrawn nor failed before sending."""
    started = {_attempt(call, event) for call, event in b.all_of("dial_started")}
    withdrawn = {_attempt(call, event) for call, event in b.all_of("dial_withdrawn")}
    unsent = {_attempt(call, event) for call, event in b.all_of("dial_failed") if not event.data["sent"]}
    return started - withdrawn - unsent


def unknown_of(b: Books) -> dict[str, datetime]:
    """Return the calls of which nobody can tell whether a dial rang, with the time when that dial was decided."""
    started = {_attempt(call, event): event.at for call, event in b.all_of("dial_started")}
    return {call: started[_attempt(call, event)] for call, event in b.all_of("dial_unknown")}


def _attempt(call_id: str, event: Logged) -> str:
    return f"{call_id}-{event.data['attempt']}"


def _split(attempt_id: str) -> tuple[str, int]:
    call, _, number = attempt_id.rpartition("-")
    return call, int(number) if number.isdigit() else 0


# -- lost -------------------------------------------------------------------------------------------------------------


def _lost(b: Books) -> Iterator[str]:
    """Every command has its end: a terminal event of its call, or its own record in `dialer.rejected`."""
    rejected = Counter(str(record.data["hmac"]) for record in b.rejected)
    ended = {call for call, _ in b.all_of(*TERMINAL)}
    for one in b.sent:
        if one.kind is Kind.COMMAND and one.call_id not in ended and not rejected[one.fingerprint]:
            yield f"lost: {one.name} has no terminal event; `dialer explain {one.call_id}`"
        if one.kind in (Kind.CONFLICT, Kind.BROKEN) and not rejected[one.fingerprint]:
            yield f"lost: the {one.kind} record '{one.name}' is not in dialer.rejected"


# -- doubled ----------------------------------------------------------------------------------------------------------


def _more_than_one_per_attempt(b: Books) -> Iterator[str]:
    for attempt, count in Counter(dial.attempt_id for dial in b.dials).items():
        for _ in range(count - 1):
            yield f"doubled: {count} INVITEs for attempt {attempt}; see carrier/witness.jsonl"


def _while_a_leg_is_live(b: Books) -> Iterator[str]:
    last: dict[str, list[Dial]] = defaultdict(list)
    for dial in b.dials:
        live = [other for other in last[dial.number] if other.ended_at is None or other.ended_at > dial.invite_at]
        if live:
            yield f"doubled: attempt {dial.attempt_id} rang while the leg of {live[0].attempt_id} was live"
        last[dial.number].append(dial)


def _after_an_answer(b: Books) -> Iterator[str]:
    answered: dict[str, datetime] = {}
    for dial in b.dials:
        call = _split(dial.attempt_id)[0]
        if call in answered and answered[call] <= dial.invite_at:
            yield f"doubled: attempt {dial.attempt_id} rang after its call had been answered"
        if dial.answered_at is not None:
            answered.setdefault(call, dial.answered_at)


def _sooner_than_its_retry(b: Books) -> Iterator[str]:
    """A further attempt needs a committed `RetryScheduled` of an earlier one, and its time to have come."""
    for dial in b.dials:
        call, attempt = _split(dial.attempt_id)
        scheduled = [e for e in b.decisions(call, "retry_scheduled") if int(e.data["attempt"]) < attempt]
        if attempt > 1 and not scheduled:
            yield f"doubled: attempt {dial.attempt_id} rang without a RetryScheduled"
        elif scheduled:
            due = datetime.fromisoformat(max(scheduled, key=lambda e: int(e.data["attempt"])).data["not_before"])
            if dial.invite_at < due:
                early_s = (due - dial.invite_at).total_seconds()
                yield f"doubled: attempt {dial.attempt_id} rang {early_s:.3f} s before its committed retry time"


Clause = Callable[[Books], Iterator[str]]
_DOUBLED: Final[tuple[Clause, ...]] = (
    _more_than_one_per_attempt,
    _while_a_leg_is_live,
    _after_an_answer,
    _sooner_than_its_retry,
)
"""The clauses of `doubled`; a dial that breaks two of them counts twice."""


# -- what else must hold ----------------------------------------------------------------------------------------------


def _one_end_each(b: Books) -> Iterator[str]:
    for call, events in b.by_call.items():
        ends = [index for index, event in enumerate(events) if event.name in TERMINAL]
        if len(ends) > 1:
            yield f"{call} has {len(ends)} terminal events; `dialer explain {call}`"
        for event in events[ends[0] + 1 :] if ends else ():
            if event.name not in _AFTER_THE_END:
                yield f"{call}: {event.name} stands behind the call's end; `dialer explain {call}`"


def _rung_without_a_reason(b: Books) -> Iterator[str]:
    """Each dial the witness saw stands in the log, decided before it went out (promise 3)."""
    started = {_attempt(call, event): event.at for call, event in b.all_of("dial_started")}
    gone = {_attempt(call, event) for call, event in b.all_of("dial_withdrawn")}
    for dial in b.dials:
        if dial.attempt_id not in started:
            yield f"attempt {dial.attempt_id} rang, and the log has no DialStarted of it"
        elif started[dial.attempt_id] > dial.invite_at:
            yield f"attempt {dial.attempt_id} rang before its DialStarted"
        if dial.attempt_id in gone:
            yield f"attempt {dial.attempt_id} rang, and the log says DialWithdrawn"


def _seen_by_nobody(b: Books) -> Iterator[str]:
    seen = {dial.attempt_id for dial in b.dials}
    unknown = {_attempt(call, event) for call, event in b.all_of("dial_unknown")}
    for attempt in sorted(attempts_sent(b) - seen - unknown):
        yield f"attempt {attempt} was never seen by the carrier, and the log does not end it as unknown"


def _strangers(b: Books) -> Iterator[str]:
    """No call that nobody asked for, and no number but the one asked for."""
    numbers = {one.call_id: one.number for one in b.sent if one.call_id is not None}
    for call in b.by_call:
        if call not in numbers:
            yield f"{call} is in the log, and no pipeline asked for it"
    for dial in b.dials:
        call = _split(dial.attempt_id)[0]
        if call in numbers and numbers[call] != dial.number:
            yield f"attempt {dial.attempt_id} rang another number than its command names"


def _rejected_for_nothing(b: Books) -> Iterator[str]:
    meant = Counter(one.fingerprint for one in b.sent if one.kind in (Kind.CONFLICT, Kind.BROKEN))
    for record in b.rejected:
        fingerprint = str(record.data["hmac"])
        meant[fingerprint] -= 1
        if meant[fingerprint] < 0:
            where = f"{record.data['topic']}/{record.data['partition']}/{record.data['offset']}"
            yield f"rejected without need, or twice: {where} ({record.data['field']}: {record.data['rule']})"


_OTHERS: Final[tuple[Clause, ...]] = (
    _one_end_each,
    _rung_without_a_reason,
    _seen_by_nobody,
    _strangers,
    _rejected_for_nothing,
)


def _sums(a: Accounts, *, killed: bool) -> Iterator[str]:
    ended = sum(a.audit.get(name, 0) for name in TERMINAL)
    rows = (
        ("commands = accepted + rejected", a.commands, a.accepted + a.rejected),
        ("accepted = terminal_events", a.accepted, a.terminal_events),
        ("terminal_events = ends on dialer.audit", a.terminal_events, ended),
        *(() if killed else (("dials_by_witness = attempts_in_log", a.dials_by_witness, a.attempts_in_log),)),
    )
    return (f"{name}: {left} is not {right}" for name, left, right in rows if left != right)
