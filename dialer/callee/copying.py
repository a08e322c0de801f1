"""`replace` for frozen dataclasses with slots: what `dataclasses.replace` does, at a tenth of its cost.

The standard one asks for every field and passes it through a frozen `__init__`; for a `Call` that is most of a whole
step. Here a copy is filled while it still belongs to a class of the same slots that is not frozen, and then becomes
what it is. For the state's own classes: no `__post_init__`, no base class with slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dataclasses import replace
else:

    def replace(value: object, /, **changes: object) -> object:
        """Return a copy with these fields changed. Raises: AttributeError for a name that is no field."""
        kind = type(value)
        copy = (_COPIERS.get(kind) or _copier(kind))(value)
        for name, new in changes.items():
            setattr(copy, name, new)
        copy.__class__ = kind
        return copy


__all__ = ["replace"]


def _copier(kind: type[Any]) -> Callable[[Any], Any]:
    """Write, once a class, the function that copies its fields into a draft."""
    names = [field.name for field in fields(kind)]
    draft = type(f"{kind.__name__}Draft", (), {"__slots__": tuple(names)})
    filling = [f" draft.{name} = value.{name}" for name in names]
    source = "\n".join(["def copy(value):", " draft = Draft()", *filling, " return draft"])
    scope: dict[str, Any] = {"Draft": draft}
    exec(source, scope)  # noqa: S102  # as dataclasses itself does; the names are our own classes' fields
    made: Callable[[Any], Any] = scope["copy"]
    _COPIERS[kind] = made
    return made


_COPIERS: Final[dict[type[Any], Callable[[Any], Any]]] = {}
