"""A campaign's definition: read strictly, refused by name, addressed by its content."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.campaign import campaign_hash, load_campaign, placeholders
from schemas.values import Invalid

GOOD: dict[str, Any] = {
    "id": "rx-refill",
    "type": "one_way",
    "message": "Hello {first_name}.",
    "trunk": "cvs-retail-outbound",
}


API: dict[str, Any] = {"url": "http://127.0.0.1:8090/v1", "model": "scheduler"}
TWO_WAY: dict[str, Any] = {"type": "two_way", "agent_api": API}


def leaves(message: str) -> dict[str, Any]:
    return {"answering_machine": {"policy": "leave_message", "message": message}}


def refusal(definition: Any) -> tuple[str, str]:
    with pytest.raises(Invalid) as refused:
        load_campaign(definition)
    return refused.value.field, refused.value.rule


def test_four_keys_make_a_campaign() -> None:
    """Everything else has its default."""
    campaign = load_campaign(GOOD)
    assert (campaign.attempts_max, campaign.ring_timeout_s, campaign.max_call_duration_s) == (3, 30, 600)
    assert (campaign.retry_after_s.busy, campaign.retry_after_s.no_answer) == (300, 1800)
    assert (campaign.unknown.redial, campaign.countries_allowed) == ("never", ["US"])


@pytest.mark.parametrize(
    ("more", "field", "rule"),
    [
        ({"colour": "red"}, "colour", "unknown_field"),
        ({"retry_after_s": {"bussy": 5}}, "retry_after_s.bussy", "unknown_field"),
        ({"type": "two_way"}, "agent_api", "missing"),
        ({"agent_api": API}, "agent_api", "only_two_way"),
        ({"agent_api": {"url": API["url"]}}, "agent_api.model", "missing"),
        ({"agent_api": API | {"url": "ftp://x"}}, "agent_api.url", "pattern"),
        ({"agent_api": API | {"url": "http://key:secret@x/v1"}}, "agent_api.url", "pattern"),
        ({"agent_api": API | {"model": "a b"}}, "agent_api.model", "pattern"),
        ({"agent_api": API | {"timeout_s": 0.4}}, "agent_api.timeout_s", "greater_than_equal"),
        ({"agent_api": API | {"tries": 4}}, "agent_api.tries", "less_than_equal"),
        ({"agent_api": API | {"failures_max": 0}}, "agent_api.failures_max", "greater_than_equal"),
        ({"agent_api": API | {"key": "secret"}}, "agent_api.key", "unknown_field"),
        ({"transfer_to": {"desk": "tel:+12125550100"}}, "transfer_to", "only_two_way"),
        (TWO_WAY | {"transfer_to": {"desk": "12125550100"}}, "transfer_to.desk", "pattern"),
        (TWO_WAY | {"transfer_to": {"desk": "sip:desk"}}, "transfer_to.desk", "pattern"),
        (TWO_WAY | {"transfer_to": {"The Desk": "tel:+12125550100"}}, "transfer_to.?.[key]", "pattern"),
        (TWO_WAY | {"transfer_to": {f"desk-{n}": "tel:+12125550100" for n in range(11)}}, "transfer_to", "too_long"),
        ({"answering_machine": {"policy": "ignore"}}, "answering_machine.policy", "literal_error"),
        ({"answering_machine": {"policy": "leave_message"}}, "answering_machine.message", "missing"),
        (
            {"answering_machine": {"policy": "hangup", "message": "x"}},
            "answering_machine.message",
            "only_leave_message",
        ),
        ({"answering_machine": {"message": "x"}}, "answering_machine.message", "only_leave_message"),
        (leaves("x" * 601), "answering_machine.message", "string_too_long"),
        (leaves("{0}"), "answering_machine.message", "template"),
        ({"introduction": "{a.b}"}, "introduction", "template"),
        ({"introduction": "x" * 201}, "introduction", "string_too_long"),
        ({"opt_out_key": "10"}, "opt_out_key", "pattern"),
        ({"silence": {"prompt_after_s": 1}}, "silence.prompt_after_s", "greater_than_equal"),
        ({"silence": {"prompts_max": 6}}, "silence.prompts_max", "less_than_equal"),
        ({"phrases": {"hello": "x"}}, "phrases.hello", "unknown_field"),
        ({"phrases": {"goodbye": "x" * 121}}, "phrases.goodbye", "string_too_long"),
        ({"recording": "always"}, "recording", "literal_error"),
        ({"ring_timeout_s": 14}, "ring_timeout_s", "greater_than_equal"),
        ({"ring_timeout_s": 61}, "ring_timeout_s", "less_than_equal"),
        ({"attempts_max": 0}, "attempts_max", "greater_than_equal"),
        ({"attempts_max": "three"}, "attempts_max", "wrong_type"),
        ({"unknown": {}}, "unknown", "either_redial_or_after_s"),
        ({"unknown": {"redial": "never", "after_s": 60}}, "unknown", "either_redial_or_after_s"),
        ({"countries_allowed": []}, "countries_allowed", "too_short"),
        ({"countries_allowed": ["us"]}, "countries_allowed.0", "pattern"),
        ({"message": ""}, "message", "string_too_short"),
        ({"message": "x" * 4001}, "message", "string_too_long"),
        ({"language": "english"}, "language", "pattern"),
        ({"id": "2125550123"}, "id", "phone_number"),
    ],
)
def test_a_definition_that_breaks_a_rule_is_refused_by_name(more: dict[str, Any], field: str, rule: str) -> None:
    """An unknown key, and options that do not go together, are never passed over."""
    assert refusal(GOOD | more) == (field, rule)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_key_is_named(name: str) -> None:
    """Four are required."""
    assert refusal({k: x for k, x in GOOD.items() if k != name}) == (name, "missing")


@pytest.mark.parametrize("definition", [None, [], "x", 5])
def test_a_definition_that_is_no_mapping_is_refused(definition: Any) -> None:
    """An empty YAML file is None."""
    assert refusal(definition) == ("campaign", "not_a_mapping")


@pytest.mark.parametrize("message", ["{", "{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{a b}", "x }", "{{a}"])
def test_a_template_holds_nothing_but_names(message: str) -> None:
    """No attribute, index, conversion or format gets at anything."""
    assert refusal(GOOD | {"message": message}) == ("message", "template")


def test_a_template_names_what_it_asks_for_and_braces_may_be_doubled() -> None:
    """`{{` is a brace."""
    assert placeholders("Hello {first_name} of {store}, {{sic}} {first_name}") == ("first_name", "store", "first_name")


def test_a_definition_is_addressed_by_what_it_says() -> None:
    """Not by the order of its keys; another word is another hash; and the hash of today is the hash of ever."""
    shuffled = load_campaign(dict(reversed(list(GOOD.items()))))
    assert campaign_hash(load_campaign(GOOD)) == campaign_hash(shuffled)
    assert campaign_hash(load_campaign(GOOD | {"attempts_max": 4})) != campaign_hash(shuffled)
    assert len(campaign_hash(shuffled)) == 32
