"""Imported once by the forkserver: what every job process inherits instead of making it itself.

Fork-safe things only: modules and a TLS context, no threads, no event loop.
"""

from __future__ import annotations

from livekit.agents.utils import http_context

from agent import job

# Parsing the machine's certificates takes 0.1 CPU s; livekit-agents 1.8.9 would do it in each job, on its event loop.
http_context._create_ssl_context()

__all__ = ["job"]
