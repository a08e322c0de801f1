"""The main job from nothing: start a network, run a campaign through it, wait for every end, hold the accounts.

    check -> provision -> start -> send -> wait for every call's end -> accounts, personas, sound, read model -> summary

Exit code 0 means that everything held; otherwise each thing that did not is a line that says where to look.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp

from rehearsal import conversations, recordings, talks
from rehearsal import network as networks
from rehearsal.accounts import TERMINAL, Accounts, settle
from rehearsal.board import Board
from rehearsal.drive import Drive
from rehearsal.gcs import Storage
from rehearsal.killing import kill_amid_calls
from rehearsal.network import Network
from rehearsal.process_spec import NotReady
from rehearsal.producer import Kind, Pipeline, sent_of
from rehearsal.provision import Provisions
from rehearsal.reader import Logged, LogReader
from rehearsal.recordings import Recorded
from rehearsal.scenario import Scenario, build
from rehearsal.stop_signals import cancel_on_signals
from rehearsal.supervisor import Supervisor
from rehearsal.talks import Judged
from rehearsal.verify import Fate, Hearing, fates, hearings, percentile, unexpected
from schemas import topics
from schemas.audit import AUDIT_NAMES

FIRST_RING_GOAL_S: Final = 40.0
SETTLE_TIMEOUT_S: Final = 20.0
"""After the last call's end: for the audit, the read model and the phones to come to rest."""
_TICK_S: Final = 0.25
_REQUEST_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One demo: where it lives, how many calls to each persona, how often the dialer is killed meanwhile."""

    run_dir: Path
    per_persona: int
    kills: int
    timeout_s: float
    conversations: bool
    """Whether the campaigns that converse run too."""
    began_at: float
    """When it all began (Unix time): the wait for the first ring is measured from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a demo found."""

    accounts: Accounts
    hearings: list[Hearing]
    judged: list[Judged]
    recorded: list[Recorded]
    first_ring_s: float | None
    answer_to_audio_ms: dict[str, float | None]
    findings: list[str]


async def demo(options: Options, provisions: Provisions) -> int:
    """Run it; returns the exit code. Every process ends with it, however it ends."""
    cancel_on_signals()
    shutil.rmtree(options.run_dir, ignore_errors=True)
    options.run_dir.mkdir(parents=True)
    network = networks.lay_out(options.run_dir, provisions)
    with Board("dialer rehearsal", options.began_at) as board:
        async with Supervisor(options.run_dir, board.process) as supervisor:
            try:
                await networks.start(network, supervisor)
            except NotReady as error:
                board.say(str(error))
                return 1
            board.say("everything is up; the pipeline sends")
            report = await _campaign(options, network, supervisor, board)
            board.say("ending all processes")
    _print(report, options)
    return 1 if report.findings else 0


async def _campaign(options: Options, network: Network, supervisor: Supervisor, board: Board) -> Report:
    async with _drive(options, network, board) as drive:
        board.expect(drive.by_call())
        showing = asyncio.create_task(_tick(board))
        working: list[asyncio.Task[list[str]]] = [asyncio.create_task(drive.send_all())]
        if options.kills:
            working.append(asyncio.create_task(kill_amid_calls(network, supervisor, drive, board.say, options.kills)))
        try:
            findings = await _await_ends(drive, working, options.timeout_s)
            await _settled(drive)
        finally:
            for task in (*working, showing):
                task.cancel()
            ended = await asyncio.gather(*working, showing, return_exceptions=True)
        for one in ended:
            if isinstance(one, Exception):
                raise one
            if isinstance(one, list):
                findings += one
        return await _report(options, network, drive, findings)


@asynccontextmanager
async def _drive(options: Options, network: Network, board: Board) -> AsyncIterator[Drive]:
    list_file = options.run_dir / "producer.jsonl"
    async with (
        LogReader(network.bootstrap, board.record) as reader,
        Pipeline(network.bootstrap, network.pepper, list_file) as pipeline,
    ):
        yield Drive(
            scenario=_scenario(options),
            pipeline=pipeline,
            reader=reader,
            witness_file=network.carrier_dir / "witness.jsonl",
            pepper=network.pepper,
        )


def _scenario(options: Options) -> Scenario:
    """Everything that is asked for; the calls whose fate the first dial settles first."""
    found = build(options.per_persona)
    return replace(found, requests=[*found.requests, *(conversations.requests() if options.conversations else ())])


async def _tick(board: Board) -> None:
    while True:
        board.tick()
        await asyncio.sleep(_TICK_S)


async def _await_ends(drive: Drive, working: list[asyncio.Task[list[str]]], timeout_s: float) -> list[str]:
    """Wait until everything is sent, every kill done and every call at its end; a failure ends the wait."""
    deadline = time.monotonic() + timeout_s
    while not all(task.done() for task in working) or drive.unfinished():
        if time.monotonic() > deadline:
            waiting = ", ".join(sorted(request.name for request in drive.unfinished())) or "none"
            return [f"not finished after {timeout_s:g} s; calls without an end: {waiting}"]
        if any(task.done() and task.exception() is not None for task in working):
            return []
        await asyncio.sleep(_TICK_S)
    return []


async def _settled(drive: Drive) -> None:
    """Let come to rest what follows the last end: rejections, the audit, phones that hang up. Bounded, not required."""

    def at_rest() -> bool:
        reader = drive.reader
        ends = sum(event.is_decision and event.name in TERMINAL for event in reader.events)
        audited = sum(record.name in TERMINAL for record in reader.of(topics.AUDIT.name))
        meant = sum(sent.kind in (Kind.BROKEN, Kind.CONFLICT) for sent in drive.pipeline.sent)
        rejected = len(reader.of(topics.REJECTED.name))
        return audited >= ends and rejected >= meant and all(dial.ended_at is not None for dial in drive.dials())

    await drive.reader.wait_for(at_rest, SETTLE_TIMEOUT_S)


async def _report(options: Options, network: Network, drive: Drive, findings: list[str]) -> Report:
    killed, dials = options.kills > 0, drive.dials()
    sent = sent_of(options.run_dir / "producer.jsonl")
    accounts = settle(sent, dials, drive.reader.records, killed=killed)
    found = fates(drive.by_call(), drive.reader.events, dials)
    heard = await asyncio.to_thread(hearings, found, network.carrier_dir, killed=killed)
    judged = await asyncio.to_thread(talks.judge_all, found, network.carrier_dir)
    recorded = await _recordings(network, found, drive)
    delays = [dial.answer_to_audio_ms for dial in dials if dial.answer_to_audio_ms is not None]
    findings += accounts.findings
    findings += unexpected(found, killed=killed)
    findings += [hearing.finding for hearing in heard if hearing.finding]
    findings += [finding for one in judged for finding in one.findings]
    findings += [finding for one in recorded for finding in one.findings]
    findings += await _read_model(network, found)
    report = Report(
        accounts=accounts,
        hearings=heard,
        judged=judged,
        recorded=recorded,
        first_ring_s=dials[0].invite_at.timestamp() - options.began_at if dials else None,
        answer_to_audio_ms={"p50": percentile(delays, 0.5), "p99": percentile(delays, 0.99)},
        findings=list(dict.fromkeys(findings)),
    )
    await asyncio.to_thread(_keep_log, options.run_dir / "log.jsonl", drive.reader.records)
    summary = {name: value for name, value in asdict(accounts).items() if name != "findings"}
    if options.conversations:
        summary["audit"] = dict.fromkeys(AUDIT_NAMES, 0) | accounts.audit
        summary |= talks.figures(judged) | {"recordings": recordings.figures(recorded)}
    text = json.dumps({**summary, "answer_to_audio_ms": report.answer_to_audio_ms}, indent=2)
    (options.run_dir / "summary.json").write_text(text + "\n")
    return report


def _keep_log(path: Path, records: Sequence[Logged]) -> None:
    """Write down what was read: the broker's own files are not for reading."""
    rows = sorted(records, key=lambda record: record.at)
    with path.open("w", encoding="utf-8") as log:
        log.writelines(json.dumps(asdict(record), default=str) + "\n" for record in rows)


