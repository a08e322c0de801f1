"""Fixtures of all tests: a real broker and a real livekit-server, started once a session and only when asked for."""

pytest_plugins = ["tests.platform_fixtures"]
