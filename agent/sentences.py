"""A reply that comes in pieces, cut where it can be spoken: sentence by sentence, short ones joined."""

from __future__ import annotations

import re
from typing import Final

LETTERS_MIN: Final = 24
"""A shorter sentence is spoken with the next: two syntheses of two words sound like two people."""
LETTERS_MAX: Final = 300
"""What has no end by then is cut between two words: its beginning is waited for."""
_END: Final = re.compile(r"[.!?…]+[\"')\]»”]*(?=\s)")
_ABBREVIATED: Final = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Ave|No|a\.m|p\.m|Sr|Sra|Dra|Ud|Uds|[A-Z])|\d)\.$")


class Sentences:
    """Fed with pieces, gives sentences."""

    def __init__(self) -> None:
        self._rest = ""

    def add(self, piece: str) -> list[str]:
        """Take a piece; returns the sentences that are whole by now."""
        self._rest += piece
        found: list[str] = []
        while (end := self._end()) is not None:
            found.append(self._rest[:end].strip())
            self._rest = self._rest[end:].lstrip()
        return found

    def rest(self) -> str:
        """Return what was not a whole sentence."""
        rest, self._rest = self._rest.strip(), ""
        return rest

    def _end(self) -> int | None:
        for match in _END.finditer(self._rest):
            end = match.end()
            if end >= LETTERS_MIN and not _ABBREVIATED.search(self._rest[: match.start() + 1]):
                return end
        if len(self._rest) > LETTERS_MAX:
            return max(self._rest.rfind(" ", 0, LETTERS_MAX), 1)
        return None
