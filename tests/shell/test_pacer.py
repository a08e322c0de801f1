"""The pacer: strict in any rolling second, hard caps, fair between campaigns, its share and no more."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dialer.pacer import TURN_TTL_S, Pacer
from dialer.telephony import Trunk
from tests.doubles.clock import VirtualClock


def trunk(name="a", calls_per_s=2, concurrency_max=10):
    return Trunk(
        name=name,
        address="sip.example",
        numbers=("+12125550100",),
        calls_per_s=calls_per_s,
        concurrency_max=concurrency_max,
    )


def pacer(*trunks, rooms_max=1000, share=(1, 1), clock=None, **more):
    granted = []
    made = Pacer(
        trunks or (trunk(),), rooms_max, clock or VirtualClock(), lambda kind, key: granted.append((kind, key)), **more
    )
    made.set_share(*share)
    return made, granted


def slots(granted):
    return [key for kind, key in granted if kind == "slot"]


def turns(granted):
    return [key for kind, key in granted if kind == "turn"]


def test_concurrency_is_a_hard_cap_and_a_release_lets_the_next_in():
    """Only as many slots as the trunk allows are held at once."""
    p, granted = pacer(trunk(concurrency_max=2))
    for i in range(4):
        p.ask_slot(f"k{i}", "a", "c", 5)
    assert slots(granted) == ["k0", "k1"]
    p.release("k0")
    assert slots(granted) == ["k0", "k1", "k2"]


def test_rooms_bound_all_trunks_together():
    """The agents' capacity holds across trunks, and campaigns of different trunks take turns at it."""
    p, granted = pacer(trunk("a"), trunk("b"), rooms_max=3)
    for i in range(3):
        p.ask_slot(f"a{i}", "a", "ca", 5)
        p.ask_slot(f"b{i}", "b", "cb", 5)
    assert len(slots(granted)) == 3
    for key in list(slots(granted)):
        p.release(key)
    assert Counter(key[0] for key in slots(granted)) == {"a": 3, "b": 3}


def test_priority_goes_first_and_campaigns_take_turns():
    """9 before 5; within 5, a campaign with a thousand waiting does not hold up another with two."""
    p, granted = pacer(trunk(concurrency_max=1))
    p.ask_slot("first", "a", "big", 5)
    for i in range(1000):
        p.ask_slot(f"big{i}", "a", "big", 5)
    for i in range(2):
        p.ask_slot(f"small{i}", "a", "small", 5)
    p.ask_slot("urgent", "a", "big", 9)
    for _ in range(6):
        p.release(slots(granted)[-1])
    assert slots(granted) == ["first", "urgent", "big0", "small0", "big1", "small1", "big2"]


def test_a_full_trunk_does_not_hold_up_another():
    """A call of priority 9 waiting for a full trunk lets calls of other trunks pass."""
    p, granted = pacer(trunk("a", concurrency_max=1), trunk("b"))
    p.ask_slot("a0", "a", "c", 9)
    p.ask_slot("a1", "a", "c", 9)
    p.ask_slot("b0", "b", "d", 0)
    assert slots(granted) == ["a0", "b0"]


def test_what_is_withdrawn_is_not_granted():
    """A cancelled call leaves the line, and a turn it did not spend goes to the next."""
    clock = VirtualClock()
    p, granted = pacer(trunk(calls_per_s=1, concurrency_max=1), clock=clock)
    for key in ("x", "y", "z"):
        p.ask_slot(key, "a", "c", 5)
    p.withdraw("y")
    p.release("x")
    assert slots(granted) == ["x", "z"]
    clock.move(2)
    p.ask_turn("z", "a")
    p.ask_turn("w", "a")
    assert turns(granted) == ["z"]
    p.withdraw("z")
    assert turns(granted) == ["z", "w"]
    assert not p.spend("z", clock.monotonic())


def test_a_turn_is_spent_once_and_is_stale_after_five_seconds():
    """The token opens the gate once, and not late."""
    clock = VirtualClock()
    p, granted = pacer(trunk(calls_per_s=1), clock=clock)
    clock.move(2)
    p.ask_turn("k", "a")
    assert turns(granted) == ["k"]
    assert p.spend("k", clock.monotonic())
    assert not p.spend("k", clock.monotonic())
    clock.move(2)
    p.ask_turn("k", "a")
    clock.move(TURN_TTL_S)
    assert not p.spend("k", clock.monotonic())
    p.ask_turn("k", "a")
    assert p.spend("k", clock.monotonic())
    assert not p.spend("nobody", clock.monotonic())


