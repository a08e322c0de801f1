"""What a mutant is, and how they are made of a module's syntax tree: one small fault at one place.

Left alone: docstrings, annotations, decorators, imports, assertions (they are proofs, not behaviour), f-strings, aliases
of types, and prose that only people read (`PROSE`).
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PROSE: Final = {"Nothing": 0, "Row": 3, "_row": 5}
"""Callable → position of an argument that only people read."""
CONTEXT_MAX: Final = 160
"""Characters of a parent that is shown with its changed part."""

_BOUNDARY: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
_NEGATED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_NAMES: Final = {"min": "max", "max": "min", "all": "any", "any": "all"}
_UNTOUCHED: Final = (ast.Assert, ast.Import, ast.ImportFrom, ast.Delete, ast.JoinedStr, ast.Raise)
_UNTOUCHED_FIELDS: Final = frozenset({"annotation", "returns", "decorator_list", "bases", "keywords_of_class", "ctx"})


class Where(Enum):
    """What has to be done for a mutant to come into force in a process that has imported everything."""

    FUNCTION = "the function gets another code object"
    VARIABLE = "the statement is run again in its module, and what was derived from it"
    CLASS = "a new process imports everything afresh"


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a tree, in place: the slot it is made in, and what comes there."""

    parent: ast.AST
    name: str
    index: int | None
    new: ast.AST | None
    """None: the element is taken out of its list."""
    shown: str = ""
    """How the change is written, where its source would be long."""

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make the change, and take it back after."""
        old = getattr(self.parent, self.name)
        if self.index is None:
            setattr(self.parent, self.name, self.new)
        else:
            between = [] if self.new is None else [self.new]
            setattr(self.parent, self.name, [*old[: self.index], *between, *old[self.index + 1 :]])
        try:
            yield
        finally:
            setattr(self.parent, self.name, old)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One fault. `key` names it in a way that outlives other edits of the file."""

    path: str
    scope: str
    """Qualified name of the outermost function, class or module variable that it is in."""
    where: Where
    line: int
    last_line: int
    lazily: bool
    """At import only a function is built here (a lambda in a table): its own lines say which tests run it."""
    text: str
    number: int
    digest: str
    """Of the source of its scope: as long as that stays, so does a verdict."""
    edit: Edit = field(compare=False, repr=False)

    @property
    def key(self) -> str:
        """Return `path::scope: before → after`, numbered where the same occurs again in its scope."""
        again = f" #{self.number}" if self.number > 1 else ""
        return f"{self.path}::{self.scope}: {self.text}{again}"


@dataclass(frozen=True, slots=True)
class _Place:
    top: ast.AST
    scope: str = ""
    where: Where = Where.VARIABLE
    in_condition: bool = False
    lazily: bool = False


class Enums:
    """The enumerations that are known by source: members in their order, by class name."""

    def __init__(self, *paths: Path) -> None:
        self.members: dict[str, list[str]] = {}
        for path in paths:
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and any(ast.unparse(b) in {"Enum", "StrEnum"} for b in node.bases):
                    self.members[node.name] = [
                        t.id
                        for s in node.body
                        if isinstance(s, ast.Assign)
                        for t in s.targets
                        if isinstance(t, ast.Name)
                    ]

    def aliases(self, tree: ast.Module) -> dict[str, str]:
        """Return which names of a module stand for which enumeration."""
        found = {name: name for name in self.members}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                found |= {a.asname: a.name for a in node.names if a.asname and a.name in self.members}
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in found:
                found |= {t.id: found[node.value.id] for t in node.targets if isinstance(t, ast.Name)}
        return found


