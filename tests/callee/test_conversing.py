"""Chapter 13: what a conversation, a machine or a transfer comes to, and whose doing it was; in any order of the facts."""

from __future__ import annotations

from itertools import permutations

import pytest

from dialer.callee import inputs as i
from dialer.callee.state import Phase
from dialer.callee.witnessed import tells_of_an_answer
from schemas import facts as f
from schemas.events import AgentLost, CallAnswered, CallEnded, FenceStarted, RetryScheduled
from schemas.outcomes import Attribution, FenceReason, Outcome
from tests import histories as h
from tests.spec import Spec, given

CALLEE, US = Attribution.CALLEE, Attribution.US


def ended(spec: Spec) -> tuple[Outcome, Attribution]:
    """Return how the only call ended; it was not to be tried again after its answer."""
    spec.over()
    bodies = [r.body for r in spec.log]
    assert not any(isinstance(body, RetryScheduled) for body in bodies[bodies.index(CallAnswered(attempt=1)) :])
    (end,) = (body for body in bodies if isinstance(body, CallEnded))
    return end.outcome, end.attribution


CONVERSATIONS: dict[str, tuple[tuple[i.FactSeen, ...], Outcome, Attribution]] = {
    "conversed": ((h.started(11), h.talked(14), h.last_word(30, reason="conversed")), Outcome.CONVERSED, CALLEE),
    "a message left on a machine": (
        (h.detected(12), h.voicemail(25), h.last_word(26, reason="voicemail_left")),
        Outcome.VOICEMAIL_LEFT,
        CALLEE,
    ),
    "a machine hung up on": ((h.detected(12), h.last_word(12.5, reason="machine_hung_up")), Outcome.MACHINE_HUNG_UP, US),
    "opted out": ((h.talked(12), h.opted_out(12), h.last_word(16, reason="opted_out")), Outcome.OPTED_OUT, CALLEE),
    "a message left, by the last word alone": ((h.last_word(26, reason="voicemail_left"),), Outcome.VOICEMAIL_LEFT, CALLEE),
    "opted out, by the last word alone": ((h.last_word(16, reason="opted_out"),), Outcome.OPTED_OUT, CALLEE),
    "transferred, by the last word alone": ((h.last_word(21, reason="transferred"),), Outcome.TRANSFERRED, CALLEE),
    "transferred": ((h.talked(12), h.transferred(20), h.last_word(21, reason="transferred")), Outcome.TRANSFERRED, CALLEE),
    "transferred, and the leg left": ((h.transferred(20), h.left(21), h.last_word(22, reason="callee_left")),
        Outcome.TRANSFERRED, CALLEE),
    "hung up in the middle of it": ((h.talked(12), h.hung_up(14), h.left(14), h.last_word(14.5, reason="callee_left")),
        Outcome.HUNG_UP_EARLY, CALLEE),
    "the agent api failed": ((h.started(11), h.api_failed(15), h.last_word(18, reason="failed")), Outcome.AGENT_LOST, US),
    "the agent api failed, and its hang-up was told by another first": (
        (h.api_failed(15), h.left(18, reason="ROOM_DELETED"), h.last_word(18.5, reason="failed")),
        Outcome.AGENT_LOST,
        US,
    ),
    "hung up on an agent whose api failed": (
        (h.api_failed(15), h.hung_up(16), h.left(16), h.last_word(16.5, reason="callee_left")),
        Outcome.HUNG_UP_EARLY,
        US,
    ),
    "too long": ((h.talked(12), h.last_word(609, reason="too_long")), Outcome.AGENT_LOST, US),
    "a delivered message, and a machine known too late": (
        (h.delivered(20), h.last_word(21, reason="machine_hung_up")), Outcome.MACHINE_HUNG_UP, US),
    "left on a machine, agent lost before its last word": ((h.detected(12), h.voicemail(25), h.crashed(26)),
        Outcome.VOICEMAIL_LEFT, CALLEE),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CONVERSATIONS))
