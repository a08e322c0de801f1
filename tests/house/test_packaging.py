"""Image, compose file and chart: what can be known of them without running them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import docker_entrypoint
from agent.worker import DRAIN_TIMEOUT_S, FACTS_TIMEOUT_S
from dialer.app import DRAIN_MARGIN_S, RING_MAX_S
from runtime.settings import SettingsError, describe, read_settings
from schemas.topics import BATCH_BYTES_MAX

ROOT = Path(__file__).resolve().parents[2]
HELM = ROOT / "helm"
OURS = ("topics", "dialer", "agent", "projections")
TEMPLATES = sorted((HELM / "templates").iterdir())
VALUES: dict[str, Any] = yaml.safe_load((HELM / "values.yaml").read_text())
MODE = "LIVEKIT"
"""Read by the entrypoint, no setting."""
SERVE_ONLY = {"DIALER_PEPPER", "DIALER_MASTER_KEY"}


def _compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def _known(names: set[str]) -> None:
    """Let the settings themselves say that these are names they know. Raises: AssertionError by name."""
    variables = {name for name, _, _ in describe(read_settings({}))}
    for name in names - {MODE}:
        assert name in variables, f"{name} is not a setting"


@pytest.mark.parametrize(
    ("livekit", "arguments", "expected"),
    [
        (None, [], ["dialer", "serve"]),
        ("", [], ["dialer", "serve"]),
        ("false", [], ["dialer", "serve"]),
        ("true", [], ["agent"]),
        ("TRUE", [], ["agent"]),
        (None, ["projections"], ["projections"]),
        ("true", ["projections", "--no-audit"], ["projections", "--no-audit"]),
        (None, ["topics", "--replication-factor", "3"], ["dialer", "topics", "--replication-factor", "3"]),
    ],
)
def test_the_entrypoint_chooses_by_livekit_and_argument(
    livekit: str | None, arguments: list[str], expected: list[str]
) -> None:
    """LIVEKIT decides between dialer and agent; an argument names anything else."""
    environment = {} if livekit is None else {MODE: livekit}
    assert docker_entrypoint.command(environment, arguments) == expected


def test_another_word_in_livekit_is_refused() -> None:
    """A misspelt LIVEKIT starts nothing: the wrong program would be worse."""
    with pytest.raises(docker_entrypoint.UnknownMode):
        docker_entrypoint.command({MODE: "yes"}, [])


def test_the_image_copies_what_is_there_and_runs_as_nobody_special() -> None:
    """Each COPY of the Dockerfile has its source, not ignored; hashes are required; the user is not root."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert source in let_in
    assert "--require-hashes" in dockerfile
    assert re.search(r"^USER 10001", dockerfile, re.MULTILINE)
    _known(set(re.findall(r"\b(DIALER_[A-Z_]+)=", dockerfile)))


def test_the_compose_file_gives_our_programs_settings_they_know() -> None:
    """Every variable of ours is a setting; the pepper and the master key reach `dialer serve` only."""
    services = _compose()["services"]
    for name in OURS:
        given = set(services[name]["environment"])
        _known(given)
        assert bool(given & SERVE_ONLY) == (name == "dialer")


def test_the_compose_file_asks_for_nothing_its_example_leaves_out() -> None:
    """`.env.example` has every variable that compose.yaml cannot do without."""
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "compose.yaml").read_text()))
    example = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert asked <= example


def test_every_service_of_the_compose_file_that_can_be_asked_has_a_health_check() -> None:
    """livekit-sip and egress have no tool to ask with in their images; `topics` ends."""
    services = _compose()["services"]
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"sip", "egress", "topics"}
    for service in services.values():
        for needed in service.get("depends_on", {}):
            assert needed in services


def test_livekit_makes_no_rooms_by_itself_and_kafka_takes_our_batches() -> None:
    """What the fence rests on, and the size of a batch, are in the compose file."""
    services = _compose()["services"]
    config = re.sub(r"\$\{([A-Z_]+)[^}]*\}", r"\1", services["livekit"]["environment"]["LIVEKIT_CONFIG"])
    assert yaml.safe_load(config)["room"]["auto_create"] is False
    kafka = services["kafka"]["environment"]
    assert int(kafka["KAFKA_MESSAGE_MAX_BYTES"]) > BATCH_BYTES_MAX
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_stopping_is_given_the_time_it_may_take() -> None:
    """Compose and chart wait longer than drain, margin and last words."""
    serve_s = RING_MAX_S + 2 * DRAIN_MARGIN_S
    agent_s = DRAIN_TIMEOUT_S + FACTS_TIMEOUT_S
    services = _compose()["services"]
    assert int(services["dialer"]["stop_grace_period"].removesuffix("s")) > serve_s
    assert int(services["agent"]["stop_grace_period"].removesuffix("s")) > agent_s
    assert VALUES["dialer"]["terminationGracePeriodSeconds"] > serve_s
    assert VALUES["agent"]["terminationGracePeriodSeconds"] > agent_s


