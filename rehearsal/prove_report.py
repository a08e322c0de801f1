"""What a proof found: the accounts, the kills by process, phase and step, and what of it must hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from rehearsal.accounts import Accounts
from rehearsal.disturbing import Struck
from rehearsal.prove_flight import PHASES
from rehearsal.prove_plan import How, Victim
from rehearsal.run_env import SESSION_TIMEOUT_S
from rehearsal.verify import percentile

UNKNOWN_PER_DIALER_KILL_MAX: Final = 2
UNKNOWN_SHARE_MAX: Final = 0.005
DECIDED_AGAIN_MAX_S: Final = SESSION_TIMEOUT_S + 3.0
TERMINAL_WITHIN_S: Final = 120.0
ANYWHERE: Final = "anywhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run brought in."""

    asked: int
    kills_asked: int
    pauses_asked: int
    in_flight_min: int
    struck: tuple[Struck, ...]
    missed: tuple[str, ...]
    accounts: Accounts
    terminal_after_s: float
    took_s: float

    def of(self, how: How) -> list[Struck]:
        """Return the kills, or the pauses."""
        return [one for one in self.struck if one.how is how]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The report: as text, as `summary.json`, and what did not hold, a line each."""

    text: str
    summary: dict[str, Any]
    findings: tuple[str, ...]
    broken: bool
    """Whether a promise was broken, and not only a figure missed: that, chance or a busy machine may do."""


def report(ran: Ran) -> Findings:
    """Judge a run."""
    summary = _summary(ran)
    return Findings(text=_text(ran, summary), summary=summary, findings=tuple(_findings(ran)), broken=_is_broken(ran))


def _is_broken(ran: Ran) -> bool:
    return bool(ran.accounts.findings) or ran.accounts.accepted != ran.asked


def _findings(ran: Ran) -> Iterator[str]:
    accounts = ran.accounts
    yield from accounts.findings
    yield from ran.missed
    if accounts.accepted != ran.asked:
        yield f"{ran.asked} calls were asked for and {accounts.accepted} were accepted"
    dialer_kills = sum(one.victim is Victim.DIALER for one in ran.of(How.KILL))
    if accounts.unknown > UNKNOWN_PER_DIALER_KILL_MAX * dialer_kills:
        yield f"{accounts.unknown} unknown: more than {UNKNOWN_PER_DIALER_KILL_MAX} for each of {dialer_kills} dialer kills"
    if accounts.unknown > UNKNOWN_SHARE_MAX * ran.asked:
        yield f"{accounts.unknown} unknown: more than {UNKNOWN_SHARE_MAX:.1%} of {ran.asked} calls"
    for how, asked in ((How.KILL, ran.kills_asked), (How.PAUSE, ran.pauses_asked)):
        if len(ran.of(how)) < asked:
            yield f"{len(ran.of(how))} of {asked} {how}s were done"
    for one in ran.struck:
        if one.in_flight < ran.in_flight_min and one.step not in _AT_TAKEOVER:
            yield f"{one.how} of {one.process} at {one.step or ANYWHERE} came with {one.in_flight} calls in flight"
        if one.decided_again_s is not None and one.decided_again_s > DECIDED_AGAIN_MAX_S:
            yield (
                f"after the kill of {one.process} at {one.step or ANYWHERE} its calls were decided again after "
                f"{one.decided_again_s:.1f} s, more than {DECIDED_AGAIN_MAX_S:g} s"
            )
    if ran.terminal_after_s > TERMINAL_WITHIN_S:
        yield f"the last call ended {ran.terminal_after_s:.0f} s after the last kill"


_AT_TAKEOVER: Final = frozenset({"takeover_fenced", "takeover_restored", "takeover_resumed"})
"""Kills that follow another kill: what is in flight was counted at the first."""


def _summary(ran: Ran) -> dict[str, Any]:
    accounts = {name: value for name, value in asdict(ran.accounts).items() if name != "findings"}
    again = [one.decided_again_s for one in ran.struck if one.decided_again_s is not None]
    return {
        **accounts,
        "kills": _by_process(ran.of(How.KILL)),
        "pauses": _by_process(ran.of(How.PAUSE)),
        "kills_by_step": dict(sorted(Counter(_where(one) for one in ran.of(How.KILL)).items())),
        "pauses_by_step": dict(sorted(Counter(_where(one) for one in ran.of(How.PAUSE)).items())),
        "calls_by_phase_at_kills": _by_phase(ran.of(How.KILL)),
        "in_flight_at_kills_min": min((one.in_flight for one in ran.of(How.KILL)), default=0),
        "decided_again_s": {"p50": percentile(again, 0.5), "max": max(again, default=None)},
        "last_end_after_last_kill_s": round(ran.terminal_after_s, 1),
        "took_s": round(ran.took_s, 1),
    }


def _where(one: Struck) -> str:
    return f"{one.victim}/{one.step or ANYWHERE}"


def _by_process(struck: list[Struck]) -> dict[str, int]:
    return dict(sorted(Counter(one.process for one in struck).items()))


def _by_phase(struck: list[Struck]) -> dict[str, dict[str, int]]:
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in struck:
        found[one.victim.value].update(one.moment.phases)
    return {victim: {phase: counts[phase] for phase in PHASES} for victim, counts in sorted(found.items())}


def _text(ran: Ran, summary: dict[str, Any]) -> str:
    a, again = ran.accounts, summary["decided_again_s"]
    rows = [
        ("calls", f"{a.accepted} accepted of {ran.asked} asked, {a.repeated} repetitions, {a.rejected} rejected"),
        ("ended", f"{a.terminal_events}: {', '.join(f'{n} {o}' for o, n in a.outcomes.items())}"),
        ("dials", f"{a.dials_by_witness} by the carrier, {a.attempts_in_log} in the log, {a.unknown} unknown"),
        ("kills", ", ".join(f"{count} {name}" for name, count in summary["kills"].items())),
        ("pauses", ", ".join(f"{count} {name}" for name, count in summary["pauses"].items())),
        ("kills by step", ", ".join(f"{count} {name}" for name, count in summary["kills_by_step"].items())),
        ("in flight at kills", f"{summary['in_flight_at_kills_min']} at least"),
    ]
    for victim, phases in summary["calls_by_phase_at_kills"].items():
        rows.append((f"  {victim}", ", ".join(f"{count} {phase}" for phase, count in phases.items())))
    rows += [
        ("decided again", f"p50 {_s(again['p50'])}, max {_s(again['max'])} (must: {DECIDED_AGAIN_MAX_S:g} s)"),
        ("last end", f"{ran.terminal_after_s:.0f} s after the last kill (must: {TERMINAL_WITHIN_S:g} s)"),
        ("took", f"{ran.took_s:.0f} s"),
        ("lost", str(a.lost)),
        ("doubled", str(a.doubled)),
    ]
    return "\n".join(f"  {name:<22} {text}" for name, text in rows)


def _s(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} s"
