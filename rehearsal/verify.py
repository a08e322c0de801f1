"""Did each persona's call end as it must, and did each phone that answered hear its message, whole and once?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rehearsal import hearing, marks, reception
from rehearsal.accounts import TERMINAL, outcome_of
from rehearsal.ear import SAMPLE_RATE, HeardCall, heard_of
from rehearsal.hearing import Verdict
from rehearsal.reader import Logged
from rehearsal.scenario import Hears, Request
from rehearsal.witness import Dial

UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of one request: by the log, and by the carrier's witness."""

    request: Request
    call_id: str
    outcome: str
    dials: tuple[Dial, ...]
    was_unknown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """What one answered phone heard, beside what it should have; `finding` is empty when it is as it must be."""

    name: str
    correlation: float
    length_error_ms: float
    finding: str


def fates(requests: Mapping[str, Request], events: Sequence[Logged], dials: Sequence[Dial]) -> list[Fate]:
    """Sort events and dials by the requests; `requests` are by call_id."""
    by_call: dict[str, list[Dial]] = defaultdict(list)
    for dial in dials:
        by_call[dial.attempt_id.rpartition("-")[0]].append(dial)
    outcomes = {e.call_id: outcome_of(e) for e in events if e.is_decision and e.name in TERMINAL}
    unknown = {e.call_id for e in events if e.name == "dial_unknown"}
    return [
        Fate(
            request=request,
            call_id=call,
            outcome=outcomes.get(call, ""),
            dials=tuple(by_call[call]),
            was_unknown=call in unknown,
        )
        for call, request in requests.items()
    ]


def unexpected(found: Sequence[Fate], *, killed: bool) -> Iterator[str]:
    """Name every call that did not end as its persona must.

    `killed`: the dialer was killed, so a call may have ended as `unknown`, where the log says that a dial was, and an
    attempt may have been withdrawn or repeated by the campaign's rules: the number of its dials is not held.
    """
    for fate in found:
        expected, name = fate.request.expected, fate.request.name
        where = f"`dialer explain {fate.call_id}`"
        if not fate.outcome:
            continue  # the accounts say that it is lost
        if fate.outcome == UNKNOWN and killed and fate.was_unknown:
            continue
        if fate.outcome != expected.outcome:
            yield f"{name} ({fate.request.persona}) ended as {fate.outcome}, not {expected.outcome}; {where}"
        elif len(fate.dials) != expected.dials and not killed:
            yield f"{name} ({fate.request.persona}) was dialed {len(fate.dials)} times, not {expected.dials}; {where}"


def hearings(found: Sequence[Fate], carrier_dir: Path, *, killed: bool) -> list[Hearing]:
    """Compare what every answered phone recorded with its message."""
    return [
        _heard(fate, dial, carrier_dir)
        for fate in found
        for dial in fate.dials
        if dial.answered_at is not None and not fate.request.converses and not (killed and fate.outcome == UNKNOWN)
    ]


def _heard(fate: Fate, dial: Dial, carrier_dir: Path) -> Hearing:
    name, expected = fate.request.name, fate.request.expected
    heard = heard_of(carrier_dir, dial.attempt_id)
    if heard is None:
        return _bad(name, f"{name}: the phone answered, and there is no recording of it; see carrier.log")
    where = f"{carrier_dir}/heard/{dial.attempt_id}.wav ({reception.in_words(heard.reception)})"
    if expected.hears is Hears.BEGINNING:
        ok = _begins_with(heard, fate.request.message)
        return _bad(name, "" if ok else f"{name}: the message did not begin; listen to {where}")
    compared = hearing.compare(heard.samples, SAMPLE_RATE, fate.request.message)
    return Hearing(
        name=name,
        correlation=compared.correlation,
        length_error_ms=compared.length_error_ms,
        finding="" if compared.verdict is Verdict.SAME else f"{name}: {compared.reason}; listen to {where}",
    )


def _bad(name: str, finding: str) -> Hearing:
    return Hearing(name=name, correlation=0.0, length_error_ms=0.0, finding=finding)


def _begins_with(heard: HeardCall, message: str) -> bool:
    """Tell whether the recording begins with the mark of this message, and with no other."""
    found = marks.decode(heard.samples, SAMPLE_RATE)
    return bool(found) and found[0].side is marks.Side.BEGIN and all(m.code == marks.code_of(message) for m in found)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value that this share of the values does not exceed (nearest rank); None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)] if ordered else None
