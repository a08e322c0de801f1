"""The seam between an owner and the log: fence, restore, commit; one transaction per partition and batch.

Guarantees every adapter gives (one contract suite, `tests/contracts/test_log.py`):

1. After `fence` no earlier opening of the same partition can commit: it raises `OwnershipLost`.
2. `restore` returns the last committed record of every key, and nothing of an open or aborted transaction.
3. `commit` is all or nothing; it returns only after the log's answer. Whatever goes wrong, a refused record or a missing
   answer included, raises `OwnershipLost`: nobody may then assume either way, the caller drops its memory and starts anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]


class OwnershipLost(Exception):
    """This ownership has ended: fenced by another, or the log's answer was an error or did not come."""


class Record(NamedTuple):
    """A record to be written; `value` None is a tombstone."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a partition's owner starts from: last bytes per key, decoded later and only where needed."""

    snapshots: dict[bytes, bytes] = field(default_factory=dict)
    """`dialer.callees` by key, `$offsets` left out."""
    keys: dict[bytes, bytes] = field(default_factory=dict)
    """`dialer.keys` by key."""
    offsets: bytes | None = None
    """The `$offsets` record's value."""


class PartitionLog(Protocol):
    """One opening of one partition."""

    async def fence(self) -> None:
        """End every earlier opening and its open transaction. Raises: OwnershipLost."""
        ...

    async def restore(self) -> Restored:
        """Read `dialer.callees` and `dialer.keys` of this partition to their ends. Raises: OwnershipLost."""
        ...

    async def commit(self, records: Sequence[Record]) -> None:
        """Write all records in one transaction and wait for the answer. Raises: OwnershipLost."""
        ...

    async def close(self) -> None:
        """Let go of the connection; an open transaction is ended by the next fence, or by its timeout. Never raises."""
        ...


class Log(Protocol):
    """Opens partitions."""

    def open(self, partition: int) -> PartitionLog:
        """Return a new opening, which fences earlier ones when `fence` is called."""
        ...
