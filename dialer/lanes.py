"""A waiting line that is fair between campaigns: highest priority first, campaigns in turn, first come first served.

Each (priority, campaign) is a lane; lanes of one priority are served round robin, the least recently served first. A
campaign that is held keeps its places and is passed over. All operations cost the same however many keys wait; finding the
next one looks at the lanes that are held before it. Source: design §5 (pacing).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Lane:
    served: int
    """When, in rounds of everybody, this lane was served last; a new lane counts as served just now."""
    keys: OrderedDict[str, None] = field(default_factory=OrderedDict)


class Lanes:
    """Keys that wait, each in the lane of its campaign and priority."""

    def __init__(self, rounds: Iterator[int], is_held: Callable[[str], bool] = lambda _: False) -> None:
        """Take the counter of rounds: lines that share it can be compared by `rank`; and who is passed over."""
        self._rounds, self._is_held = rounds, is_held
        self._lanes: dict[int, OrderedDict[str, _Lane]] = {}
        self._places: dict[str, tuple[int, str]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def add(self, key: str, campaign: str, priority: int) -> None:
        """Put a key at the end of its lane; one that waits already keeps its place."""
        if key in self._places:
            return
        self._places[key] = (priority, campaign)
        lanes = self._lanes.setdefault(priority, OrderedDict())
        if campaign not in lanes:
            lanes[campaign] = _Lane(next(self._rounds))
        lanes[campaign].keys[key] = None

    def discard(self, key: str) -> bool:
        """Take a key out; False where it does not wait."""
        place = self._places.pop(key, None)
        if place is None:
            return False
        priority, campaign = place
        lanes = self._lanes[priority]
        lane = lanes[campaign]
        del lane.keys[key]
        if not lane.keys:
            del lanes[campaign]
            if not lanes:
                del self._lanes[priority]
        return True

    def rank(self) -> tuple[int, int] | None:
        """Return how the next key compares with those of other lines: the smallest is served first; None: nobody may."""
        found = self._next()
        return None if found is None else (-found[0], found[2].served)

    def pop(self) -> tuple[str, str, int]:
        """Take the next key out: (key, campaign, priority); its campaign goes to the end of the round.

        Raises: ValueError where nobody may be served.
        """
        found = self._next()
        if found is None:
            raise ValueError("nobody waits")
        priority, campaign, lane = found
        key = next(iter(lane.keys))
        lane.served = next(self._rounds)
        self._lanes[priority].move_to_end(campaign)
        self.discard(key)
        return key, campaign, priority

    def _next(self) -> tuple[int, str, _Lane] | None:
        for priority in sorted(self._lanes, reverse=True):
            for campaign, lane in self._lanes[priority].items():
                if not self._is_held(campaign):
                    return priority, campaign, lane
        return None