def test_a_conversation_comes_to_what_its_facts_say(name: str) -> None:
    """Told in order, each fact copied once."""
    facts, outcome, by = CONVERSATIONS[name]
    spec = given(*h.answered(), *facts).in_phase(Phase.FENCING).when(h.fenced(640), h.tick(660))
    assert ended(spec) == (outcome, by)


@pytest.mark.parametrize("name", list(CONVERSATIONS))
@pytest.mark.parametrize("history", [h.dialing(), h.ringing(), h.answered()], ids=["dialing", "ringing", "answered"])
def test_it_comes_to_the_same_in_whatever_order_its_facts_come(name: str, history: tuple[i.AnyInput, ...]) -> None:
    """A spool is shipped after what came behind it, twice at that; even the status may come last.

    But for one thing: a last word that proves no answer, where nothing else has told of one, is that of a leg that left.
    """
    facts, outcome, by = CONVERSATIONS[name]
    if outcome is Outcome.AGENT_LOST:
        history = h.answered()
    for order in permutations(facts):
        spec = given(*history).when(*order, *order[::-1], h.status(639, "active"), h.fenced(640), h.tick(660))
        assert ended(spec) == (outcome, by), [type(one.fact).__name__ for one in order]


def test_of_all_that_a_call_came_to_the_weightiest_stands_in_any_order() -> None:
    """An opt-out before a transfer before a message before talk before a machine: the fold is the same for every order."""
    weights = (
        (h.opted_out(20), Outcome.OPTED_OUT),
        (h.transferred(20), Outcome.TRANSFERRED),
        (h.voicemail(20), Outcome.VOICEMAIL_LEFT),
        (h.fact(20, f.ConversationEnded, 30, reason="conversed", callee_seen=True, gap=False), Outcome.CONVERSED),
        (h.fact(20, f.ConversationEnded, 31, reason="machine_hung_up", callee_seen=True, gap=False),
            Outcome.MACHINE_HUNG_UP),
    )  # fmt: skip
    for n in range(len(weights)):
        for order in permutations(weights[n:]):
            spec = given(*h.answered(), *(one for one, _ in order))
            attempt = spec.call().attempt
            assert attempt is not None
            assert attempt.came_to is weights[n][1]


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if "lost" not in name and "failed" not in name])
def test_nothing_that_stops_an_answered_call_unsays_what_it_came_to(name: str) -> None:
    """A cancel, a suppression, an agent that dies: after the fact."""
    facts, outcome, by = CONVERSATIONS[name]
    if outcome not in {Outcome.AGENT_LOST, Outcome.HUNG_UP_EARLY}:
        for stop in (h.cancel(639), h.suppress(639), h.silent(639), h.crashed(639), h.gone(639)):
            spec = given(*h.answered(), *facts).when(stop, h.fenced(640), h.tick(660))
            assert ended(spec) == (outcome, by)


PROOFS = {
    "started": h.started(21),
    "delivered": h.delivered(21),
    "detected": h.detected(21),
    "voicemail": h.voicemail(21),
    "talked": h.talked(21),
    "opted out": h.opted_out(21),
    "transferred": h.transferred(21),
    "active": h.status(21, "active"),
    "automation": h.status(21, "automation"),
    **{
        reason: h.last_word(21, reason=reason)
        for reason in ("conversed", "voicemail_left", "machine_hung_up", "opted_out", "transferred")
    },
}


