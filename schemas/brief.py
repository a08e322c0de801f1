"""The agent's brief: what a job needs to know of its call, sealed as the job's metadata under `BRIEF_KEY`.

The agent needs neither the master key nor `dialer.keys`. 32 KiB at most. Source: design §6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from schemas.conversation import PLAIN, Conversation, Words

BRIEF_BYTES_MAX: Final = 32 * 1024
BRIEF_PLAIN_BYTES_MAX: Final = 24_000
"""Before it is sealed: with nonce and tag in base64, 32,040 characters; the rest is for the key's name."""
BRIEF_FRAME_BYTES_MAX: Final = 800
"""What a brief takes beyond what is said and the campaign's own part: ids, numbers, names of fields."""
BRIEF_AAD: Final = b"brief.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """One attempt's work order, in the clear; never written anywhere unsealed."""

    call_id: str
    attempt: int
    campaign_id: str
    campaign_hash: str
    type: Literal["one_way", "two_way"]
    language: str
    message: str
    callee_identity: str
    ring_timeout_s: int
    max_call_duration_s: int
    data_key_id: str
    data_key: str
    """base64url of the callee's data key, to seal words with."""
    conversation: Conversation = PLAIN
    words: Words = field(default_factory=Words)