async def _recordings(network: Network, found: list[Fate], drive: Drive) -> list[Recorded]:
    """Wait for the last recordings to be told of, and look at them all."""
    wanted = {fate.call_id for fate in found if fate.request.converses and recordings.records(fate) and fate.dials}

    def told() -> bool:
        names = {"recording_completed", "recording_failed"}
        return wanted <= {event.call_id for event in drive.reader.events if event.name in names}

    await drive.reader.wait_for(told, SETTLE_TIMEOUT_S)
    async with Storage(network.storage.url) as storage:
        return await recordings.check(found, drive.reader.events, network.carrier_dir, storage)


async def _read_model(network: Network, found: list[Fate]) -> list[str]:
    """Ask the dialer what happened to each call: the read model must say what the log says."""
    deadline, wrong = time.monotonic() + SETTLE_TIMEOUT_S, [fate for fate in found if fate.outcome]
    timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while wrong:
            wrong = [fate for fate in wrong if await _shown(http, network, fate) != fate.outcome]
            if time.monotonic() > deadline:
                break
            if wrong:
                await asyncio.sleep(_TICK_S)
    return [
        f"{fate.request.name}: GET {network.dialer_url}/v1/calls/{fate.call_id} did not say {fate.outcome}"
        for fate in wrong
    ]


