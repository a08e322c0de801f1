"""What WebRTC's receiver says of one track: packets lost, sound made up, stretched or cut away by its jitter buffer.

The evidence beside a damaged recording: whether the network lost it, or a processor came too late. Source: W3C
webrtc-stats, `RTCInboundRtpStreamStats`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from livekit import rtc

LOOK_EVERY_S: Final = 2.0
"""How old the last look may be when a track ends, whose figures end with it. A look costs some 20 ms of processor time."""
_RATE_KHZ: Final = 48

Reception = dict[str, float]


async def watch(track: rtc.Track, told: Callable[[Reception], None]) -> None:
    """Tell a track's figures again and again, until cancelled or the track is gone (livekit raises `Exception` then)."""
    while True:
        for stats in await track.get_stats():
            if stats.HasField("inbound_rtp"):
                told(_figures(stats.inbound_rtp))
        await asyncio.sleep(LOOK_EVERY_S)


def _figures(stats: rtc.stats.RtcStats.InboundRtp) -> Reception:
    received, inbound = stats.received, stats.inbound
    emitted = max(1, inbound.jitter_buffer_emitted_count)
    return {
        "packets": received.packets_received,
        "packets_lost": received.packets_lost,
        "packets_discarded": inbound.packets_discarded,
        "concealed_ms": round(inbound.concealed_samples / _RATE_KHZ),
        "stretched_ms": round(inbound.inserted_samples_for_deceleration / _RATE_KHZ),
        "shrunk_ms": round(inbound.removed_samples_for_acceleration / _RATE_KHZ),
        "buffered_ms": round(inbound.jitter_buffer_delay * 1000 / emitted),
    }


def in_words(reception: Reception) -> str:
    """Say it in one clause."""
    if not reception:
        return "its receiver told nothing"
    figures = ", ".join(
        f"{name.removesuffix('_ms').replace('_', ' ')} {value:g}{' ms' * name.endswith('_ms')}"
        for name, value in reception.items()
    )
    return f"its receiver: {figures}"
