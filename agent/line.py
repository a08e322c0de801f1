"""What a job has of its call: the room, the callee's leg, its own voice, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass

from livekit import rtc

from agent.leg import Leg
from agent.recording import Recorder
from agent.reporter import Reporter
from agent.voice import Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One call's, once the agent is in the room."""

    room: rtc.Room
    leg: Leg
    voice: Voice
    reporter: Reporter
    recorder: Recorder
