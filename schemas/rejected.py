"""What stands on `dialer.rejected`: where a refused record lay and what was wrong with it; none of its bytes.

Source: design §3 (`dialer.rejected`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One refused record; `hmac` lets its sender find it again, nobody else."""

    TYPE: ClassVar[str] = "dialer.rejected.v1"
    topic: str
    partition: int
    offset: int
    length: int
    """Bytes of the value; 0 for a null."""
    hmac: str
    """HMAC-SHA-256 of the value under the pepper, in hex."""
    field: str
    rule: str
