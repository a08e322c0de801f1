"""What is missing is named, with the line that installs it, before anything is downloaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rehearsal import prerequisites
from rehearsal.prerequisites import Missing, check, report

ROOT = Path(__file__).parents[2]


def tool(directory: Path, name: str, prints: str, code: int = 0) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\nexit {code}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A PATH with nothing but good tools of our own making."""
    tool(tmp_path, "make", "GNU Make 4.3")
    tool(tmp_path, "go", "go1.26.8\nlocal")
    tool(tmp_path, "java", 'openjdk version "17.0.15" 2025-04-15')
    tool(tmp_path, "mvn", "Apache Maven 3.8.7\nMaven home: /usr/share/maven")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path


def named(missing: list[Missing]) -> list[str]:
    return [one.name for one in missing]


def test_a_machine_with_everything_misses_nothing(tools, tmp_path):
    """The check is silent when all is there."""
    assert check(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "prints", "needs"),
    [
        ("go", "go1.19.8\n", "Go 1.26 or newer"),
        ("go", "go1.24.1\nlocal", "Go 1.26 or newer"),
        ("java", 'openjdk version "11.0.2" 2019-01-15', "Java 17 or newer"),
        ("java", 'java version "1.8.0_292"', "Java 17 or newer"),
        ("mvn", "Apache Maven 3.6.0\nMaven home: /usr/share/maven", "Maven 3.6.3 or newer"),
    ],
)
def test_an_old_tool_is_named_with_its_version(tools, tmp_path, name, prints, needs):
    """Too old is missing, and what was found is said."""
    tool(tools, name, prints)
    (missing,) = check(tmp_path)
    assert missing.name == needs
    found = re.search(r"\d+(\.\d+)*", prints)
    assert found
    assert found.group().split("_")[0] in missing.found
    assert missing.install.startswith("apt-get install -y ")
    assert missing.otherwise


@pytest.mark.parametrize("version", ["go1.24.1\nauto", "go1.27rc1\nlocal", "go1.26\nlocal", "go1.21.0\ngo1.21.0+auto"])
def test_a_go_that_fetches_its_toolchain_will_do(tools, tmp_path, version):
    """From 1.21 on Go fetches the toolchain that go.mod names, unless it is told not to."""
    tool(tools, "go", version)
    assert check(tmp_path) == []


def test_a_tool_that_is_there_but_does_not_run_is_missing(tools, tmp_path):
    """A broken installation is not taken for a good one."""
    tool(tools, "mvn", "JAVA_HOME is not defined correctly", code=1)
    (missing,) = check(tmp_path)
    assert "does not run" in missing.found


def test_a_tool_that_hangs_does_not_hold_the_check_up(tools, tmp_path):
    """The check ends within 2 s whatever the tools do."""
    (tools / "mvn").write_text("#!/bin/sh\nexec sleep 30\n")
    began = time.monotonic()
    assert check(tmp_path) == []
    assert time.monotonic() - began < 2.0


def test_no_room_on_the_disk_is_told_before_the_download(tools, tmp_path, monkeypatch):
    """Free space is looked at where the cache will be, though it does not exist yet."""
    monkeypatch.setattr(prerequisites, "DISK_FREE_MIN_GB", 10**9)
    (missing,) = check(tmp_path / "not" / "there" / "yet")
    assert missing.name.endswith("GB of free disk space")


def test_an_empty_machine_is_told_everything_at_once(tmp_path):
    """All missing tools in one go, exit code 1, within 2 s, on the bare Python of the system (-S: no packages)."""
    empty = tmp_path / "bin"
    empty.mkdir()
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-S", "-m", "rehearsal.prerequisites"],
        cwd=ROOT,
        env={"PATH": str(empty)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert time.monotonic() - began < 2.0
    assert ran.returncode == 1
    for line in ("make", "openjdk-17-jre-headless", "maven", "golang"):
        assert re.search(rf"apt-get install -y .*{line}", ran.stdout), line
    assert "nothing was downloaded" in ran.stdout


def test_here_everything_is_there():
    """The very machine that tests run on passes, else nothing else of the suite can; within 2 s."""
    began = time.monotonic()
    missing = check()
    assert report(missing) == 0, named(missing)
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("version", ["3.7", "3.8", "3.9", "3.10"])
def test_an_old_python_is_told_so_in_words(version):
    """No SyntaxError: a sentence that says which Python is wanted. Runs where such a Python is installed."""
    python = next(iter(sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))), None)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    ran = subprocess.run(
        [python, "-m", "rehearsal.prerequisites"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr == ""
    assert f"missing: Python 3.11, 3.12 or 3.13 (this is {version}." in ran.stdout
