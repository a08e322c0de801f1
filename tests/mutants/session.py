"""One pytest session for all mutants: tests are collected once, watched once, then run in forked workers."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import pytest

from tests.mutants.operators import ROOT, Mutant, Where

TIMES_SLOWER_MAX: Final = 10
WATCHED_SLOWER: Final = 4.0
"""How many times slower a watched test runs, about: its time orders the tests, and bounds their workers."""
SPARE_S: Final = 20.0
"""A worker may take so many times as long as its tests took unchanged, and this much more (other work on the machine)."""
OPTIONS: Final = ("-qq", "-s", "-p", "no:cacheprovider", "-p", "no:rerunfailures")


@dataclass(slots=True, eq=False)
class Outcome:
    """Whether the last test passed."""

    failed: bool = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure in set-up, call or tear-down."""
        self.failed = self.failed or report.failed


@dataclass(slots=True, eq=False)
class Session:
    """The collected tests, how long each takes, and which lines it runs."""

    then: Callable[[Session], None]
    """Called when everything is collected and watched, inside pytest's loop."""
    watched: frozenset[str]
    """Absolute names of the files under test."""
    kept: Path
    """Where the lines are kept for a next run over the very same files."""
    readers: Callable[[str, str], tuple[frozenset[str], frozenset[tuple[str, int]]]]
    """Of a path and its variables: which others are made of them, and the lines that read any."""
    items: list[pytest.Item] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    lines: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    reading: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    kills: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Per module: which tests killed mutants of it."""
    outcome: Outcome = field(default_factory=Outcome)
    failing: list[str] = field(default_factory=list)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take pytest's place once everything is collected."""
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors while collecting")
        session.config.pluginmanager.register(self.outcome)
        self.items = [i for i in session.items if not _is_heavy(i)]
        if not self._recall():
            self._watch()
        gc.collect()
        gc.freeze()  # what is shared with the workers stays shared
        self.then(self)
        return True

    def _watch(self) -> None:
        """Run every test once, and keep which lines it runs."""
        for number, item in enumerate(self.items):
            began = time.perf_counter()
            with watching(self.watched) as seen:
                passed = self.passes(item)
            self.took_s.append((time.perf_counter() - began) / WATCHED_SLOWER)
            for name, line in seen():
                self.lines.setdefault((name, line), set()).add(number)
            if not passed:
                self.failing.append(item.nodeid)
        if not self.failing:
            lines = [[name, line, sorted(tests)] for (name, line), tests in self.lines.items()]
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            self.kept.write_text(json.dumps({"of": self._digest(), "took_s": self.took_s, "lines": lines}))

    def _recall(self) -> bool:
        """Take what an earlier run kept of the very same files."""
        if not self.kept.exists() or (kept := json.loads(self.kept.read_text()))["of"] != self._digest():
            return False
        self.took_s = kept["took_s"]
        self.lines = {(name, line): set(tests) for name, line, tests in kept["lines"]}
        return True

    def _digest(self) -> str:
        near = {path for item in self.items for path in item.path.parent.glob("*.py")}
        files = sorted({*near, *map(Path, self.watched), *(ROOT / "tests").glob("*.py")})
        names = "\n".join(item.nodeid for item in self.items)
        return sha256(b"".join([names.encode(), *(path.read_bytes() for path in files)])).hexdigest()

    def passes(self, item: pytest.Item) -> bool:
        """Run one test from its set-up on."""
        self.outcome.failed = False
        item._initrequest()  # type: ignore[attr-defined]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self.outcome.failed

    def covering(self, mutant: Mutant) -> list[int]:
        """Return the tests that may notice: those that run its lines, the likeliest and quickest first.

        A variable is made at import: those that run a line which reads it, and those whose file names it.
        """
        if mutant.where is Where.FUNCTION or mutant.lazily:
            path = str(ROOT / mutant.path)
            found = self._running((path, n) for n in range(mutant.line, mutant.last_line + 1))
        else:
            found = self._reading(mutant.path, mutant.scope)
        kills = self.kills[mutant.path]
        return sorted(found, key=lambda n: (-kills[n], self.took_s[n]))

    def _running(self, lines: Iterable[tuple[str, int]]) -> set[int]:
        return set[int]().union(*(self.lines.get(line, set()) for line in lines))

    def _reading(self, path: str, scope: str) -> set[int]:
        if (path, scope) not in self.reading:
            names, lines = self.readers(path, scope)
            named = {p for p in {item.path for item in self.items} if any(name in p.read_text() for name in names)}
            naming = {n for n, item in enumerate(self.items) if item.path in named}
            self.reading[path, scope] = self._running(lines) | naming
        return self.reading[path, scope]

    def killer(self, tests: Sequence[int]) -> int | None:
        """Run tests until one fails, and return it."""
        return next((n for n in tests if not self.passes(self.items[n])), None)

    def timeout_s(self, tests: Sequence[int]) -> float:
        """Return how long a worker may take over these tests."""
        return SPARE_S + TIMES_SLOWER_MAX * sum(self.took_s[n] for n in tests)


def _is_heavy(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(mark) for mark in ("broker", "livekit", "e2e", "slow", "docker"))


class watching:  # noqa: N801  # reads as the verb it is
    """Collect the lines of some files that are run meanwhile."""

    def __init__(self, files: frozenset[str]) -> None:
        self.files = files
        self.seen: set[tuple[CodeType, int]] = set()

    def __enter__(self) -> Callable[[], Iterator[tuple[str, int]]]:
        """Begin; what is returned tells the lines, afterwards."""
        sys.settrace(self._called)
        return lambda: ((code.co_filename, line) for code, line in self.seen)

    def __exit__(self, *_: object) -> None:
        """End."""
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        del arg
        if event != "call" or frame.f_code.co_filename not in self.files:
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        del event, arg
        self.seen.add((frame.f_code, frame.f_lineno))
        return self._line


def collected(session: Session, tests: Sequence[str]) -> int:
    """Run pytest with this session in the place of its loop; returns its exit code."""
    return int(pytest.main([*OPTIONS, *tests], plugins=[session]))


def quiet_hypothesis() -> None:
    """Let generated examples be the same each time, and a failure end at once instead of being made small."""
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutants")
