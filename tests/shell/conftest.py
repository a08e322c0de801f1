"""The real broker of these tests; goes away when the root's conftest takes the platform in."""

from __future__ import annotations

from tests.platform_fixtures import kafka_bootstrap, provisions

__all__ = ["kafka_bootstrap", "provisions"]
