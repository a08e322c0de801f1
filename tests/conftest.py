"""Fixtures of all tests: a real broker and a real livekit-server, started once a session and only when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehearsal import serving

pytest_plugins = ["tests.platform_fixtures"]

REALTIME_RERUNS_MAX = 2
"""WebRTC's jitter buffer stretches and conceals when the machine has no CPU left for it: that is not what is tested."""

SERVERS = frozenset({"kafka_bootstrap", "livekit", "storage_url"})
"""The fixtures that start one."""
PROMISES = ("crash", "e2e", "faults")
"""Folders whose tests hold what is promised when something dies or is away."""


@pytest.fixture(autouse=True)
def _what_hangs_on_purpose_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that is ended answers what is under way first, 15 s at most: in a test that is a fault that hangs."""
    monkeypatch.setattr(serving, "SHUTDOWN_S", 1.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take how often CI tries a test on real servers again."""
    parser.addoption(
        "--server-reruns",
        type=int,
        default=0,
        metavar="N",
        help="try a failed test on a real broker or livekit-server again, N times; never one of the promises",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let tests that judge sound in real time be run again; in CI those on real servers too, and each is named.

    Never the pure ones, which are the same every time, nor those of `PROMISES`, whose failure may be a broken one.
    """
    server_reruns = config.getoption("--server-reruns")
    for item in items:
        if item.get_closest_marker("realtime"):
            item.add_marker(pytest.mark.flaky(reruns=REALTIME_RERUNS_MAX))
        elif server_reruns and _on_servers(item) and not item.get_closest_marker("flaky"):
            item.add_marker(pytest.mark.flaky(reruns=server_reruns))


def _on_servers(item: pytest.Item) -> bool:
    if any(item.path.is_relative_to(Path(__file__).parent / folder) for folder in PROMISES):
        return False
    return not SERVERS.isdisjoint(getattr(item, "fixturenames", ()))
