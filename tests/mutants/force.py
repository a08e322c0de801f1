"""How a mutant comes into force in a process that has imported everything: nothing else has to be imported again."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from tests.mutants.operators import ROOT, Module, Mutant, Where, targets


def bring_into_force(mutant: Mutant, module: Module) -> None:
    """Change the running module. For `Where.FUNCTION` and `Where.VARIABLE`; there is no way back but the process' end."""
    with mutant.edit.made():
        if mutant.where is Where.FUNCTION:
            compiled = compile(module.tree, mutant.path, "exec")
            _function(module.name, mutant.scope).__code__ = _code(compiled, mutant.scope)
        else:
            _bind_again(module, _statement(module.tree, mutant))


def _code(code: CodeType, scope: str) -> CodeType:
    for inner in _inside(code):
        if inner.co_qualname == scope:
            return inner
    raise LookupError(scope)


def _inside(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inside(constant)


def _function(module: str, scope: str) -> FunctionType:
    found: Any = sys.modules[module]
    for part in scope.split("."):
        found = vars(found)[part]
    found = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    assert isinstance(found, FunctionType), scope
    return found


def _statement(tree: ast.Module, mutant: Mutant) -> ast.stmt:
    """Return the statement of the module that the mutant is in: while it is made, lines are as they were."""
    for statement in tree.body:
        if statement.lineno <= mutant.line <= (statement.end_lineno or statement.lineno):
            return statement
    raise LookupError(mutant.key)


def _bind_again(module: Module, first: ast.stmt) -> None:
    """Run a statement again, and those after it that read what it bound; tell the modules that imported these names."""
    live = sys.modules[module.name]
    dirty: set[str] = set()
    for statement in module.tree.body[module.tree.body.index(first) :]:
        bound = targets(statement)
        if statement is not first and not (bound and dirty & _read(statement)):
            continue
        before = {name: vars(live)[name] for name in bound}
        exec(compile(ast.Module([statement], []), module.path, "exec"), vars(live))
        dirty |= bound
        for name, old in before.items():
            _tell(name, old, vars(live)[name])


def _read(statement: ast.stmt) -> set[str]:
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def readers(path: str, scope: str, modules: Mapping[str, Module]) -> tuple[frozenset[str], frozenset[tuple[str, int]]]:
    """Return these variables and all that are made of them, and every line of the modules that reads one."""
    names = set(scope.split(", "))
    for statement in modules[path].tree.body:
        if targets(statement) and names & _read(statement):
            names |= targets(statement)
    lines = {
        (str(ROOT / module.path), node.lineno)
        for module in modules.values()
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Name) and node.id in names) or (isinstance(node, ast.Attribute) and node.attr in names)
    }
    return frozenset(names), frozenset(lines)


def _tell(name: str, old: object, new: object) -> None:
    """Bind it anew where it was imported; of a number or a text, which many things are, only by its own name."""
    shared = isinstance(old, bool | int | str | float)
    for other in list(sys.modules.values()):
        if isinstance(other, ModuleType) and other.__name__.startswith(("dialer.", "tests.")):
            for key, value in list(vars(other).items()):
                if value is old and (key == name or not shared):
                    setattr(other, key, new)
