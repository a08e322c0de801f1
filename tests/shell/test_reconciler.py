"""Before anything is ended that this process does not see for itself, LiveKit is asked, and the agent is heard."""

from __future__ import annotations

from dialer.telephony import DialAnswer, DialRequest
from runtime import metrics
from schemas.topics import OBSERVATIONS
from schemas.values import partition_of, room_name
from tests.doubles.agents import Job, Script
from tests.doubles.telephony import UNCLEAR, Fault, Phone
from tests.doubles.world import ANN, World, key_of

OBSERVED = OBSERVATIONS.name
NEVER = 1_000


async def rings(world: World, phone: Phone, script: Script | None = None) -> str:
    """Bring a call to ringing."""
    world.telephony.script(ANN, phone)
    world.agents.scripts.append(script or Script())
    call = world.place()
    await world.until_told(call, "dial_started" if script and script.falls_silent_on == "ringing" else "callee_ringing")
    await world.clock.advance(0.01)
    return call


def leave(world: World, call: str) -> None:
    """Let the callee's leg go."""
    world.telephony.leave(room_name(call, 1), f"callee-{call}-1")


def cut_off(world: World) -> None:
    """LiveKit answers no list any more."""
    for _ in range(NEVER):
        world.telephony.fault("legs", Fault(kind="fail"))


def hold_back(world: World) -> None:
    """What agents and LiveKit say is read late."""
    world.feed.delayed.add(OBSERVED)


def let_through(world: World) -> None:
    world.feed.delayed.discard(OBSERVED)
    world.feed.nudge()


async def away(world: World, seconds: float) -> None:
    """Leave the partition without an owner for so long."""
    partition = partition_of(key_of(ANN))
    world.owned.pop(partition).stop()
    await world.clock.advance(seconds)
    world.own(partition)


async def test_an_adopted_leg_that_is_answered_is_known_to_be(world: World) -> None:
    """By LiveKit's list, before its agent's facts are read."""
    call = await rings(world, Phone(rings_for_s=4.0))
    hold_back(world)
    world.lose()
    await world.clock.advance(7)
    assert "call_answered" in world.told(call)
    let_through(world)
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert world.told(call).count("call_answered") == len(world.telephony.invites) == 1


async def test_a_leg_that_is_listed_no_more_is_gone_at_the_second_look(world: World) -> None:
    """One look proves nothing: a dial of the former owner may be on its way."""
    call = await rings(world, Phone(rings_for_s=20.0))
    hold_back(world)
    leave(world, call)
    world.lose()
    await world.clock.advance(1.9)
    assert "fence_started" not in world.told(call)
    await world.clock.advance(1.0)
    assert world.last(call, "fence_started")["reason"] == "callee_left"


async def test_where_livekit_cannot_say_a_living_agent_keeps_its_call(world: World) -> None:
    """It is down, or asked about a node that is: nothing is hung up for that."""
    call = await rings(world, Phone(rings_for_s=20.0))
    cut_off(world)
    world.lose()
    await world.clock.advance(15)
    assert "fence_started" not in world.told(call)
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_where_livekit_cannot_say_and_no_agent_is_heard_the_leg_is_gone(world: World) -> None:
    """Not at the dial's deadline: seconds after the take-over."""
    call = await rings(world, Phone(rings_for_s=20.0), Script(falls_silent_on="ringing"))
    cut_off(world)
    world.lose()
    await world.clock.advance(5)
    assert "fence_started" not in world.told(call)
    await world.clock.advance(6)
    assert world.last(call, "fence_started")["reason"] == "dial_unclear"


async def test_a_callee_who_is_alone_in_the_room_is_hung_up_soon_after_a_take_over(world: World) -> None:
    """Dialer and worker died together: nobody is kept in silence (promise 4)."""
    call = await rings(world, Phone(rings_for_s=1.0), Script(falls_silent_on="active"))
    await world.clock.advance(1.5)
    job: Job = world.agents.jobs[0]
    world.telephony.leave(job.room, f"agent-{job.job_id}")
    world.lose()
    await world.clock.advance(10)
    assert world.last(call, "agent_lost")["attempt"] == 1
    assert world.telephony.live_legs == []


