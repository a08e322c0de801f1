"""The house enforces itself: a rule without a test is a wish.

Imports point one way, files and functions stay small, time comes from one door, names say something, and nothing of the
machine it was written on is left behind. Source: design §9; reference/style.md 4.4, 4.5.
"""

from __future__ import annotations

import ast
import gc
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "runtime", "dialer", "agent", "projections", "rehearsal", "bench")
FILE_LINES_MAX = 350
TEST_FILE_LINES_MAX = 550
"""One port, one suite: a suite is read row by row, and not cut by its length."""
FUNCTION_LINES_MAX = 80
MAY_IMPORT: dict[str, set[str]] = {
    "schemas": set(),
    "runtime": {"schemas"},
    "dialer": {"schemas", "runtime"},
    "agent": {"schemas", "runtime"},
    "projections": {"schemas", "runtime"},
    "rehearsal": {"schemas", "runtime"},  # never dialer: the accounts are independent
    "bench": {
        "schemas",
        "runtime",
        "dialer",
        "agent",
        "rehearsal",
    },  # what it measures, and the broker and phones to measure on
}
LIBRARIES_OF_SCHEMAS = {"pydantic", "pydantic_core", "orjson", "phonenumbers", "annotated_types"}
OUTGROWN: dict[str, str] = {}
"""Files above the limit, each with its reason; a file that fits again is taken off (a test says so)."""
TOP_LEVELS: dict[str, str] = {
    "agent/job.py:_held": "hangs up with a goodbye; the worker's parent says that the job crashed",
    "dialer/cli/commands.py:main": "the CLI: one line to the user and exit code 1",
    "dialer/intake.py:_handle": "hands the bug to the clock, which ends the process",
    "projections/__main__.py:main": "the read side: one line to the log and exit code 1",
}
"""`path:function` where `except Exception` may stand: once, at the top, to exit; each with its reason."""


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files of the house: what git tracks, or would if it were added now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(ROOT / name for name in listed if (ROOT / name).is_file())


def sources(*folders: str) -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in folders]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    gc.disable()  # CPython 3.11: a collection amid ast.parse may end it with "recursion depth mismatch"
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imported(path: Path) -> Iterator[str]:
    """Name every module that a file imports, whole."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_between_packages_point_one_way(package: str) -> None:
    """`schemas` ← `runtime` ← everything; the three processes and the rehearsal never import each other."""
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in sources(package)
        for module in imported(path)
        if (top := module.split(".")[0]) in PACKAGES and top != package and top not in MAY_IMPORT[package]
    ]
    assert not sorted(set(wrong))


def test_the_core_imports_the_contract_and_the_standard_library_only() -> None:
    """`dialer/callee`: no shell, no clock, no I/O."""
    wrong = []
    for path in sources("dialer"):
        if name_of(path).startswith("dialer/callee/"):
            for module in imported(path):
                top = module.split(".")[0]
                own = module == "dialer.callee" or module.startswith("dialer.callee.")
                if not (
                    own or top in {"schemas", "__future__"} or (top in sys.stdlib_module_names and top not in IMPURE)
                ):
                    wrong.append(f"{name_of(path)} imports {module}")
    assert not sorted(set(wrong))


IMPURE = {"asyncio", "os", "time", "random", "secrets", "socket", "threading", "subprocess", "pathlib", "logging"}


def test_the_contract_needs_few_libraries() -> None:
    """`schemas` may import pydantic, orjson, phonenumbers."""
    wrong = {
        f"{name_of(path)} imports {module}"
        for path in sources("schemas")
        for module in imported(path)
        if (top := module.split(".")[0]) not in LIBRARIES_OF_SCHEMAS | {"schemas"}
        and top not in sys.stdlib_module_names
    }
    assert not sorted(wrong)


FORBIDDEN_MODULES = {"time", "random", "secrets", "uuid", "threading"}
FORBIDDEN_CALLS = {
    "asyncio.sleep",
    "asyncio.create_task",
    "asyncio.ensure_future",
    "asyncio.TaskGroup",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "datetime.datetime.now",
    "os.urandom",
    "os.getrandom",
}


def test_the_dialer_takes_time_and_chance_from_the_clock_only() -> None:
    """Time, sleep, randomness, ids and tasks come from `runtime.clock`, so that a simulation can own them."""
    wrong = []
    for path in sources("dialer"):
        wrong += [f"{name_of(path)} imports {m}" for m in imported(path) if m.split(".")[0] in FORBIDDEN_MODULES]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN_CALLS:
                wrong.append(f"{name_of(path)}:{node.lineno} uses {ast.unparse(node)}")
            if isinstance(node, ast.Attribute) and node.attr in {
                "create_task",
                "run_in_executor",
                "call_later",
                "call_at",
            }:
                wrong.append(f"{name_of(path)}:{node.lineno} uses {node.attr}")
    assert not sorted(set(wrong))


def test_files_stay_small_enough_to_be_read() -> None:
    """One idea a file."""
    sizes = {name_of(p): len(p.read_text().splitlines()) for p in sources(*PACKAGES, "tests")}
    too_long = {
        name: size
        for name, size in sizes.items()
        if size > (TEST_FILE_LINES_MAX if name.startswith("tests/") else FILE_LINES_MAX) and name not in OUTGROWN
    }
    assert not too_long
    assert not {name for name in OUTGROWN if sizes.get(name, 0) <= FILE_LINES_MAX}, "fits again: take it off the list"


def test_functions_stay_small_enough_to_be_read() -> None:
    """When a function grows, look for the table it wants to be."""
    wrong = {
        f"{name_of(path)}:{node.name} {(node.end_lineno or 0) - node.lineno + 1}"
        for path in sources(*PACKAGES, "tests")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    }
    assert not wrong


BANNED = re.compile(r"(^|_)(managers?|helpers?|utils?|utilities|commons?|misc)(_|$)")


def words(name: str) -> str:
    """Write a name in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def test_no_name_says_nothing() -> None:
    """Manager, helper, util, common, misc: of files, classes and functions."""
    wrong = [
        name_of(p)
        for p in tracked()
        if any(BANNED.search(words(Path(part).stem)) for part in p.relative_to(ROOT).parts)
    ]
    for path in sources(*PACKAGES, "tests"):
        wrong += [
            f"{name_of(path)}:{node.name}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and BANNED.search(words(node.name))
        ]
    assert not wrong


def catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"} for kind in kinds)


def test_nobody_swallows_every_exception() -> None:
    """`except Exception` stands once, at a top level, to exit; a handler that only raises again hides nothing."""
    wrong = []
    for path in sources(*PACKAGES):
        for function in ast.walk(tree(path)):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if (
                    isinstance(node, ast.ExceptHandler)
                    and catches_all(node)
                    and not isinstance(node.body[-1], ast.Raise)
                ):
                    where = f"{name_of(path)}:{function.name}"
                    if where not in TOP_LEVELS:
                        wrong.append(where)
    assert not sorted(set(wrong))


def sentences(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


def test_the_name_of_a_test_is_a_sentence() -> None:
    """Three words at least, and a line that says what it is about."""
    wrong = [
        f"{name_of(path)}:{node.name}"
        for path in sources("tests")
        for node in sentences(path)
        if len(node.name.removeprefix("test_").split("_")) < 3 or not ast.get_docstring(node)
    ]
    assert not wrong


SLEEPS = {"asyncio.sleep", "time.sleep"}


def waits(call: ast.Call) -> bool:
    return not (call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)


def test_no_test_waits_a_fixed_time() -> None:
    """Tests wait for facts with a timeout; a pause inside a polling loop, or of 0 s, is no wait."""
    wrong = []
    for path in sources("tests"):
        for node in sentences(path):
            loops = [inner for loop in ast.walk(node) if isinstance(loop, ast.While | ast.For | ast.AsyncFor)
                     for inner in ast.walk(loop)]  # fmt: skip
            calls = [call for call in ast.walk(node) if isinstance(call, ast.Call) and call not in loops]
            wrong += [f"{name_of(path)}:{c.lineno}" for c in calls if ast.unparse(c.func) in SLEEPS and waits(c)]
    assert not wrong


TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".sh", ".xml", ".txt", ".cfg", ".lock", ".tpl", ""}
OWN_WORDS = name_of(Path(__file__))
MACHINE = re.compile(r"(?<![\w.])/(?:work|root)/[a-z]|/tmp/bash_jobs")
INDEX = re.compile(
    r"(?i)https?://[^\s\"'>)]*(?:pypi|artifactory|nexus|jfrog|/simple\b|repo1?\.maven|goproxy)|--(?:extra-)?index-url"
)
LEFTOVER = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (MACHINE, "an absolute path of the machine it was written on"),
        (INDEX, "the host of a package registry"),
        (LEFTOVER, "a leftover: do it, or write an issue"),
    ],
    ids=["machine paths", "registry hosts", "leftovers"],
)
def test_nothing_of_the_workshop_is_left_behind(rule: re.Pattern[str], why: str) -> None:
    """In no file that is tracked."""
    wrong = []
    for path in tracked():
        if path.suffix in TEXT and name_of(path) != OWN_WORDS:
            lines = path.read_text(errors="replace").splitlines()
            wrong += [f"{name_of(path)}:{n}" for n, line in enumerate(lines, 1) if rule.search(line)]
    assert not wrong, why


def test_the_life_cycle_page_is_fresh() -> None:
    """`python -m dialer.lifecycle` was run after the last change of the core's tables."""
    from dialer import lifecycle

    assert lifecycle.PAGE.read_text() == lifecycle.page()


def test_every_module_opens_with_its_purpose() -> None:
    """One sentence at least, before anything else."""
    wrong = [name_of(p) for p in sources(*PACKAGES) if p.read_text().strip() and not ast.get_docstring(tree(p))]
    assert not wrong
