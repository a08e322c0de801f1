"""Obeys `dialer.control` in one process, and confirms it: grants start again, phones are hung up, who asked is told.

The gate keeps every INVITE back by itself, and the pacer every slot; here is the rest. All of it is read anew from the
state there is, ten times a second while a hang-up is in force: so calls that another process dialed, or that passed the gate
in the moment before the stop was known, are hung up too, also after a restart. Source: design §3, promise 6; ADR 0011.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final, Protocol

from dialer.callee import inputs as i
from dialer.callee.owed import ON_THE_PHONE
from dialer.callee.state import Call, Callee, Phase
from dialer.control_words import SEEN_PREFIX, Seen, Words, encode_seen
from dialer.requests import NotAccepted
from runtime.clock import Clock
from runtime.logs import Log
from schemas.values import callee_of, partition_of

LOOK_EVERY_S: Final = 0.1
SENT_AFTER_S: Final = 1.0
"""A dial that is committed for so long after the stop was known here has passed the gate before: it rings, or will."""
AGAIN_AFTER_S: Final = 1.0
"""A confirmation that is not read back is written again after so long."""
GONE_AFTER: Final = timedelta(days=1)
"""Confirmations older than this are removed at a start; a process that lives writes its own again."""
REASON: Final = "kill_switch"

log = Log("dialer.kill_switch")


class Owned(Protocol):
    """What is asked of an ownership."""

    def offer(self, callee_key: str, given: i.AnyInput) -> bool:
        """Hand an input over."""
        ...

    def committed(self, callee_key: str) -> Callee | None:
        """Return a callee as it was last committed."""
        ...


class KillSwitch:
    """One process's obedience. `changed` is to be called whenever control has changed."""

    def __init__(
        self,
        process: str,
        words: Words,
        owned: Callable[[], Mapping[int, Owned]],
        holding: Callable[[], Iterable[str]],
        send: Callable[[bytes, bytes | None], Awaitable[int]],
        memory: timedelta,
        clock: Clock,
    ) -> None:
        """Take what is owned now by partition, the calls that hold a slot, and how `dialer.control` is written."""
        self.process = process
        self._key = SEEN_PREFIX + process.encode()
        self._words, self._owned, self._holding, self._send = words, owned, holding, send
        self._memory, self._clock = memory, clock
        self._known: dict[int, float] = {}
        """Words that hang up, by offset: since when this process knows them."""
        self._changed = asyncio.Event()
        self._wrote_at = float("-inf")
        self._wrote: Seen | None = None
        self._closed = False

    def changed(self) -> None:
        """Look again now."""
        self._changed.set()

    async def run(self) -> None:
        """Obey and confirm, until `close`."""
        await self._remove_the_gone()
        while not self._closed:
            self._changed.clear()
            silent = self.hang_up()
            waiting = not await self._confirm(silent)
            if silent is None and not waiting:
                await self._changed.wait()
            else:
                await self._clock.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """Say that this process is gone: nobody need wait for it."""
        self._closed = True
        self._changed.set()
        try:
            await self._send(self._key, None)
        except NotAccepted as error:
            log.info("not said that this process is gone", error=str(error))

    def hang_up(self) -> tuple[int, ...] | None:
        """Cancel what rings or talks and shall not; return the partitions that are silent, None where none must be."""
        words = {said.offset for said in self._words.said.values() if said.hang_up}
        now = self._clock.monotonic()
        self._known = {offset: self._known.get(offset, now) for offset in words}
        if not words:
            return None
        owned, loud = self._owned(), set[int]()
        for call_id in self._holding():
            partition = partition_of(callee_of(call_id))
            if partition in owned and self._is_loud(owned[partition], call_id, now):
                loud.add(partition)
        return tuple(sorted(owned.keys() - loud))

    def _is_loud(self, ownership: Owned, call_id: str, now: float) -> bool:
        """Tell whether a phone may be on the line that was to be hung up, and see to it that it is."""
        callee = ownership.committed(callee_of(call_id))
        call = callee.calls.get(call_id) if callee is not None else None
        word = self._words.hangs_up(call.campaign_id) if call is not None else None
        if call is None or word is None:
            return False
        if call.phase not in ON_THE_PHONE:
            return _is_being_hung_up(call)
        if call.phase is not Phase.DIALING or now - self._known[word] >= SENT_AFTER_S:
            at = self._clock.now()
            cancel = i.Cancel(
                id=f"control/{word}", at=at, call_id=call_id, reason=REASON, remember_until=at + self._memory
            )
            ownership.offer(callee_of(call_id), cancel)
        return True

    async def _confirm(self, silent: tuple[int, ...] | None) -> bool:
        """Write what this process obeys, where the topic does not say so already; False where it must be looked at."""
        told = self._words.seen.get(self.process)
        wanted = Seen(applied=self._words.last_said(), silent=silent or (), at=self._clock.now().isoformat())
        if told is not None and _same(told, wanted):
            return True
        written = self._wrote is not None and _same(self._wrote, wanted)
        now = self._clock.monotonic()
        if written and now < self._wrote_at + AGAIN_AFTER_S:
            return False
        try:
            await self._send(self._key, encode_seen(wanted))
        except NotAccepted as error:
            log.warning("control not confirmed", error=str(error))
        self._wrote, self._wrote_at = wanted, now
        return False

    async def _remove_the_gone(self) -> None:
        oldest = (self._clock.now() - GONE_AFTER).isoformat()
        gone = [process for process, seen in self._words.seen.items() if seen.at < oldest]
        for process in gone:
            try:
                await self._send(SEEN_PREFIX + process.encode(), None)
            except NotAccepted:
                return


def _same(one: Seen, other: Seen) -> bool:
    return (one.applied, one.silent) == (other.applied, other.silent)


def _is_being_hung_up(call: Call) -> bool:
    """Tell whether a phone may ring yet though its room is being taken down."""
    attempt = call.attempt
    return (
        call.phase is Phase.FENCING
        and attempt is not None
        and attempt.dialed_at is not None
        and not attempt.withdrawn
        and attempt.fenced_at is None
    )