def test_a_share_of_nothing_is_not_ready_and_grants_nothing():
    """floor(limit x owned / total): one call a second divided by two is none."""
    p, granted = pacer(trunk(calls_per_s=1, concurrency_max=30), rooms_max=48, share=(12, 24))
    assert not p.ready
    assert p.starved == ("a",)
    p.ask_turn("k", "a")
    assert granted == []
    p.set_share(24, 24)
    assert p.ready
    p.set_share(0, 24)
    assert p.starved == ("a", "rooms")


def test_a_share_that_shrinks_binds_turns_already_out():
    """What another process may send now, this one must not."""
    clock = VirtualClock()
    p, granted = pacer(trunk(calls_per_s=4), clock=clock)
    clock.move(2)
    for i in range(4):
        p.ask_turn(f"k{i}", "a")
    assert len(turns(granted)) == 4
    p.set_share(1, 4)
    now = clock.monotonic()
    assert [p.spend(f"k{i}", now) for i in range(4)] == [True, False, False, False]


def test_a_share_that_grows_waits_out_what_the_former_owner_sent():
    """A rate gained counts after one window."""
    clock = VirtualClock()
    p, granted = pacer(trunk(calls_per_s=2), share=(0, 1), clock=clock)
    p.set_share(1, 1)
    p.ask_turn("k", "a")
    p.tick(clock.monotonic())
    assert turns(granted) == []
    clock.move(1.1)
    p.tick(clock.monotonic())
    assert turns(granted) == ["k"]


def test_adopted_calls_may_exceed_the_cap_and_nothing_is_granted_until_below():
    """A take-over's live calls count whatever the cap says."""
    p, granted = pacer(trunk(concurrency_max=2))
    for i in range(4):
        p.occupy(f"old{i}", "a")
    p.ask_slot("new", "a", "c", 9)
    for i in range(2):
        p.release(f"old{i}")
        assert granted == []
    p.release("old2")
    assert slots(granted) == ["new"]


def test_an_unknown_trunk_waits_and_leaves_the_process_ready():
    """A campaign with a wrong trunk is alarmed and holds up nobody else."""
    p, granted = pacer()
    p.ask_slot("k", "nowhere", "c", 5)
    p.ask_slot("l", "a", "c", 5)
    assert slots(granted) == ["l"]
    assert p.ready


def test_a_receiver_may_release_within_a_grant():
    """Grants are handed over one by one, also when each gives its slot back at once."""
    got = []
    p: Pacer

    def receive(kind, key):
        got.append(key)
        p.release(key)

    p = Pacer([trunk(concurrency_max=1)], 10, VirtualClock(), receive)
    p.set_share(1, 1)
    p.occupy("held", "a")
    for i in range(500):
        p.ask_slot(f"k{i}", "a", "c", 5)
    p.release("held")
    assert got == [f"k{i}" for i in range(500)]


async def test_the_loop_grants_turns_as_time_brings_them():
    """Ten calls at two a second need at least four seconds and not much longer."""
    clock = VirtualClock()
    sent = []
    p: Pacer

    def receive(kind, key):
        if kind == "turn":
            assert p.spend(key, clock.monotonic())
            sent.append(clock.monotonic())

    p = Pacer([trunk(calls_per_s=2)], 100, clock, receive)
    p.set_share(1, 1)
    clock.spawn(p.run(), "pacer")
    for i in range(10):
        p.ask_turn(f"k{i}", "a")
    await clock.advance(6)
    assert len(sent) == 10
    assert max(sent) <= 5.5
    await clock.close()


