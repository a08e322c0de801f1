"""Dataclasses as dicts, for orjson: field by field off a class with slots it takes three times as long.

`plain` writes every field. `sparse` leaves out of the state's own classes what stands at its default: a call and its
attempt have fifty fields, most of them at it. What they hold of a campaign's definition is written whole, for its defaults may
change. Both are a `default` for `orjson.dumps` with `AS_DICTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, Final

import orjson

from dialer.callee.state import Attempt, Call, Callee, Closed

AS_DICTS: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_UTC_Z
_ALWAYS: Final = frozenset({"v"})
"""The version of a snapshot: its default is today's."""

_Writer = Callable[[Any], dict[str, Any]]


def plain(value: object) -> dict[str, Any]:
    """Return all fields of a dataclass. Raises: TypeError for anything else."""
    kind = type(value)
    return (_PLAIN.get(kind) or _PLAIN.setdefault(kind, _writer(kind, sparse=False)))(value)


def sparse(value: object) -> dict[str, Any]:
    """Return the fields of a dataclass, those of the state where they are not at their default. Raises: TypeError."""
    return (_SPARSE.get(type(value)) or plain)(value)


def _writer(kind: type[Any], *, sparse: bool) -> _Writer:
    """Write, once a class, the function that reads its fields."""
    scope: dict[str, Any] = {}
    always, seldom = [], []
    for field in fields(kind):
        name, default = field.name, field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if not sparse or default is MISSING or name in _ALWAYS:
            always.append(f"{name!r}: value.{name}")
            continue
        scope[f"default_{name}"] = default
        differs = f"is not default_{name}" if default is None else f"!= default_{name}"
        seldom.append(f" if (found := value.{name}) {differs}: document[{name!r}] = found")
    lines = ["def write(value):", f" document = {{{', '.join(always)}}}", *seldom, " return document"]
    exec("\n".join(lines), scope)  # noqa: S102  # as dataclasses itself does; the names are our own classes' fields
    made: _Writer = scope["write"]
    return made


_PLAIN: Final[dict[type[Any], _Writer]] = {}
_SPARSE: Final[dict[type[Any], _Writer]] = {
    kind: _writer(kind, sparse=True) for kind in (Callee, Call, Attempt, Closed)
}