async def test_a_call_that_talks_through_an_outage_of_the_dialer_is_not_hung_up(world: World) -> None:
    """Its dial's deadline is long past, its facts wait in a backlog: LiveKit is asked first."""
    call = await rings(world, Phone(rings_for_s=3.0), Script(speaks_for_s=150.0))
    hold_back(world)
    await away(world, 100)
    await world.clock.advance(3)
    assert world.telephony.live_legs
    assert "call_answered" in world.told(call)
    let_through(world)
    await world.clock.advance(100)
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_an_overdue_dial_of_which_nothing_is_heard_is_taken_down_after_all(world: World) -> None:
    """5 s after the take-over."""
    call = await rings(world, Phone(rings_for_s=3.0), Script(speaks_for_s=150.0))
    hold_back(world)
    cut_off(world)
    await away(world, 100)
    await world.clock.advance(4)
    assert world.telephony.live_legs
    await world.clock.advance(2)
    assert world.last(call, "fence_started")["reason"] == "dial_unclear"


async def test_an_unclear_dial_leaves_its_leg_alone(world: World) -> None:
    """The line to LiveKit breaks while it rings: the agent tells the rest, and nothing is unknown."""
    real = world.telephony.dial

    async def breaks(request: DialRequest) -> DialAnswer:
        async def unheard() -> None:
            await real(request)

        world.clock.spawn(unheard(), "unheard")
        await world.clock.sleep(1.0)
        return UNCLEAR

    world.telephony.dial = breaks  # type: ignore[method-assign]
    call = await rings(world, Phone(rings_for_s=8.0))
    await world.clock.advance(60)
    assert world.last(call, "call_ended")["outcome"] == "delivered"
    assert "dial_unknown" not in world.told(call)
    assert len(world.telephony.invites) == 1


async def test_an_unclear_dial_without_a_leg_is_taken_down_soon(world: World) -> None:
    """LiveKit lists none, twice: the agent saw none either, so nothing was sent."""

    async def lost(request: DialRequest) -> DialAnswer:
        world.telephony.dial = real  # type: ignore[method-assign]
        return UNCLEAR

    real, world.telephony.dial = world.telephony.dial, lost  # type: ignore[method-assign]
    call = world.place()
    await world.until_told(call, "dial_started")
    await world.clock.advance(4.5)
    assert world.last(call, "fence_started")["reason"] == "dial_unclear"
    await world.clock.advance(60)
    assert world.last(call, "dial_withdrawn")["reason"] == "not_sent"
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_an_agent_whose_word_is_read_late_is_not_lost(world: World) -> None:
    """Reading lags 20 s behind: LiveKit lists the agent, so the call goes on."""
    call = await rings(world, Phone(rings_for_s=1.0), Script(speaks_for_s=40.0))
    await world.until_told(call, "call_answered")
    hold_back(world)
    await world.clock.advance(20)
    let_through(world)
    await world.clock.advance(60)
    assert "agent_lost" not in world.told(call)
    assert world.last(call, "call_ended")["outcome"] == "delivered"


async def test_a_silent_agent_that_livekit_does_not_list_is_lost_after_15_s(world: World) -> None:
    """Sooner than one that is listed."""
    call = await rings(world, Phone(rings_for_s=1.0), Script(falls_silent_on="active"))
    await world.until_told(call, "call_answered")
    job: Job = world.agents.jobs[0]
    world.telephony.leave(job.room, f"agent-{job.job_id}")
    await world.clock.advance(12)
    assert "agent_lost" not in world.told(call)
    await world.clock.advance(6)
    assert "agent_lost" in world.told(call)


async def test_a_ghost_keeps_no_call_alive(world: World) -> None:
    """livekit-server was killed: its lists name callee and agent for ever, the agent's silence says what is true."""
    call = await rings(world, Phone(rings_for_s=1.0), Script(falls_silent_on="active"))
    await world.until_told(call, "call_answered")
    world.telephony.haunt(room_name(call, 1))
    world.lose()
    await world.clock.advance(25)
    assert "agent_lost" in world.told(call)
    assert await world.telephony.legs(room_name(call, 1)) != ()


async def test_a_ghosts_fence_ends_when_no_leg_can_be_left_with_an_alarm(world: World) -> None:
    """It cannot be deleted, and after a dial no room may be made again: the callee waits for the longest leg."""
    call = await rings(world, Phone(rings_for_s=20.0), Script(falls_silent_on="ringing"))
    before = metrics.ALARMS.labels("fence_unconfirmed")._value.get()
    world.telephony.haunt(room_name(call, 1))
    await world.clock.advance(80 + 30 + 600 - 10)
    assert "fence_started" in world.told(call)
    assert "call_ended" not in world.told(call)
    assert metrics.ALARMS.labels("fence_unconfirmed")._value.get() == before + 1
    await world.clock.advance(15)
    assert world.last(call, "call_ended")["outcome"] != "delivered"
    assert [i.attempt_id for i in world.telephony.invites] == [f"{call}-1"]
