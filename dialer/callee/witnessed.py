"""What an agent's facts leave in the state: which are on the log, and what a judgement needs of them.

Facts come in any order, late ones out of a spool: whatever is kept here is the same for every order of the same facts.
"""

from __future__ import annotations

from typing import Any, Final

from dialer.callee.copying import replace
from dialer.callee.state import Call, Phase
from schemas import facts as f
from schemas.outcomes import Outcome

ANSWERED: Final = frozenset({"active", "automation"})
"""`sip.callStatus` of a leg that was answered."""
NOT_TAKEN: Final = "USER_UNAVAILABLE"
"""LiveKit's reason for a leg that ended before it was answered: 404, 408, 480, ring timeout (reference/livekit.md 4.4)."""


def with_fact(facts: dict[str, str], fact: f.FactBody) -> dict[str, str]:
    """Mark a fact's number as seen; the bitmap takes numbers in any order."""
    key = f"{fact.attempt}/{fact.job_id}"
    return {**facts, key: format(int(facts.get(key, "0"), 16) | 1 << fact.number, "x")}


def has_fact(facts: dict[str, str], fact: f.FactBody) -> bool:
    """Tell whether a fact of that number is on the log."""
    return bool(int(facts.get(f"{fact.attempt}/{fact.job_id}", "0"), 16) >> fact.number & 1)


def witnessed(call: Call, fact: f.FactBody) -> Call:
    """Fold a fact that was copied to the log; of an attempt that was judged before, only its number is kept."""
    changed = replace(call, facts=with_fact(call.facts, fact))
    if call.attempt is None or call.attempt.number != fact.attempt:
        return changed
    match fact:
        case f.NotificationDelivered():
            return _attempt(changed, delivered=True)
        case f.OptOutHeard():
            return _came_to(changed, Outcome.OPTED_OUT)
        case f.VoicemailLeft():
            return _came_to(changed, Outcome.VOICEMAIL_LEFT)
        case f.CallTransferred():
            return _came_to(changed, Outcome.TRANSFERRED)
        case f.CalleeHungUp():
            return _attempt(changed, hung_up=True)
        case f.AgentApiFailed():
            return _attempt(changed, agent_failed=True)
        case f.AgentCrashed():
            return _attempt(changed, agent_done=True)
        case f.CalleeLeft():
            gave_up = fact.reason == NOT_TAKEN
            return _attempt(changed, unanswered=True) if gave_up else changed
        case f.ConversationEnded():
            return _last_word(_came_to(changed, CAME_TO.get(fact.reason)), fact)
        case _:
            return changed


def tells_of_an_answer(fact: f.FactBody) -> bool:
    """Tell whether an agent can say this of an answered leg only, so that it proves the answer by itself.

    Facts overtake each other on their way out of a spool: the status `active` may be the last one to come.
    """
    match fact:
        case f.CalleeStatus():
            return fact.status in ANSWERED
        case f.ConversationEnded():
            return fact.reason in CAME_TO
        case _:
            return isinstance(fact, _OF_AN_ANSWERED_LEG)


_OF_AN_ANSWERED_LEG: Final = (
    f.ConversationStarted,
    f.NotificationDelivered,
    f.AnswererDetected,
    f.VoicemailLeft,
    f.TurnTaken,
    f.OptOutHeard,
    f.CallTransferred,
)
CAME_TO: Final = {
    "conversed": Outcome.CONVERSED,
    "voicemail_left": Outcome.VOICEMAIL_LEFT,
    "machine_hung_up": Outcome.MACHINE_HUNG_UP,
    "opted_out": Outcome.OPTED_OUT,
    "transferred": Outcome.TRANSFERRED,
}
"""A job's last word that says what the call came to; the others leave it to what was seen."""
_WEIGHTS: Final = {outcome: weight for weight, outcome in enumerate(reversed((
    Outcome.OPTED_OUT,  # a person's own word; the suppression that it made stands beside it
    Outcome.TRANSFERRED,  # whoever was handed over had talked, or been left a message, before
    Outcome.VOICEMAIL_LEFT,
    Outcome.CONVERSED,
    Outcome.MACHINE_HUNG_UP,
)))}  # fmt: skip
"""Of what several facts say a call came to, the weightiest stands, whichever came first."""


def _came_to(call: Call, outcome: Outcome | None) -> Call:
    assert call.attempt is not None
    known = call.attempt.came_to
    if outcome is None or (known is not None and _WEIGHTS[known] >= _WEIGHTS[outcome]):
        return call
    return _attempt(call, came_to=outcome)


def _last_word(call: Call, fact: f.ConversationEnded) -> Call:
    """Keep what the agent's last word proves: nothing where it left before the room did, for a leg may have come after it."""
    assert call.attempt is not None
    stayed = (call.phase is Phase.FENCING if fact.stayed is None else fact.stayed) and not fact.gap
    unanswered = call.attempt.unanswered or (fact.stayed is True and stayed and fact.callee_seen)
    return _attempt(call, agent_done=True, unseen=stayed and not fact.callee_seen, unanswered=unanswered)


def _attempt(call: Call, **changes: Any) -> Call:
    assert call.attempt is not None, "a fact is of an attempt that was opened"
    return replace(call, attempt=replace(call.attempt, **changes))