class Module:
    """One module under test: its source, its tree, its mutants."""

    def __init__(self, path: str, enums: Enums) -> None:
        self.path = path
        self.source = (ROOT / path).read_text()
        self.tree = ast.parse(self.source)
        self._enums = enums
        self._aliases = enums.aliases(self.tree)
        self._seen: Counter[tuple[str, str]] = Counter()
        self._digests: dict[ast.AST, str] = {}
        self.mutants = [
            m for s in self.tree.body if not _is_alias(s) for m in self._of(self.tree, "body", None, s, _place(s))
        ]

    @property
    def name(self) -> str:
        """Return the dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def _of(self, parent: ast.AST, name: str, index: int | None, node: ast.AST, place: _Place) -> Iterator[Mutant]:
        if isinstance(node, _UNTOUCHED) or _is_docstring(node):
            return
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for i, one in enumerate(node.orelse):
                yield from self._of(node, "orelse", i, one, place)
            return
        for edit in _edits(parent, name, index, node, place, self._swapped):
            yield self._mutant(edit, node, place)
        for field_name, value in ast.iter_fields(node):
            if field_name in _UNTOUCHED_FIELDS or (isinstance(node, ast.ClassDef) and field_name == "keywords"):
                continue
            inner = _inner(node, field_name, place)
            if isinstance(value, ast.AST):
                yield from self._of(node, field_name, None, value, inner)
            elif isinstance(value, list):
                for i, one in enumerate(value):
                    if isinstance(one, ast.AST) and not _is_prose(node, field_name, i):
                        yield from self._of(node, field_name, i, one, inner)

    def _swapped(self, node: ast.Attribute) -> ast.expr | None:
        if not isinstance(node.value, ast.Name):
            return None
        members = self._enums.members.get(self._aliases.get(node.value.id, ""), [])
        if node.attr not in members or len(members) < 2:
            return None
        following = members[(members.index(node.attr) + 1) % len(members)]
        return ast.copy_location(ast.Attribute(node.value, following, node.ctx), node)

    def _mutant(self, edit: Edit, node: ast.AST, place: _Place) -> Mutant:
        text = _shown(edit, node)
        self._seen[place.scope, text] += 1
        placed: Any = node.body[0] if isinstance(node, ast.match_case) else node
        return Mutant(
            path=self.path,
            scope=place.scope,
            where=place.where,
            line=placed.lineno,
            last_line=placed.end_lineno or placed.lineno,
            lazily=place.lazily,
            text=text,
            number=self._seen[place.scope, text],
            digest=self._digest(place.top),
            edit=edit,
        )

    def _digest(self, top: ast.AST) -> str:
        if top not in self._digests:
            source = ast.get_source_segment(self.source, top) or ""
            self._digests[top] = sha256(source.encode()).hexdigest()[:16]
        return self._digests[top]


def _place(statement: ast.stmt) -> _Place:
    return _Place(top=statement, scope=", ".join(sorted(targets(statement))))


def targets(statement: ast.AST) -> set[str]:
    """Return the module variables that a statement binds."""
    match statement:
        case ast.Assign(targets=found):
            return {n.id for t in found for n in ast.walk(t) if isinstance(n, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _inner(node: ast.AST, name: str, place: _Place) -> _Place:
    """Say where the children in this field stand."""
    condition = name in {"test", "ifs", "guard"}
    if place.where is Where.FUNCTION:
        return replace(place, in_condition=condition)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        scope = f"{place.scope}.{node.name}" if place.scope else node.name
        where = Where.FUNCTION if name == "body" else Where.CLASS  # defaults of arguments are evaluated at import
        return _Place(node, scope, where)
    if isinstance(node, ast.ClassDef):
        return _Place(node, node.name, Where.CLASS)
    return replace(
        place, in_condition=condition, lazily=place.lazily or (isinstance(node, ast.Lambda) and name == "body")
    )


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_alias(node: ast.stmt) -> bool:
    """`Decisions = list[Decision]`, `P = Phase`, `__all__ = …`: a name for a type, or for importers."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp | ast.Name | ast.List)


def _is_prose(node: ast.AST, name: str, index: int) -> bool:
    return (
        isinstance(node, ast.Call)
        and name == "args"
        and isinstance(node.func, ast.Name)
        and PROSE.get(node.func.id) == index
    )


