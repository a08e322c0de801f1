"""Documents against the code: tables, the map, links, commands, examples. A document that is not true is a fault."""

from __future__ import annotations

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from dialer.cli.commands import parser
from dialer.trunks import load_trunks
from docs import tables
from projections.audit_names import LINES
from rehearsal.personas import persona_of
from runtime.settings import Settings
from schemas.campaign import load_campaign
from schemas.codec import decode_command
from schemas.envelope import decode

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
MAPPED = ("schemas", "runtime", "dialer", "dialer/callee", "dialer/cli", "agent", "projections")
"""Packages whose every module is named on the map."""
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
).stdout.split()


def _map() -> dict[str, str]:
    """Return folder -> all that the map says of it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    block = text.split("<!-- map -->")[1].split("<!-- end of map -->")[0]
    said: dict[str, str] = {}
    folder = ""
    for line in block.splitlines():
        head = re.match(r"([a-z/]+)/ +(.*)", line)
        if head:
            folder, line = head[1], head[2]
        if folder:
            said[folder] = said.get(folder, "") + "\n" + line
    return said


def test_tables_are_as_the_code_has_them() -> None:
    """`python -m docs.tables` was run after the last change of a setting, a topic, a metric."""
    assert tables.stale() == []


def test_the_map_names_every_folder_and_no_other() -> None:
    """ARCHITECTURE.md's tree has each top-level folder that git knows."""
    folders = {path.split("/")[0] for path in TRACKED if "/" in path and not path.startswith(".")}
    assert {folder for folder in _map() if "/" not in folder} == folders


@pytest.mark.parametrize("package", MAPPED)
def test_the_map_names_every_module(package: str) -> None:
    """Each module of a package stands on the map, and nothing that is gone."""
    modules = {p.stem for p in (ROOT / package).glob("*.py") if not p.stem.startswith("__")}
    words = set(re.findall(r"[a-z_]+", _map()[package]))
    assert modules - words == set()
    gone = {word for word in words if "_" in word} - modules - {"campaigns_embedded"}
    assert gone == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """A relative link names a file that is there, and an anchor a heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_quoted_tests_are_there() -> None:
    """A test or test file that a document names can be found."""
    sources = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    for document in DOCUMENTS:
        for name in set(re.findall(r"`(test_[a-z0-9_]+)`", document.read_text())):
            assert any(f"def {name}(" in source for source in sources.values()), name
        for name in set(re.findall(r"\b(test_[a-z0-9_]+\.py)\b", document.read_text())):
            assert any(path.name == name for path in sources), name


def test_every_command_is_in_the_readme_and_no_other() -> None:
    """`dialer COMMAND` in documents is a command, and each command is shown."""
    actions = [action for action in parser()._actions if action.dest == "command"]
    commands = set(actions[0].choices or ())
    block = README.split("## The command line")[1].split("## Campaigns")[0]
    assert {name for name in commands if re.search(rf"\b{name}\b", block)} == commands
    for document in DOCUMENTS:
        for name in re.findall(r"`dialer ([a-z]+)", document.read_text()):
            assert name in commands, f"{document.name}: dialer {name}"


def test_quoted_make_targets_are_there() -> None:
    """`make X` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        for name in re.findall(r"(?:`|^)make ([a-z][a-z-]*)", document.read_text(), re.MULTILINE):
            assert name in targets, f"{document.name}: make {name}"


def test_settings_said_to_be_unused_are_unused() -> None:
    """The README's list of settings that nothing reads is that list."""
    sources = "".join(
        path.read_text()
        for package in ("runtime", "dialer", "agent", "projections")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "settings.py"
    )
    unread = {f.metadata["env"] for f in fields(Settings) if not re.search(rf"\.{f.name}\b", sources)}
    said = README.split("not used by anything yet:")[1].split(".\n")[0]
    assert set(re.findall(r"`([A-Z_]+)`", said)) == unread


def test_the_first_message_is_a_command() -> None:
    """The console producer's line of the README is read as a `place_call`."""
    record = re.search(r"^echo '(\{.*\})' ", README, re.MULTILINE)
    assert record is not None
    envelope = decode(record[1].encode())
    decode_command(envelope.type, envelope.data)


def test_examples_are_the_files() -> None:
    """Each marked example of the README is the file that was tried."""
    found = re.findall(r"<!-- example: (\S+) -->\n```\w+\n(.*?)```\n<!-- end of example -->", README, re.DOTALL)
    assert len(found) == 2
    for file, text in found:
        assert (ROOT / file).read_text() == text, file


def test_the_campaign_and_the_trunks_of_the_readme_load(tmp_path: Path) -> None:
    """The YAML that the README shows is taken as it stands."""
    campaign, more, trunks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    plain, options = yaml.safe_load(campaign), yaml.safe_load(more)
    assert load_campaign(plain).id == "rx-refill"
    assert load_campaign(plain | options | {"type": "two_way"}).agent_api is not None
    password = tmp_path / "trunk"
    password.write_text("secret")
    file = tmp_path / "trunks.yaml"
    file.write_text(trunks.replace("/run/secrets/trunk", str(password)))
    assert load_trunks(str(file))[0].calls_per_s == 5


def test_the_phones_of_the_readme_are_the_personas() -> None:
    """Each range of last digits in the README ends where a persona's does."""
    table = README.split("### Phones, by the last two digits")[1].split("## ")[0]
    ranges = re.findall(r"(\d\d)–(\d\d)", table)
    assert sorted(int(first) for first, _ in ranges) == sorted(
        {persona_of(f"+121255501{n:02d}").endings.start for n in range(100)}
    )
    for first, last in ranges:
        assert persona_of(f"+121255501{first}") == persona_of(f"+121255501{last}")


def test_the_audit_names_of_the_readme_are_those_that_are_made() -> None:
    """The README lists the audit's names of this version, all of them."""
    said = README.split("Audit names in this version:")[1].split(". Each names")[0]
    assert set(re.findall(r"`([a-z_]+)`", said)) == {line.name for lines in LINES.values() for line in lines}


def test_every_alarm_is_explained() -> None:
    """`docs/operations.md` has a line for each label of `dialer_alarms_total`."""
    operations = (ROOT / "docs/operations.md").read_text()
    for package in ("dialer", "agent", "projections", "runtime"):
        for path in (ROOT / package).rglob("*.py"):
            for label in re.findall(r"ALARMS\.labels\(\"([a-z_]+)\"\)", path.read_text()):
                assert f"`{label}`" in operations, label