async def _shown(http: aiohttp.ClientSession, network: Network, fate: Fate) -> str:
    try:
        async with http.get(f"{network.dialer_url}/v1/calls/{fate.call_id}") as answer:
            view = await answer.json() if answer.status == 200 else {}
    except (TimeoutError, aiohttp.ClientError):
        return ""
    return f"refused_{view['outcome']}" if view.get("status") == "refused" else str(view.get("outcome"))


def _print(report: Report, options: Options) -> None:
    a, delays = report.accounts, report.answer_to_audio_ms
    whole = [one for one in report.hearings if one.correlation]
    correlation = min((one.correlation for one in whole), default=0.0)
    off_ms = max((abs(one.length_error_ms) for one in whole), default=0.0)
    rows = (
        ("commands", f"{a.commands} ({a.accepted} accepted, {a.rejected} rejected), {a.repeated} repetitions"),
        ("calls ended", f"{a.terminal_events}: {', '.join(f'{n} {o}' for o, n in a.outcomes.items())}"),
        ("dials", f"{a.dials_by_witness} by the carrier, {a.attempts_in_log} in the log, {a.unknown} unknown"),
        ("heard", f"{len(whole)} whole messages, correlation >= {correlation:.3f}, length within {off_ms:.0f} ms"),
        ("answer to audio", f"p50 {_ms(delays['p50'])}, p99 {_ms(delays['p99'])}"),
        *_about_talks(report.judged),
        *recordings.about(report.recorded),
        ("audit", ", ".join(f"{count} {name}" for name, count in a.audit.items())),
        ("first ring", f"{report.first_ring_s or 0:.1f} s after the start (goal {FIRST_RING_GOAL_S:.0f} s)"),
        ("lost", str(a.lost)),
        ("doubled", str(a.doubled)),
    )
    print()
    for name, text in rows:
        print(f"  {name:<16} {text}")
    print(f"  {'summary':<16} {options.run_dir / 'summary.json'}; logs: {options.run_dir / 'logs'}")
    for finding in report.findings:
        print(f"  NOT HELD: {finding}")
    print("  everything held" if not report.findings else f"  {len(report.findings)} things did not hold", flush=True)


def _about_talks(judged: Sequence[Judged]) -> list[tuple[str, str]]:
    if not judged:
        return []
    told = talks.figures(judged)
    calls, mailboxes = told["conversations"], told["voicemails"]
    after = mailboxes["after_beep_ms"]
    silent = f"{told['silences_over_4_s']} over 4 s, the longest {told['silence_longest_ms'] / 1000:.1f} s"
    left = f"{mailboxes['whole']} of {mailboxes['left']} whole, after the beep p50 {_ms(after['p50'])}"
    return [
        ("conversations", f"{calls['calls']} calls, {calls['turns']} things said to the agent"),
        ("silences", silent),
        ("voicemails", f"{left}, at most {_ms(after['max'])}"),
    ]


def _ms(value: float | None) -> str:
    return "none" if value is None else f"{value:.0f} ms"
