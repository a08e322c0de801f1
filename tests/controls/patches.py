"""How production code is broken for a while: one piece of its source replaced, or one name bound to something else."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, ModuleType
from typing import Any

OURS = ("dialer.", "schemas.", "tests.simulation.")


@contextmanager
def rewritten(function: Callable[..., Any], *changes: tuple[str, str]) -> Iterator[None]:
    """Let a function run with pieces of its source replaced, each of which stands there exactly once.

    The function object stays, so that whoever imported it has the change, too.
    """
    assert isinstance(function, FunctionType)
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        assert source.count(old) == 1, f"{function.__qualname__} holds {source.count(old)} times: {old!r}"
        source = source.replace(old, new)
    scope: dict[str, Any] = {}
    text = "from __future__ import annotations\n" + source
    exec(compile(text, f"<broken {function.__qualname__}>", "exec"), vars(sys.modules[function.__module__]), scope)
    before = function.__code__
    function.__code__ = scope[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = before


@contextmanager
def bound(old: Any, new: Any) -> Iterator[None]:
    """Bind every module's name for `old` to `new`."""
    with ExitStack() as stack:
        found = 0
        for module in list(sys.modules.values()):
            if isinstance(module, ModuleType) and module.__name__.startswith(OURS):
                for name in [name for name, value in vars(module).items() if value is old]:
                    setattr(module, name, new)
                    stack.callback(setattr, module, name, old)
                    found += 1
        assert found, f"nobody has {old!r}"
        yield


@contextmanager
def together(*variants: Any) -> Iterator[None]:
    """Enter several, in order."""
    with ExitStack() as stack:
        for one in variants:
            stack.enter_context(one)
        yield
