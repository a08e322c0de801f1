"""Messages from templates: parsed once a definition, rendered once a call, refused with the contract's word.

Source: design §4 (definition: `{name}` and `{{` only), S1 (bad input).
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from schemas.campaign import MESSAGE_LENGTH_MAX, placeholders, said_bytes_max
from schemas.outcomes import Refusal


@dataclass(frozen=True, slots=True)
class Template:
    """A message cut into literal text and the names that follow it; the last name may be None."""

    parts: tuple[tuple[str, str | None], ...]


def parse_template(message: str) -> Template:
    """Cut a message at its placeholders; `{{` becomes `{`, `}}` becomes `}`. Raises: Invalid `template`."""
    placeholders(message)
    return Template(tuple((text, name) for text, name, _, _ in string.Formatter().parse(message)))


def render(template: Template, variables: Mapping[str, str], length_max: int = MESSAGE_LENGTH_MAX) -> str | Refusal:
    """Return what is to be said, or why nothing can be: a variable is missing, the text empty or too long.

    Too long is also what takes more than four bytes a character in JSON, as control characters do: a brief is bounded.
    """
    said: list[str] = []
    for text, name in template.parts:
        said.append(text)
        if name is not None:
            value = variables.get(name)
            if value is None:
                return Refusal.MISSING_VARIABLE
            said.append(value)
    message = "".join(said)
    if len(message) > length_max or len(orjson.dumps(message)) > said_bytes_max(length_max):
        return Refusal.MESSAGE_TOO_LONG
    if not message.strip():
        return Refusal.MESSAGE_EMPTY
    return message