def test_the_charts_values_are_as_their_schema_says() -> None:
    """values.yaml passes values.schema.json, and a misspelt key does not."""
    schema = json.loads((HELM / "values.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(VALUES, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(VALUES | {"dailer": {}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(VALUES | {"settings": {"DIALER_ROOMS_MAX": 3}}, schema)


def test_the_chart_gives_settings_the_programs_know() -> None:
    """Variables in values and templates are settings, and their values are taken."""
    for place in (VALUES, VALUES["dialer"], VALUES["agent"], VALUES["projections"]):
        given = {name: value for name, value in place["settings"].items() if value}
        _known(set(given))
        try:
            read_settings(given)
        except SettingsError as error:
            pytest.fail(str(error))
    text = "".join(path.read_text() for path in TEMPLATES)
    _known(set(re.findall(r"\{name: ([A-Z][A-Z_]+),", text)))
    secrets = set(re.findall(r"^([A-Z][A-Z_ ]+)$", text, re.MULTILINE))
    _known({name for line in secrets for name in line.split()})


def test_the_pepper_reaches_the_dialer_only() -> None:
    """Of the chart's lists of secrets only the dialer's has the pepper and the master key."""
    text = (HELM / "templates/_workload.tpl").read_text()
    lists = [set(line.split()) for line in re.findall(r"^([A-Z][A-Z_ ]+)$", text, re.MULTILINE)]
    assert len(lists) == 3
    assert [names >= SERVE_ONLY for names in lists] == [True, False, False]


AGENT_ONLY = {
    *("TWILIO_AUTH_TOKEN", "DEEPGRAM_API_KEY", "AGENT_API_KEY"),
    *("DIALER_RECORDING_CREDENTIALS", "DIALER_API_KEY"),
}
OF_AN_AGENT = {
    *("DIALER_SPEAK_URL", "DIALER_LISTEN_URL", "DIALER_ICE_TRANSPORT", "TWILIO_ACCOUNT_SID", "VAULT_ADDR"),
    *("DIALER_RECORDING_BUCKET", "DIALER_SECRETS_DIR", "DIALER_URL"),
}


def test_an_agent_is_given_what_it_talks_records_and_hides_with() -> None:
    """In compose and chart; secrets of services that only agents use reach agents only."""
    services = _compose()["services"]
    assert set(services["agent"]["environment"]) >= OF_AN_AGENT | AGENT_ONLY
    for name in ("dialer", "projections"):
        assert not set(services[name]["environment"]) & AGENT_ONLY
    chart = (HELM / "templates/agent.yaml").read_text()
    given = set(VALUES["agent"]["settings"]) | set(re.findall(r"\{name: ([A-Z_]+),", chart))
    assert given >= OF_AN_AGENT
    text = (HELM / "templates/_workload.tpl").read_text()
    lists = [set(line.split()) for line in re.findall(r"^([A-Z][A-Z_ ]+)$", text, re.MULTILINE)]
    assert [names >= AGENT_ONLY for names in lists] == [False, True, False]
    (optional,) = re.findall(r"\$optional := list (.+) \}\}", text)
    assert set(re.findall(r'"([A-Z_]+)"', optional)) == AGENT_ONLY | {"VAULT_TOKEN"}
    assert not AGENT_ONLY & (lists[0] | lists[2])


def test_what_templates_ask_of_values_is_there() -> None:
    """Every `.Values.a.b` of a template stands in values.yaml."""
    for path in TEMPLATES:
        for dotted in set(re.findall(r"\.Values\.([A-Za-z_.]+)", path.read_text())):
            value: Any = VALUES
            for part in dotted.rstrip(".").split("."):
                assert part in value, f"{path.name}: .Values.{dotted}"
                value = value[part]


def test_templates_open_and_close_alike() -> None:
    """Each block of a template has its end."""
    for path in TEMPLATES:
        actions = re.findall(r"\{\{-?\s*(if|range|with|define|end)\b", path.read_text())
        assert actions.count("end") * 2 == len(actions), path.name


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on the PATH")
@pytest.mark.parametrize("source", ["kubernetes", "vault"])
def test_the_chart_renders_where_there_is_helm(source: str, tmp_path: Path) -> None:
    """With what an installation must give, `helm lint` and `helm template` are content and the result is YAML."""
    given = tmp_path / "values.yaml"
    required = {name: "ws://livekit:7880" for name, value in VALUES["settings"].items() if not value}
    given.write_text(
        yaml.safe_dump(
            {
                "settings": required,
                "secrets": {"source": source},
                "dialer": {"trunks": "trunks: []", "campaigns": {"a.yaml": "id: a"}},
                "projections": {"storage": "1Gi"},
                "ingress": {"enabled": True, "host": "dialer.example"},
            }
        )
    )
    subprocess.run(["helm", "lint", "--strict", HELM, "--values", given], check=True, capture_output=True)
    rendered = subprocess.run(
        ["helm", "template", "calls", HELM, "--values", given, "--kube-version", "1.30.0"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    kinds = [document["kind"] for document in yaml.safe_load_all(rendered) if document]
    assert kinds.count("Deployment") == 3
    assert kinds.count("Ingress") == 2
