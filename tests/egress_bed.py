"""An egress in process, before the session's real livekit-server and its real Cloud Storage server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from rehearsal import faults, serving
from rehearsal.egress import Egress
from rehearsal.egress_recorder import Surroundings
from rehearsal.gcs import Storage
from tests.platform_fixtures import LiveKitAddress


@contextlib.asynccontextmanager
async def serve_egress(
    livekit: LiveKitAddress, storage_url: str, script: faults.Script | None = None
) -> AsyncIterator[str]:
    """Serve one; its address."""
    around = Surroundings(
        livekit_url=livekit.url,
        api_key=livekit.key,
        api_secret=livekit.secret,
        storage=Storage(storage_url),
        script=script or faults.Script(),
    )
    runner, port = await serving.start(Egress(around).app(), 0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
