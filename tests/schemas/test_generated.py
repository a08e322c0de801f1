"""The published contract: fresh, complete, and valid as what it claims to be."""

from __future__ import annotations

import json

import jsonschema
import pytest

from schemas import generate
from schemas.topics import TOPICS


def test_the_published_schemas_are_fresh() -> None:
    """`python -m schemas.generate` was run after the last change."""
    assert generate.stale() == []


@pytest.mark.parametrize("name", sorted(generate.ALL))
def test_a_published_schema_is_a_json_schema(name: str) -> None:
    """Draft 2020-12, complete in itself."""
    jsonschema.Draft202012Validator.check_schema(generate.json_schema(name))


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for x in node.values() for r in references(x)]
    return [r for x in node for r in references(x)] if isinstance(node, list) else []


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """JSON pointers within the document."""
    document = json.loads((generate.HERE / "asyncapi.json").read_text())
    found = references(document)
    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_every_topic_is_a_channel_with_its_messages() -> None:
    """Made from the topics table."""
    document = generate.asyncapi()
    assert document["asyncapi"] == "3.0.0"
    assert set(document["channels"]) == {topic.name for topic in TOPICS}
    assert set(generate.MESSAGES) <= set(document["channels"])
    assert set(generate.ALL) <= set(document["components"]["messages"])


def test_a_stale_file_is_named(tmp_path, monkeypatch) -> None:
    """Missing, changed, or left over."""
    monkeypatch.setattr(generate, "HERE", tmp_path)
    generate.main([])
    assert generate.main(["--check"]) == 0
    (tmp_path / "asyncapi.json").write_text("{}")
    (tmp_path / "json" / "dialer.event.gone.v1.json").write_text("{}")
    (tmp_path / "json" / "dialer.rejected.v1.json").unlink()
    assert set(generate.stale()) == {"asyncapi.json", "dialer.event.gone.v1.json", "dialer.rejected.v1.json"}
    assert generate.main(["--check"]) == 1