@pytest.mark.parametrize("name", list(PROOFS))
def test_whatever_only_an_answered_leg_gives_is_an_answer_by_itself(name: str) -> None:
    """Never a further attempt after an answered one (promise 2), whichever fact comes first, whenever it comes."""
    proof = PROOFS[name]
    for history in (h.dialing(h.prepared(h.REDIALS_UNKNOWN)), h.ringing()):
        for before in ((), (h.silent(20),), (h.gone(20),), (h.failed(20, 486),)):
            spec = given(*history, *before).when(proof)
            assert [r.body for r in spec.decided].count(CallAnswered(attempt=1)) == 1
            ended(spec.when(h.last_word(21, reason="failed"), h.fenced(23), h.tick(33)))
    ended(given(*h.unknown()).when(proof))
    given(*h.is_ready(), h.tick(241)).when(proof).in_phase(Phase.FENCING)
    assert CallAnswered(attempt=1) not in [r.body for r in given(*h.answered()).when(proof).decided]


def test_other_facts_prove_no_answer() -> None:
    """A leg that joins, rings, leaves, presses keys into early media, or an agent that ends: all before any answer."""
    others = (
        *(h.status(21, word) for word in ("dialing", "ringing", "hangup")),
        *(
            h.last_word(21, reason=reason)
            for reason in ("delivered", "callee_left", "no_callee", "failed", "cancelled")
        ),
        h.fact(21, f.CalleeJoined, 2),
        h.fact(21, f.DtmfReceived, 20, digit=h.BOX),
        h.fact(21, f.RecordingFailed, 23, egress_id=None, code="x"),
        h.hung_up(21),
        h.left(21),
        h.crashed(21),
        h.api_failed(21),
        h.ready(21),
    )
    assert not [one.fact for one in others if tells_of_an_answer(one.fact)]
    assert all(tells_of_an_answer(one.fact) for one in PROOFS.values())


def test_an_answer_that_an_agents_last_word_proves_ends_as_a_conversation() -> None:
    """Not as a leg that left unanswered."""
    spec = given(*h.ringing()).when(h.last_word(21, reason="machine_hung_up"))
    down = FenceStarted(attempt=1, reason=FenceReason.CONVERSATION_ENDED)
    spec.then(f.ConversationEnded, CallAnswered(attempt=1), down)
    left = given(*h.ringing()).when(h.last_word(21, reason="failed"))
    left.then(f.ConversationEnded, FenceStarted(attempt=1, reason=FenceReason.CALLEE_LEFT))


def test_a_machine_that_is_hung_up_on_is_an_answered_attempt() -> None:
    """Rules that redial everything do not redial it; the next day is another request."""
    spec = given(
        *h.answered(h.prepared(h.REDIALS_UNKNOWN)), h.detected(11), h.last_word(11.5, reason="machine_hung_up")
    )
    spec.when(h.fenced(13))
    assert ended(spec) == (Outcome.MACHINE_HUNG_UP, Attribution.US)


def test_an_agent_that_is_lost_after_it_left_a_message_has_left_it() -> None:
    """By its process or its machine."""
    for lost in (h.crashed(26), h.silent(26)):
        spec = given(*h.answered(), h.detected(11), h.voicemail(25)).when(lost)
        assert AgentLost(attempt=1, answered=True) in [r.body for r in spec.decided]
        assert ended(spec.when(h.fenced(28), h.tick(40))) == (Outcome.VOICEMAIL_LEFT, Attribution.CALLEE)


def test_a_late_message_on_a_machine_ends_a_call_that_waits_for_its_retry() -> None:
    """The spool came after the judgement: whoever has our message is not rung again."""
    spec = given(*h.unknown()).when(h.voicemail(100)).then(f.VoicemailLeft, CallAnswered(attempt=1), CallEnded)
    spec.over()


def test_a_recording_that_ends_after_its_call_is_still_told() -> None:
    """For a day; it says nothing of the call's fate."""
    done = {"egress_id": "EG_1", "path": "recordings/x/recording.mp3", "duration_ms": 9000, "size_bytes": 72_000}
    spec = given(*h.fencing(), h.fenced(15)).when(h.fact(45, f.RecordingCompleted, 20, **done))
    spec.then(f.RecordingCompleted).over()
    spec.when(h.fact(46, f.RecordingCompleted, 20, **done)).then_nothing()
