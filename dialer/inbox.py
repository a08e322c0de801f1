"""What waits at one partition, in the order it is taken: stops, then this process's own inputs, what was seen, what was asked.

Observations go before commands: order between topics means nothing (design §3), and a call that rings must not wait
behind a backlog of calls that do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from dialer.callee.inputs import AnyInput
from dialer.records import RawRecord
from schemas.topics import COMMANDS, OBSERVATIONS


class Inbox:
    """Bounded by its feed: whoever hands records over stops handing over those of a topic that is full."""

    __slots__ = ("commands", "inputs", "limit", "observations", "stops")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.stops: deque[RawRecord] = deque()
        self.inputs: deque[tuple[str, AnyInput]] = deque()
        self.observations: deque[RawRecord] = deque()
        self.commands: deque[RawRecord] = deque()

    def put(self, records: Iterable[RawRecord]) -> None:
        """Add commands and observations."""
        for record in records:
            (self.commands if record.topic == COMMANDS.name else self.observations).append(record)

    def is_urgent(self) -> bool:
        """Tell whether something waits that is about a call in flight, or stops one."""
        return bool(self.stops or self.inputs or self.observations)

    def full(self) -> list[str]:
        """Return the topics of which no more records may be handed over."""
        lines = ((COMMANDS, self.commands), (OBSERVATIONS, self.observations))
        return [topic.name for topic, line in lines if len(line) >= self.limit]

    def has_space(self, topic: str) -> bool:
        """Tell whether a topic's records have been taken far enough for the feed to go on."""
        return len(self.commands if topic == COMMANDS.name else self.observations) <= self.limit // 2
