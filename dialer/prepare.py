"""From a definition and a call's variables to the verdict the core is given: open, render, reseal.

The core never opens a sealed value; what it gets is the verdict, the length and the sealed message. Source: design §5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from dialer.callee.inputs import Prepared, Verdict
from dialer.campaigns import Definition
from dialer.rendering import render
from runtime.seal import DataKey, Draw, aad, open_value
from schemas.codec import adapter
from schemas.conversation import Words
from schemas.events import CallPrepared, CallRequested
from schemas.outcomes import Refusal
from schemas.values import Sealed

TO: Final = "to"
VARIABLES: Final = "variables"
MESSAGE: Final = "message"
WORDS: Final = "words"


def seal_number(key: DataKey, callee_key: str, e164: str, draw: Draw) -> Sealed:
    """Seal the number as `CallRequested.to`."""
    return key.seal(e164.encode(), aad(callee_key, CallRequested.TYPE, TO), draw)


def open_number(key: DataKey | None, callee_key: str, sealed: Sealed) -> str | None:
    """Open `CallRequested.to`; None where the key is gone."""
    plain = open_value(key, sealed, aad(callee_key, CallRequested.TYPE, TO))
    return None if plain is None else plain.decode()


def seal_variables(key: DataKey, callee_key: str, variables: Mapping[str, str], draw: Draw) -> Sealed:
    """Seal the variables as `CallRequested.variables`."""
    return key.seal(orjson.dumps(variables), aad(callee_key, CallRequested.TYPE, VARIABLES), draw)


def open_variables(key: DataKey | None, callee_key: str, sealed: Sealed) -> dict[str, str] | None:
    """Open `CallRequested.variables`; None where the key is gone."""
    plain = open_value(key, sealed, aad(callee_key, CallRequested.TYPE, VARIABLES))
    return None if plain is None else dict(orjson.loads(plain))


def open_message(key: DataKey | None, callee_key: str, sealed: Sealed) -> str | None:
    """Open `CallPrepared.message`; None where the key is gone."""
    plain = open_value(key, sealed, aad(callee_key, CallPrepared.TYPE, MESSAGE))
    return None if plain is None else plain.decode()


def open_words(key: DataKey | None, callee_key: str, sealed: Sealed | None) -> Words | None:
    """Open `CallPrepared.words`; None where the key is gone."""
    if sealed is None:
        return Words()
    plain = open_value(key, sealed, aad(callee_key, CallPrepared.TYPE, WORDS))
    return None if plain is None else adapter(Words).validate_json(plain)


def prepare(
    definition: Definition, variables: Mapping[str, str], region: str, key: DataKey, callee_key: str, draw: Draw
) -> Verdict:
    """Check the country, render what is said, seal it."""
    if region not in definition.campaign.countries_allowed:
        return Refusal.COUNTRY_NOT_ALLOWED
    message = render(definition.template, variables)
    if isinstance(message, Refusal):
        return message
    words: dict[str, str] = {}
    for name, (template, length_max) in definition.words.items():
        text = render(template, variables, length_max)
        if isinstance(text, Refusal):
            return text
        words[name] = text
    return Prepared(
        campaign_hash=definition.hash,
        rules=definition.rules,
        message=key.seal(message.encode(), aad(callee_key, CallPrepared.TYPE, MESSAGE), draw),
        message_length=len(message),
        words=key.seal(orjson.dumps(words), aad(callee_key, CallPrepared.TYPE, WORDS), draw) if words else None,
    )
