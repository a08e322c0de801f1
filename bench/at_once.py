"""`calls_at_once`: how many calls this machine holds, phones and servers on it included, before answers wait for words.

A ladder: at each rung so many calls, all of them answered and talking together. It ends where the 95th percentile
of answer to audio has doubled since the first rung, or passes 600 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bench.call_bed import Kind, Stage
from bench.latency import percentile

RUNGS: Final = (4, 8, 12)
ANSWER_TO_AUDIO_MAX_MS: Final = 600.0
DOUBLED: Final = 2.0
TALK_S: Final = 4.0
"""How long all of a rung's calls talk together."""


async def calls_at_once(stage: Stage, kind: Kind, tell: Callable[[str], None]) -> int:
    """Climb; returns the last rung that held, 0 where none did. Raises: TimeoutError."""
    held, found = 0, dict[int, float]()
    for calls in RUNGS:
        await stage.warm()
        dials = await stage.wave(kind, calls, talk_s=TALK_S)
        delays = [dial.answer_to_audio_ms for dial in dials if dial.answer_to_audio_ms is not None]
        found[calls] = percentile(delays, 0.95) if len(delays) == calls else float("inf")
        tell(f"{kind.campaign}: {calls} at once, answer to audio p95 {found[calls]:.0f} ms")
        if found[calls] > min(ANSWER_TO_AUDIO_MAX_MS, DOUBLED * found[RUNGS[0]]):
            break
        held = calls
    return held
