"""The garbage collector, told what this program is: state is frozen and acyclic, so counting references frees it.

A dialer holds tens of thousands of live callees. The collector's full pass walks all of them, over and over as they grow
in number, and stops the event loop for hundreds of milliseconds each time; measured, it took a quarter of the write path.
Source: CPython `gc`, generation thresholds; `gc.freeze` (what is loaded at start is never garbage).
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_MAX: Final = 50_000
"""Net new containers before a young pass; CPython's own 700 is a pass every few commands."""
YOUNG_PER_MIDDLE: Final = 20
MIDDLE_PER_FULL: Final = 100
"""A full pass after some 100 million net new containers: cycles that live so long are few."""


def tune() -> None:
    """Call once, when everything is imported and wired, before work comes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, YOUNG_PER_MIDDLE, MIDDLE_PER_FULL)
