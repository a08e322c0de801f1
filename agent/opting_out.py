"""An opt-out in the course of a one-way call: heard in words, where the call has an ear, or by the campaign's key."""

from __future__ import annotations

import asyncio

from livekit import rtc

from agent.history import History
from agent.opt_out import asked
from schemas.brief import Brief

BY_KEY = "opt_out_key"
"""The evidence of a key: the setting that gives it its meaning."""


class OptingOut:
    """Watches one callee; `heard` is done, with the evidence, once the callee asked not to be called again."""

    def __init__(self, brief: Brief, history: History) -> None:
        self._brief, self._history = brief, history
        self.heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def words(self, text: str) -> None:
        """Take a sentence of the callee's."""
        self._found(asked(text, self._brief.language))

    def pressed(self, event: rtc.SipDTMF) -> None:
        """Take a key: LiveKit's event."""
        if event.participant is None or event.participant.identity != self._brief.callee_identity:
            return
        self._history.key(event.digit)
        if event.digit == self._brief.conversation.opt_out_key:
            self._found(BY_KEY)

    def _found(self, evidence: str | None) -> None:
        if evidence is not None and not self.heard.done():
            self.heard.set_result(evidence)
