"""`python -m tests.mutants [--seed S] [--sample N] [--only WORD] [--jobs 2] [--within SECONDS] [--again]`.

Verdicts are kept in run/mutants/verdicts.jsonl: a run that was broken off goes on where it was, and a mutant that was
killed is not made again while its function stays as it is (`--again` forgets). Exit 0: enough are killed, and every
survivor has its reason; 1: not so; 2: the tests fail without any mutant; 3: time was over first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from tests.mutants import survivors
from tests.mutants.afresh import killed_by
from tests.mutants.force import bring_into_force, readers
from tests.mutants.operators import ROOT, Enums, Module, Mutant, Where
from tests.mutants.session import Session, collected, quiet_hypothesis
from tests.mutants.workers import Job, run

KEPT: Final = ROOT / "run" / "mutants" / "verdicts.jsonl"
ENUMS: Final = ("schemas/outcomes.py", "dialer/callee/state.py", "dialer/gate.py")
CACHING: Final = frozenset({"dialer/callee/copying.py"})
"""Modules that keep what they once made: a fault in them shows in a new process only."""
AFRESH_TIMEOUT_S: Final = 180.0
UNCOVERED: Final = "uncovered"
"""No test runs its lines: what builds a table at import is made afresh instead."""
PROGRESS_EACH: Final = 100
GATE: Final = "dialer/gate.py"


@dataclass(slots=True)
class Book:
    """The verdicts so far, written down one by one."""

    path: Path
    verdicts: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Key → digest, killed or survived, by which test."""

    def read(self) -> None:
        """Read what an earlier run wrote."""
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                row = json.loads(line)
                self.verdicts[row["key"]] = (row["digest"], row["verdict"], row["by"])

    def write(self, mutant: Mutant, verdict: str, by: str) -> None:
        """Note one verdict."""
        self.verdicts[mutant.key] = (mutant.digest, verdict, by)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        row = {"key": mutant.key, "digest": mutant.digest, "verdict": verdict, "by": by}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def is_killed(self, mutant: Mutant) -> bool:
        """Tell whether this very mutant was killed before."""
        digest, verdict, _ = self.verdicts.get(mutant.key, ("", "", ""))
        return verdict == "killed" and digest == mutant.digest


@dataclass(slots=True)
class Run:
    """One run over a set of mutants."""

    modules: dict[str, Module]
    book: Book
    jobs: int
    until: float
    planned: int
    done: int = 0
    accepted: dict[str, str] = field(default_factory=survivors.accepted)

    def all(self, mutants: list[Mutant]) -> int:
        """Make them, the listed survivors last: each runs every test that could notice it."""
        quiet_hypothesis()
        import schemas.events  # noqa: F401  # everything but what is under test, once for all forks

        afresh = [m for m in mutants if _needs_import(m)]
        rest = [m for m in mutants if not _needs_import(m)]
        for listed in (False, True):
            part = [m for m in rest if (m.key in self.accepted) is listed]
            code = self.in_session(part) if part else 0
            if code:
                return code
            self.book.read()
            uncovered = [m for m in part if self.book.verdicts.get(m.key, ("", "", ""))[1] == UNCOVERED]
            self.afresh([*uncovered, *(m for m in afresh if (m.key in self.accepted) is listed)])
        return 0

    def in_session(self, mutants: list[Mutant]) -> int:
        """Make those that can come into force in a running session; returns 2 when the tests fail without any."""
        by_key = {m.key: m for m in mutants}

        def then(session: Session) -> None:
            if session.failing:
                sys.stderr.write("these fail without a mutant:\n  " + "\n  ".join(session.failing) + "\n")
                os._exit(2)
            sys.stderr.write(f"{len(session.items)} tests watched, {sum(session.took_s):.1f} s\n")
            covered = [m for m in mutants if session.covering(m)]
            known = {m.key for m in covered}
            for mutant in [m for m in mutants if m.key not in known]:
                self.book.write(mutant, UNCOVERED, "")
            for end in run(self._in_turn(self._job(session, m) for m in covered), self.jobs):
                by = end.answer if end.ended == "answered" else -1
                if by is not None and by >= 0:
                    session.kills[by_key[end.name].path][by] += 1
                self._note(by_key[end.name], None if by is None else session.items[by].nodeid if by >= 0 else end.ended)
            os._exit(0)

        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # pytest's own words
            watched = frozenset(str(ROOT / path) for path in self.modules)
            session = Session(then, watched, KEPT.with_name("watched.json"), partial(readers, modules=self.modules))
            code = collected(session, [str(p) for p in tests()])
            os._exit(code or 4)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _job(self, session: Session, mutant: Mutant) -> Job:
        chosen = session.covering(mutant)

        def work() -> int | None:
            bring_into_force(mutant, self.modules[mutant.path])
            return session.killer(chosen)

        return Job(mutant.key, session.timeout_s(chosen), work)

    def afresh(self, mutants: list[Mutant]) -> None:
        """Make those that need a new import."""
        by_key = {m.key: m for m in mutants}
        files = [str(p) for p in sorted(tests(), key=_likely)]

        def job(mutant: Mutant) -> Job:
            relevant = [f for f in files if "gate" in Path(f).name] if mutant.path == GATE else files
            return Job(mutant.key, AFRESH_TIMEOUT_S, lambda: killed_by(mutant, self.modules[mutant.path], relevant))

        for end in run(self._in_turn(map(job, mutants)), self.jobs):
            self._note(by_key[end.name], end.answer if end.ended == "answered" else end.ended)

    def _in_turn(self, jobs: Iterable[Job]) -> Iterator[Job]:
        for job in jobs:
            if time.monotonic() >= self.until:
                return
            yield job

    def _note(self, mutant: Mutant, by: str | None) -> None:
        self.done += 1
        self.book.write(mutant, "survived" if by is None else "killed", by or "")
        if by is None and mutant.key not in self.accepted:
            sys.stderr.write(f"survived  {mutant.path}:{mutant.line}  {mutant.key}\n")
        if self.done % PROGRESS_EACH == 0:
            sys.stderr.write(f"{self.done} of {self.planned}\n")


