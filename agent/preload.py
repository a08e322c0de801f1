"""Imported once by the forkserver: what every job process inherits instead of making it itself.

Fork-safe things only: modules and a TLS context, no threads, no event loop.
"""

from __future__ import annotations

import importlib
import os

from livekit.agents.utils import http_context

from agent import job
from schemas.brief import Brief
from schemas.codec import adapter

# Parsing the machine's certificates takes 0.1 CPU s; livekit-agents 1.8.9 would do it in each job, on its event loop.
http_context._create_ssl_context()
# Likewise the brief's decoder: pydantic takes a tenth of a second to write it.
adapter(Brief)
# Likewise hvac, a tenth of a second, where a relay's credentials are in Vault.
if os.environ.get("VAULT_ADDR"):
    importlib.import_module("runtime.vault")

__all__ = ["job"]
