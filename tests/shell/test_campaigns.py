"""Campaign definitions: checked, published before they are handed out, never "not found" by accident; messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import dialer.campaign_service
from dialer.campaigns import (
    EMBEDDED,
    Campaigns,
    Definition,
    Directory,
    NotFound,
    NotPublished,
    Service,
    Unreachable,
    define,
    open_campaigns,
)
from dialer.rendering import parse_template, render
from dialer.yaml_files import BadFile
from rehearsal.ports import free_ports
from runtime.settings import Settings
from schemas.campaign import campaign_hash, load_campaign
from schemas.events import Rules
from schemas.outcomes import Refusal
from schemas.values import Invalid
from tests.doubles.clock import VirtualClock

RX = {"id": "rx", "type": "one_way", "message": "Hello {name}.", "trunk": "t"}
YAML = 'id: rx\ntype: one_way\nmessage: "Hello {name}."\ntrunk: t\n'


class Published:
    """A stand-in for `dialer.campaigns`: what was written, in order; refuses while `broken`."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes]] = []
        self.broken = False

    async def __call__(self, key: str, value: bytes) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise NotPublished
        self.records.append((key, value))


class Scripted:
    """The campaign service's HTTP, one answer after another; the last one stays."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.answers, self.asked = list(answers), 0
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/campaigns/v1/rx"
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.asked += 1
        self.begun.set()
        await self.gate.wait()
        return web.Response(status=answer[0], body=answer[1])


@asynccontextmanager
async def service(scripted: Scripted, published: Published, clock: VirtualClock) -> AsyncIterator[Campaigns]:
    app = web.Application()
    app.router.add_get("/{tail:.*}", scripted.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    campaigns = Campaigns(Service(f"http://127.0.0.1:{runner.addresses[0][1]}/"), published, clock, 30.0)
    try:
        yield campaigns
    finally:
        await campaigns.close()
        await runner.cleanup()


def found(body: dict) -> tuple[int, bytes]:
    return 200, orjson.dumps(body)


async def test_the_embedded_examples_load_and_are_published_once():
    """Without any setting there is something to try; what is handed out stands in the topic under its hash."""
    published, clock = Published(), VirtualClock()
    campaigns = open_campaigns(Settings(), published, clock)
    assert campaigns.cached("rx-refill") is None
    assert await campaigns.warm()
    definition = campaigns.cached("rx-refill")
    assert isinstance(definition, Definition)
    assert [key for key, _ in published.records].count(definition.hash) == 1
    value = dict(published.records)[definition.hash]
    assert campaign_hash(load_campaign(orjson.loads(value))) == definition.hash
    await clock.advance(10**6)
    assert await campaigns.find("rx-refill") is definition
    assert await campaigns.find("no-such") == NotFound()
    assert len(published.records) == len(list(EMBEDDED.glob("*.yaml")))


def test_a_definitions_rules_are_made_once():
    """Every figure the core decides by."""
    campaign = load_campaign(RX | {"retry_after_s": {"busy": 7}, "unknown": {"after_s": 9}, "ring_timeout_s": 20})
    assert define(campaign).rules == Rules(
        attempts_max=3,
        busy_s=7,
        no_answer_s=1800,
        trunk_failed_s=60,
        agent_lost_s=60,
        unknown_after_s=9,
        ring_timeout_s=20,
        max_call_duration_s=600,
        trunk="t",
    )


BAD = [
    (YAML + "speed: 5\n", "speed: unknown_field"),
    (YAML.replace("one_way", "two_way"), "agent_api: missing"),
    (YAML + "agent_api: {url: http://a, model: m}\n", "agent_api: only_two_way"),
    (YAML.replace("{name}", "{name!r}"), "message: template"),
    (YAML + "trunk: u\n", "stands twice"),
    (YAML.replace("trunk: t\n", ""), "trunk: missing"),
    ("- a list", "campaign: not_a_mapping"),
    ("a: [", "line "),
]


@pytest.mark.parametrize(("text", "told"), BAD, ids=[told for _, told in BAD])
def test_a_bad_file_ends_the_start_by_file_key_and_rule(tmp_path, text, told):
    """One line."""
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(BadFile) as caught:
        Directory(tmp_path)
    assert told in str(caught.value) and "bad.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_one_id_in_two_files_and_an_empty_directory_are_refused(tmp_path):
    """Which of both would count?"""
    with pytest.raises(BadFile, match=r"no \*\.yaml files"):
        Directory(tmp_path)
    (tmp_path / "a.yaml").write_text(YAML)
    (tmp_path / "b.yaml").write_text(YAML)
    with pytest.raises(BadFile, match=r"b\.yaml: id: stands in another file too"):
        Directory(tmp_path)


async def test_the_services_definition_is_current_for_its_time_and_then_asked_again():
    """A cache with a time to live; a changed definition is another hash, an unchanged one the same object."""
    scripted, published, clock = Scripted(found(RX), found(RX), found(RX | {"trunk": "u"})), Published(), VirtualClock()
    async with service(scripted, published, clock) as campaigns:
        first = await campaigns.find("rx")
        assert await campaigns.find("rx") is first is campaigns.cached("rx")
        assert scripted.asked == 1
        clock.move(30)
        assert campaigns.cached("rx") is None
        assert await campaigns.find("rx") is first
        clock.move(30)
        changed = await campaigns.find("rx")
        assert isinstance(changed, Definition) and changed.rules.trunk == "u"
    assert len(published.records) == 2


UNREACHABLE = [
    ((500, b""), "status"),
    ((301, b""), "status"),
    ((200, b"{"), "broken"),
    (found(RX | {"speed": 1}), "broken"),
    (found(RX | {"id": "other"}), "broken"),
    ((200, b" " * 300_000), "too_large"),
]


@pytest.mark.parametrize(("answer", "why"), UNREACHABLE)
async def test_a_failure_delays_and_never_refuses(answer, why):
    """Only 404 says that there is no such campaign; the next answer counts at once."""
    scripted = Scripted(answer, found(RX))
    async with service(scripted, Published(), VirtualClock()) as campaigns:
        assert await campaigns.find("rx") == Unreachable(why)
        assert campaigns.cached("rx") is None
        assert isinstance(await campaigns.find("rx"), Definition)
    async with service(Scripted((404, b"")), Published(), VirtualClock()) as campaigns:
        assert await campaigns.find("rx") == NotFound()


async def test_a_service_that_is_not_there_or_silent_is_unreachable(monkeypatch):
    """Bounded in time."""
    campaigns = Campaigns(Service(f"http://127.0.0.1:{free_ports(1)[0]}"), Published(), VirtualClock(), 30.0)
    assert await campaigns.find("rx") == Unreachable("transport")
    await campaigns.close()
    monkeypatch.setattr(dialer.campaign_service, "TIMEOUT_S", 0.1)
    scripted = Scripted(found(RX))
    scripted.gate.clear()
    async with service(scripted, Published(), VirtualClock()) as campaigns:
        assert await campaigns.find("rx") == Unreachable("timeout")


async def test_what_is_not_published_is_not_handed_out():
    """An event must never cite a definition that nobody can read."""
    published = Published()
    published.broken = True
    async with service(Scripted(found(RX)), published, VirtualClock()) as campaigns:
        assert await campaigns.find("rx") == Unreachable("not_published")
        assert campaigns.cached("rx") is None
        published.broken = False
        assert isinstance(await campaigns.find("rx"), Definition)


async def test_many_who_ask_at_once_cost_one_request():
    """One look-up for all who wait."""
    scripted = Scripted(found(RX))
    scripted.gate.clear()
    async with service(scripted, Published(), VirtualClock()) as campaigns, asyncio.timeout(10):
        asking = [asyncio.create_task(campaigns.find("rx")) for _ in range(200)]
        await scripted.begun.wait()
        scripted.gate.set()
        definitions = await asyncio.gather(*asking)
    assert scripted.asked == 1 and len({id(d) for d in definitions}) == 1


async def test_not_found_is_only_told_to_who_asked_before():
    """A campaign that is made while a look-up runs is found by a call that comes in meanwhile."""
    scripted = Scripted((404, b""), found(RX))
    scripted.gate.clear()
    async with service(scripted, Published(), VirtualClock()) as campaigns, asyncio.timeout(10):
        early = asyncio.create_task(campaigns.find("rx"))
        await scripted.begun.wait()
        late = [asyncio.create_task(campaigns.find("rx")) for _ in range(5)]
        await asyncio.sleep(0)
        scripted.gate.set()
        assert await early == NotFound()
        assert all(isinstance(d, Definition) for d in await asyncio.gather(*late))
    assert scripted.asked == 2


def message(template: str, **variables: str) -> str | Refusal:
    return render(define(load_campaign(RX | {"message": template})).template, variables)


def test_a_message_is_rendered_or_refused_by_name():
    """`{name}` and `{{`; what is missing, empty or too long."""
    assert message("Hi {a}, {{b}} {a}!", a="x", unused="y") == "Hi x, {b} x!"
    assert message("{a} {b}", a="{b}", b="2") == "{b} 2"
    assert message("Hi {a}") is Refusal.MISSING_VARIABLE
    assert message("{a} ", a=" ") is Refusal.MESSAGE_EMPTY
    assert message("{a}", a="x" * 4000) == "x" * 4000
    assert message("{a}!", a="x" * 4000) is Refusal.MESSAGE_TOO_LONG


@given(st.text(max_size=60), st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=5)))
def test_rendering_agrees_with_pythons_own(template, variables):
    """For every template that is allowed, `str.format` says the same."""
    try:
        parsed = parse_template(template)
    except Invalid:
        return
    definition = Definition.__new__(Definition)
    object.__setattr__(definition, "template", parsed)
    got = render(definition.template, variables)
    try:
        said = template.format(**variables)
    except KeyError:
        assert got is Refusal.MISSING_VARIABLE
    else:
        assert got == (said if said.strip() else Refusal.MESSAGE_EMPTY)
