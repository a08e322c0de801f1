"""`python -m rehearsal`, also `dialer rehearse`: a telephone network in a box, and what can be done with it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rehearsal import prerequisites
from rehearsal.demo import Options, demo
from rehearsal.prove import Options as ProveOptions
from rehearsal.prove import prove
from rehearsal.provision import ProvisionFailed, Provisions, provision
from rehearsal.rolling import rolling
from rehearsal.up import down, status, stay, up

HELP: Final = """\
A telephone network in a box: the real Kafka and the real livekit-server, with a carrier, phones and a speech service
that stand in for the world outside. Nobody is rung; everything else is real, the audio too.

  python -m rehearsal check        what this machine lacks, and the line that installs it (2 s, downloads nothing)
  python -m rehearsal provision    fetch Kafka, build livekit-server and fake-gcs-server, once
  python -m rehearsal demo         run campaigns of some 70 calls from nothing, and hold the accounts (4 minutes)
  python -m rehearsal demo-kill    the same, the dialer killed by SIGKILL three times amid live calls
  python -m rehearsal prove        never twice, never lost: hundreds of calls without media, every process killed amid them
  python -m rehearsal up           start a network that stays, and print its addresses and a first command
  python -m rehearsal status       is it up, and where
  python -m rehearsal down         stop it; its data is kept

Who picks up is chosen by the last two digits of the number:
  00-09 answers        10-19 answers late      20-29 busy              30-39 declines     40-49 no answer
  50-59 not found      60-69 blocked           70-79 trunk overloaded  80-89 hangs up     90-99 sends no audio
In the area codes 646 (English) and 917 (Spanish) phones follow a script, five numbers each (rehearsal/scripts):
  00 talks             05 interrupts           10 stays silent         15 presses keys    20 opts out
  25 opts out by key   30 asks for a person    35 voicemail, beep      40 voicemail, none 45 voicemail, long
  50 mailbox full      55 screening, connects  60 screening, refuses   65 menu            70 "he is not available"
  75 business greeting 80 answering service    85 hangs up amid        90 says hello late 95 says nothing
"""
EPILOG: Final = """\
Everything of a run lies in its directory: env (settings and secrets), logs/, kafka/, carrier/witness.jsonl (every INVITE),
carrier/heard/ (what phones heard, as .wav), carrier/talks/ (what phones with a script said and did), gcs/ (recordings),
producer.jsonl (what was asked for), log.jsonl (what came of it), summary.json.

exit codes: 0 all well, 1 something did not hold or did not start (a line each says what), 3 not up, 4 a figure was missed and no
promise broken (prove), 130 interrupted
"""
DEMO_TIMEOUT_S: Final = 600.0
KILL_TIMEOUT_S: Final = 420.0
INTERRUPTED: Final = 130
KILLS_PER_1000: Final = 32
PAUSES_PER_1000: Final = 3
PAUSES_MIN: Final = 3


def _say(line: str) -> None:
    print(line, flush=True)


def _provisioned() -> Provisions | int:
    """Check, then fetch what is not there; an exit code where that fails."""
    missing = prerequisites.check()
    if missing:
        return prerequisites.report(missing)
    try:
        return provision(_say)
    except ProvisionFailed as error:
        print(error, file=sys.stderr)
        return 1


def _check(_: argparse.Namespace) -> int:
    return prerequisites.report(prerequisites.check())


def _provision(_: argparse.Namespace) -> int:
    found = _provisioned()
    return found if isinstance(found, int) else 0


def _demo(asked: argparse.Namespace) -> int:
    found = _provisioned()
    if isinstance(found, int):
        return found
    options = Options(
        run_dir=asked.run_dir,
        per_persona=asked.per_persona,
        kills=asked.kills,
        timeout_s=asked.timeout_s,
        conversations=asked.conversations,
        began_at=asked.began_at,
    )
    return asyncio.run(demo(options, found))


def _prove(asked: argparse.Namespace) -> int:
    found = _provisioned()
    if isinstance(found, int):
        return found
    if asked.rolling:
        return asyncio.run(rolling(asked.run_dir, asked.rolling, found))
    options = ProveOptions(
        run_dir=asked.run_dir,
        calls=asked.calls,
        kills=asked.kills if asked.kills is not None else asked.calls * KILLS_PER_1000 // 1000,
        pauses=asked.pauses if asked.pauses is not None else max(PAUSES_MIN, asked.calls * PAUSES_PER_1000 // 1000),
        seed=asked.seed,
    )
    return asyncio.run(prove(options, found))


def _up(asked: argparse.Namespace) -> int:
    found = _provisioned()
    return found if isinstance(found, int) else up(asked.run_dir, found, _say)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    commands = argparse.ArgumentParser(
        prog="python -m rehearsal",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python -m rehearsal COMMAND [--help]",
    )
    which = commands.add_subparsers(
        prog="python -m rehearsal", dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS
    )

    def add(
        name: str, does: Callable[[argparse.Namespace], int], says: str, run_dir: str = ""
    ) -> argparse.ArgumentParser:
        one = which.add_parser(name, description=says)
        one.set_defaults(does=does)
        if run_dir:
            one.add_argument("--run-dir", type=Path, default=Path(run_dir), help=f"where it lives (default {run_dir})")
        return one

    add("check", _check, "Name what this machine lacks, with the line that installs it.")
    add("provision", _provision, "Fetch Kafka, build livekit-server and fake-gcs-server into the cache, once.")
    for name, kills, per_persona, timeout_s in (("demo", 0, 2, DEMO_TIMEOUT_S), ("demo-kill", 3, 3, KILL_TIMEOUT_S)):
        one = add(name, _demo, "Run a campaign from nothing and hold the accounts of it.", f"run/{name}")
        one.add_argument(
            "--per-persona", type=int, choices=range(1, 11), default=per_persona, help="calls to each persona"
        )
        one.add_argument("--kills", type=int, choices=range(11), default=kills, help="SIGKILLs of the dialer meanwhile")
        one.add_argument(
            "--conversations",
            action=argparse.BooleanOptionalAction,
            default=not kills,
            help="run the campaigns that converse and leave messages, too",
        )
        one.add_argument("--timeout-s", type=float, default=timeout_s, help="how long all calls may take to end")
        one.add_argument(
            "--began-at", type=float, default=time.time(), help="when it began (Unix time; `make` gives it)"
        )
    one = add("prove", _prove, "Kill and pause real processes amid calls, and hold the accounts of it.", "run/prove")
    one.add_argument("--calls", type=int, default=500, help="calls at least (default 500)")
    one.add_argument("--kills", type=int, help=f"SIGKILLs (default {KILLS_PER_1000} for each 1000 calls)")
    one.add_argument(
        "--pauses", type=int, help=f"SIGSTOPs (default {PAUSES_PER_1000} for each 1000 calls, {PAUSES_MIN} at least)"
    )
    one.add_argument(
        "--rolling", type=int, metavar="N", help="instead: restart the dialers in turn while N phones ring"
    )
    one.add_argument("--seed", type=int, default=1, help="what is struck in which order (default 1)")
    add("up", _up, "Start a network that stays; does nothing when it is up.", "run/up")
    add("down", lambda asked: down(asked.run_dir), "Stop it; its data is kept.", "run/up")
    add("status", lambda asked: status(asked.run_dir), "Say whether it is up, and where.", "run/up")
    add("stay", lambda asked: asyncio.run(stay(asked.run_dir)), "What `up` starts: the supervisor itself.", "run/up")
    return commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    asked = parser().parse_args(arguments)
    try:
        return int(asked.does(asked))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; everything it had started has ended", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