def _edits(
    parent: ast.AST,
    name: str,
    index: int | None,
    node: ast.AST,
    place: _Place,
    swapped: Callable[[ast.Attribute], ast.expr | None],
) -> Iterator[Edit]:
    """Make every change of this one node."""

    def put(new: ast.AST | None, shown: str = "") -> Edit:
        if new is not None:
            ast.copy_location(new, node)
            ast.fix_missing_locations(new)
        return Edit(parent, name, index, new, shown)

    match node:
        case ast.Compare(ops=[op], left=left, comparators=comparators):
            kinds = [_BOUNDARY.get(type(op)), None if place.in_condition else _NEGATED.get(type(op))]
            yield from (put(ast.Compare(left, [kind()], comparators)) for kind in kinds if kind)
        case ast.BoolOp(op=op, values=values):
            yield put(ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values))
            for i in range(len(values)):
                rest = [*values[:i], *values[i + 1 :]]
                yield put(rest[0] if len(rest) == 1 else ast.BoolOp(op, rest))
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield put(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            yield put(ast.BinOp(left, _ARITHMETIC[type(op)](), right))
        case ast.Constant(value=bool() as value):
            yield put(ast.Constant(not value))
        case ast.Constant(value=int() | float() as value):
            yield from (put(ast.Constant(value + by)) for by in (1, -1))
        case ast.Constant(value=str() as value):
            yield put(ast.Constant(f"XX{value}"))
        case ast.Name(id=word, ctx=ast.Load()) if word in _NAMES:
            yield put(ast.Name(_NAMES[word], ast.Load()))
        case ast.Attribute():
            other = swapped(node)
            if other is not None:
                yield put(other)
        case ast.keyword() if node.arg is not None:
            yield put(None)
        case _:
            yield from _edits_of_structure(put, node, place)
    if place.in_condition and isinstance(node, ast.expr) and name in {"test", "ifs", "guard"}:
        yield from (put(ast.Constant(value)) for value in (True, False))
    if isinstance(parent, ast.List | ast.Set | ast.Tuple) and name == "elts" and _is_load(parent):
        yield put(None)


def _is_load(node: ast.List | ast.Set | ast.Tuple) -> bool:
    return isinstance(getattr(node, "ctx", ast.Load()), ast.Load)


def _edits_of_structure(make: Callable[..., Edit], node: ast.AST, place: _Place) -> Iterator[Edit]:
    """Take statements, cases and rows of tables away."""
    match node:
        case ast.Return(value=value) if value is not None and ast.unparse(value) not in {"None", "False"}:
            yield make(ast.Return(ast.Constant(None)))
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Continue() | ast.Break() if (
            place.where is Where.FUNCTION
        ):
            yield make(ast.Pass())
        case ast.AnnAssign(value=value) if place.where is Where.FUNCTION and value is not None:
            yield make(ast.Pass())
        case ast.match_case(pattern=pattern, guard=guard):
            yield make(ast.match_case(pattern, guard, [ast.copy_location(ast.Pass(), node.body[0])]))
        case ast.Dict(keys=keys, values=values):
            for i, (key, value) in enumerate(zip(keys, values, strict=True)):
                row = f"{{…}} without {'**' if key is None else f'{_line(key)}: '}{_line(value)}"
                yield make(ast.Dict([*keys[:i], *keys[i + 1 :]], [*values[:i], *values[i + 1 :]]), row)


def _shown(edit: Edit, node: ast.AST) -> str:
    """Write the change for people, with its surroundings where these are short."""
    if edit.shown:
        return edit.shown
    around = edit.parent if isinstance(edit.parent, ast.expr | ast.keyword) else node
    before = _line(around)
    if edit.new is None:
        short = "…" if len(before) > CONTEXT_MAX else before
        return f"{short} without {_line(node)[:CONTEXT_MAX]}"
    if around is node or len(before) > CONTEXT_MAX:
        return f"{_line(node)[:CONTEXT_MAX]} → {_line(edit.new)[:CONTEXT_MAX]}"
    with edit.made():
        return f"{before} → {_line(around)}"


def _line(node: ast.AST) -> str:
    if isinstance(node, ast.match_case):
        return f"case {ast.unparse(node.pattern)}: {'; '.join(map(_line, node.body))}"
    return " ".join(ast.unparse(node).split())