async def test_the_loop_turns_to_an_earlier_trunk_while_it_waits_for_a_later_one():
    """A turn that falls due sooner than the one the loop sleeps for is not late."""
    clock = VirtualClock()
    at = {}
    p = Pacer([trunk("a", 1), trunk("b", 1)], 100, clock, lambda kind, key: at.setdefault(key, clock.monotonic()))
    p.set_share(1, 1)
    clock.spawn(p.run(), "pacer")
    await clock.advance(2.0)
    p.ask_turn("b0", "b")
    assert p.spend("b0", clock.monotonic())
    await clock.advance(0.9)
    p.ask_turn("a0", "a")
    assert p.spend("a0", clock.monotonic())
    p.ask_turn("a1", "a")
    await clock.settle()
    p.ask_turn("b1", "b")
    await clock.advance(0.2)
    assert abs(at["b1"] - 3.05) < 1e-6
    await clock.advance(2)
    assert abs(at["a1"] - 3.95) < 1e-6
    await clock.close()


KEYS = [f"k{i}" for i in range(8)]
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.floats(0, 2, allow_nan=False)),
        st.tuples(st.just("slot"), st.sampled_from(KEYS)),
        st.tuples(st.just("turn"), st.sampled_from(KEYS)),
        st.tuples(st.just("spend"), st.sampled_from(KEYS)),
        st.tuples(st.just("withdraw"), st.sampled_from(KEYS)),
        st.tuples(st.just("release"), st.sampled_from(KEYS)),
        st.tuples(st.just("share"), st.integers(0, 4)),
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(ACTIONS, st.integers(1, 4), st.integers(1, 4))
def test_no_rolling_second_and_no_moment_exceeds_its_limit(actions, calls_per_s, concurrency_max):
    """Whatever is asked, spent, withdrawn and shared out in whatever order: both limits hold, and never a double grant."""
    clock, sent, held = VirtualClock(), [], set()

    def receive(kind, key):
        if kind == "slot":
            assert key not in held
            held.add(key)

    p = Pacer([trunk(calls_per_s=calls_per_s, concurrency_max=concurrency_max)], 100, clock, receive)
    p.set_share(4, 4)
    share = 4
    for action, argument in actions:
        now = clock.monotonic()
        match action:
            case "move":
                clock.move(argument)
                p.tick(clock.monotonic())
            case "slot":
                p.ask_slot(argument, "a", argument[-1], int(argument[1:]))
            case "turn":
                p.ask_turn(argument, "a")
            case "spend":
                if p.spend(argument, now):
                    sent.append((now, calls_per_s * share // 4))
            case "withdraw":
                p.withdraw(argument)
            case "release":
                held.discard(argument)
                p.release(argument)
            case "share":
                share = argument
                p.set_share(argument, 4)
        assert len(held) <= concurrency_max
    for at, limit in sent:
        assert sum(1 for other, _ in sent if at - 1.0 < other <= at) <= limit


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=1, max_size=60))
def test_every_call_gets_its_slot_and_equals_differ_by_one_at_most(calls):
    """Nobody starves; while two campaigns of one priority both wait, neither is served two ahead of the other."""
    p, granted = pacer(trunk(concurrency_max=1))
    p.occupy("held", "a")
    waiting = Counter()
    for i, (campaign, priority) in enumerate(calls):
        p.ask_slot(f"{i}:{campaign}:{priority}", "a", campaign, priority)
        waiting[campaign, priority] += 1
    p.release("held")
    served = Counter()
    while len(slots(granted)) < len(calls):
        p.release(slots(granted)[-1])
    for key in slots(granted):
        _, campaign, priority = key.split(":")
        lane = (campaign, int(priority))
        served[lane] += 1
        assert all(waiting[o] == served[o] for o in waiting if o[1] > lane[1])
        both = [o for o in waiting if o[1] == lane[1] and served[o] < waiting[o]]
        assert all(served[lane] - served[o] <= 1 for o in both)
    assert served == waiting


def test_a_held_campaign_keeps_its_places_and_holds_up_nobody():
    """While it is held others are served, of its priority or below; released, it is served in its order."""
    held = {"a"}
    p, granted = pacer(trunk(concurrency_max=2), is_held=lambda campaign: campaign in held)
    for i in range(3):
        p.ask_slot(f"a{i}", "a", "a", 9)
    p.ask_slot("b0", "a", "b", 5)
    p.ask_slot("c0", "a", "c", 1)
    assert slots(granted) == ["b0", "c0"]
    p.release("b0")
    assert slots(granted) == ["b0", "c0"]
    held.clear()
    p.tick(0.0)
    p.release("c0")
    assert slots(granted) == ["b0", "c0", "a0", "a1"]
    assert set(p.holding()) == {"a0", "a1"}
