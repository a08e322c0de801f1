"""Each callee's data key: kept wrapped, unwrapped when needed, made at the first accepted command.

A new key is written to `dialer.keys` in the transaction of the first event sealed with it. Source: design §5.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from dialer.log import Record
from runtime.clock import Clock
from runtime.seal import DataKey, MasterKey, new_data_key
from schemas import topics

OPENED_MAX: Final = 4096
"""Unwrapped keys held at once; the others are unwrapped again when they are needed."""
FIRST_KEY: Final = "1"


class DataKeys:
    """The data keys of one partition's callees; what a batch makes becomes known only when the batch is committed."""

    def __init__(self, partition: int, master: MasterKey, clock: Clock) -> None:
        self._partition, self._master, self._clock = partition, master, clock
        self._wrapped: dict[str, bytes] = {}
        self._opened: OrderedDict[str, DataKey] = OrderedDict()
        self._made: dict[str, tuple[DataKey, bytes]] = {}

    def restore(self, records: dict[bytes, bytes]) -> None:
        """Take over the keys as they were restored."""
        self._wrapped = {key.decode(): value for key, value in records.items()}

    def find(self, callee_key: str) -> DataKey | None:
        """Return a callee's key; None where it has none, or none any more."""
        if callee_key in self._made:
            return self._made[callee_key][0]
        opened = self._opened.get(callee_key)
        if opened is not None:
            self._opened.move_to_end(callee_key)
            return opened
        wrapped = self._wrapped.get(callee_key)
        return None if wrapped is None else self._keep(callee_key, self._master.unwrap(callee_key, wrapped))

    def find_or_make(self, callee_key: str) -> DataKey:
        """Return a callee's key, made in this batch where there was none."""
        key = self.find(callee_key)
        if key is None:
            key = new_data_key(FIRST_KEY, self._clock.random_bytes)
            self._made[callee_key] = (key, self._master.wrap(callee_key, key, self._clock.random_bytes))
        return key

    def records(self) -> list[Record]:
        """Return the records of the keys this batch made."""
        topic = topics.KEYS.name
        return [Record(topic, self._partition, k.encode(), wrapped) for k, (_, wrapped) in self._made.items()]

    def committed(self) -> None:
        """Keep what the batch made: its commit was answered."""
        for callee_key, (key, wrapped) in self._made.items():
            self._wrapped[callee_key] = wrapped
            self._keep(callee_key, key)
        self._made.clear()

    def _keep(self, callee_key: str, key: DataKey) -> DataKey:
        self._opened[callee_key] = key
        if len(self._opened) > OPENED_MAX:
            self._opened.popitem(last=False)
        return key
