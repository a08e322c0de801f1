"""The command line about conversations: `explain` shows how one went and never what was said; `campaigns` checks files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from dialer.campaigns import EMBEDDED
from dialer.cli.commands import EXIT_FAILED, main
from dialer.cli.explain import chain
from dialer.cli.reading import event_line
from projections.timeline import masked
from schemas.campaign import campaign_hash, load_campaign
from schemas.facts import FACTS
from tests.contracts.golden_payloads import PAYLOADS, SECOND, SNAPSHOT_2
from tests.shell.test_words import TALKS

BOX = next(iter(SNAPSHOT_2.calls.values())).to.box


def told(name: str, payload: Any) -> dict[str, Any]:
    """Return a record as the timeline shows it."""
    data = masked(orjson.loads(orjson.dumps(payload)))
    return {"at": "2026-11-22T15:00:00Z", "type": name.partition("+")[0], "id": "f-1", "cause": "f-1", "data": data}


def test_explain_shows_a_conversation_and_never_its_words() -> None:
    """Verdict with rule and latency, turns with their delay, recording, opt-out; of a sealed value not even its box."""
    named = {name: payload for name, payload in (PAYLOADS | SECOND).items() if name.partition("+")[0] in FACTS}
    named |= {name: payload for name, payload in SECOND.items() if "call_prepared" in name}
    lines = "\n".join(chain([told(name, payload) for name, payload in named.items()]))
    assert BOX not in lines and "sealed" not in lines
    for shown in (
        "answerer_detected      category=machine-vm, attempt=2, rule=en/vm/leave-a-message",
        "latency_ms=410",
        "turn_taken             speaker=agent",
        "reply_ms=840",
        "greeting_ms=2400",
        "path=recordings/rx-refill/",
        "duration_ms=31200, size_bytes=251904",
        "opt_out_heard          attempt=2, evidence=stop calling",
        "agent_api_failed       attempt=2, job_id=AJ_abc, service=speak, code=503",
        "conversation_ended     reason=opted_out",
        "a two_way call, machines: leave_message, recording: consent",
        "1 replies, half of them within 840 ms, the slowest 840 ms",
    ):
        assert shown in lines, f"{shown}\n{lines}"


def test_a_followed_log_shows_no_words_either() -> None:
    """`dialer events` reads Kafka itself."""
    for name in ("agent.fact.turn_taken.v1", "agent.fact.dtmf_received.v1", "dialer.event.call_prepared.v1+2"):
        event = told(name, (PAYLOADS | SECOND)[name]) | {"time": "t", "sequence": "1"}
        line = event_line(event)
        assert "sealed" in line and BOX not in line


def test_campaigns_lists_what_the_settings_name(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Without any: the embedded ones, each with its hash."""
    monkeypatch.delenv("DIALER_CAMPAIGNS_DIR", raising=False)
    monkeypatch.delenv("DIALER_CAMPAIGNS_URL", raising=False)
    assert main(["campaigns"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(EMBEDDED.glob("*.yaml")))
    assert all(line.startswith("ok ") for line in lines)
    monkeypatch.setenv("DIALER_CAMPAIGNS_URL", "http://127.0.0.1:1")
    assert main(["campaigns"]) == EXIT_FAILED
    assert "--check PATH" in capsys.readouterr().err


def test_campaigns_checks_a_directory_and_names_everything_that_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every file, not the first that fails; by file, key and rule, and never by a value."""
    good = {"id": "clinic", "message": "Hello {first_name}.", "trunk": "t"} | TALKS
    files: dict[str, str] = {
        "a.yaml": yaml.safe_dump(good),
        "b.yaml": yaml.safe_dump(good | {"id": "other", "agent_api": None}),
        "c.yaml": yaml.safe_dump(good),
        "d.yaml": "id: [",
        "e.yaml": yaml.safe_dump(good | {"id": "third", "colour": "secret red"}),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main(["campaigns", "--check", str(tmp_path)]) == EXIT_FAILED
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "refused", "refused", "refused", "refused"]
    assert campaign_hash(load_campaign(good)) in lines[0] and "machines: leave_message, recording: consent" in lines[0]
    assert lines[1].endswith("b.yaml: agent_api: missing")
    assert lines[2].endswith("a.yaml too")
    assert lines[4].endswith("e.yaml: colour: unknown_field")
    assert main(["campaigns", "--check", str(tmp_path / "a.yaml")]) == 0
    assert main(["campaigns", "--check", str(tmp_path / "nothing")]) == EXIT_FAILED
