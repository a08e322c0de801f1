"""Mutants that classes are made of: a forked process that has not imported the core yet imports it with the fault in it."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from tests.mutants.operators import ROOT, Module, Mutant
from tests.mutants.session import OPTIONS


class Imported(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module out of a changed tree."""

    def __init__(self, mutant: Mutant, module: Module) -> None:
        self.name = module.name
        self.path = str(ROOT / module.path)
        with mutant.edit.made():
            self.code = compile(module.tree, self.path, "exec")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for that one name only."""
        del path, target
        return importlib.util.spec_from_loader(fullname, self, origin=self.path) if fullname == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed code."""
        exec(self.code, vars(module))


class _FirstFailure:
    def __init__(self) -> None:
        self.test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.test:
            self.test = f"{report.nodeid} (import)"


def killed_by(mutant: Mutant, module: Module, files: Sequence[str]) -> str | None:
    """Import with the fault, run the files one by one until a test fails; returns that test."""
    assert module.name not in sys.modules, "a process that imported the core cannot import it anew"
    sys.meta_path.insert(0, Imported(mutant, module))
    for name in files:
        first = _FirstFailure()
        code = pytest.main(
            [*OPTIONS, "-x", "-m", "not broker and not livekit and not slow and not e2e", name], plugins=[first]
        )
        if code not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            return first.test or f"{name} (exit {int(code)})"
    return None
