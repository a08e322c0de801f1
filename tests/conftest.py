"""Fixtures of all tests: a real broker and a real livekit-server, started once a session and only when asked for."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.platform_fixtures"]

REALTIME_RERUNS_MAX = 2
"""WebRTC's jitter buffer stretches and conceals when the machine has no CPU left for it: that is not what is tested."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that judge sound in real time be run again; nothing else ever is."""
    for item in items:
        if item.get_closest_marker("realtime"):
            item.add_marker(pytest.mark.flaky(reruns=REALTIME_RERUNS_MAX))