def _needs_import(mutant: Mutant) -> bool:
    return mutant.where is Where.CLASS or mutant.path in CACHING


def _likely(path: Path) -> tuple[bool, str]:
    return ("walks" not in path.name and "ending" not in path.name, path.name)


def tests() -> list[Path]:
    """Return the test files of the core and the gate: no broker, no livekit-server, seconds in all."""
    return [*sorted((ROOT / "tests/callee").glob("test_*.py")), *sorted((ROOT / "tests/shell").glob("test_gate*.py"))]


def modules() -> dict[str, Module]:
    """Parse everything that is under test."""
    enums = Enums(*(ROOT / path for path in ENUMS))
    paths = [*sorted((ROOT / "dialer/callee").glob("*.py")), ROOT / GATE]
    names = [p.relative_to(ROOT).as_posix() for p in paths]
    return {name: Module(name, enums) for name in names}


def main() -> int:
    """Run, print the survivors and the share of the killed."""
    args = _arguments()
    began = time.monotonic()
    found = modules()
    everything = [m for module in found.values() for m in module.mutants]
    mutants = [m for m in everything if args.only in m.key]
    if args.sample:
        mutants = random.Random(args.seed).sample(mutants, min(args.sample, len(mutants)))
        sys.stderr.write(f"--seed {args.seed} --sample {len(mutants)}\n")
    book = Book(KEPT)
    if args.again:
        KEPT.unlink(missing_ok=True)
    book.read()
    todo = [m for m in mutants if not book.is_killed(m)]
    if args.survivors:
        mutants = todo = [m for m in todo if m.key in book.verdicts]
    todo.sort(key=lambda m: m.key in book.verdicts)  # what was never made first
    going = Run(found, book, args.jobs, began + args.within, planned=len(todo))
    code = going.all(todo)
    if code:
        return code
    book.read()
    return _report(
        mutants, everything, book, time.monotonic() - began, whole=not (args.only or args.sample or args.survivors)
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--sample", type=int, default=0, help="make so many, drawn by the seed; 0: all")
    parser.add_argument("--only", default="", help="only mutants whose key holds this, such as judge.py")
    parser.add_argument("--survivors", action="store_true", help="only those that survived before")
    parser.add_argument("--jobs", type=int, default=2, help="workers at once")
    parser.add_argument("--within", type=float, default=3600.0, help="begin no mutant after so many seconds")
    parser.add_argument("--again", action="store_true", help="forget the verdicts of earlier runs")
    return parser.parse_args()


def _report(mutants: list[Mutant], everything: list[Mutant], book: Book, took_s: float, *, whole: bool) -> int:
    verdicts = {
        m: book.verdicts[m.key][1] for m in mutants if m.key in book.verdicts and book.verdicts[m.key][0] == m.digest
    }
    killed = [m.key for m, v in verdicts.items() if v == "killed"]
    survived = [m.key for m, v in verdicts.items() if v == "survived"]
    judged = survivors.judge(killed, survived, (m.key for m in everything))
    print()
    for path in sorted({m.path for m in mutants}):
        of = [v for m, v in verdicts.items() if m.path == path]
        print(f"{path:32} {len(of):5} mutants, {of.count('killed') / max(1, len(of)):7.2%} killed")
    for key in judged.unexplained:
        print(f"no reason is given for: {key}")
    for key in judged.outdated:
        print(f"take it off the list:   {key}")
    missing = len(mutants) - len(killed) - len(survived)
    stopped = sum(book.verdicts[key][2] in {"timeout", "died"} for key in killed)
    print(
        f"{judged.killed} of {judged.total} killed = {judged.share:.2%} (limit {survivors.KILLED_MIN:.0%}), "
        f"{stopped} of them by time or memory; "
        f"{len(survived)} survive, {len(judged.unexplained)} without a reason; {missing} not made; {took_s:.0f} s"
    )
    if missing and whole:
        return 3
    return 0 if judged.holds else 1


if __name__ == "__main__":
    sys.exit(main())
