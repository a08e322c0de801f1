"""Opens what an attempt needs of a call: the message for its agent, the number for its dial.

Gone is a key that was erased; broken is a seal that its key does not open, or a key that the master key does not unwrap:
somebody must look, and until then no attempt of that callee comes to anything, and no other callee notices.
"""

from __future__ import annotations

from typing import Final

from dialer.callee.state import Call
from dialer.data_keys import DataKeys
from dialer.prepare import open_message, open_number, open_words
from runtime import metrics
from runtime.logs import Log
from runtime.seal import DataKey, SealBroken
from schemas.conversation import Words

GONE: Final = "key_gone"
BROKEN: Final = "seal_broken"

log = Log("dialer.unsealing")


class Unreadable(Exception):
    """What is sealed cannot be had: `key_gone`, or `seal_broken`, which was alarmed."""


def message_of(keys: DataKeys, callee_key: str, call: Call) -> tuple[DataKey, str, Words]:
    """Return the callee's key, the message, and what else may be said. Raises: Unreadable."""
    try:
        key = keys.find(callee_key)
        message = None if call.message is None else open_message(key, callee_key, call.message)
        words = open_words(key, callee_key, call.words)
    except SealBroken:
        raise broken(call.call_id) from None
    if key is None or message is None or words is None:
        raise Unreadable(GONE)
    return key, message, words


def number_of(keys: DataKeys, callee_key: str, call: Call) -> str:
    """Return the number in E.164. Raises: Unreadable."""
    try:
        number = open_number(keys.find(callee_key), callee_key, call.to)
    except SealBroken:
        raise broken(call.call_id) from None
    if number is None:
        raise Unreadable(GONE)
    return number


def broken(call_id: str) -> Unreadable:
    """Alarm a seal that does not open, and return what to raise."""
    metrics.ALARMS.labels(BROKEN).inc()
    log.alarm("a sealed value or a data key does not open", call_id=call_id)
    return Unreadable(BROKEN)
