"""Is the dialers' consumer group at rest? A kill amid a rebalance is two failures, and its figure that of neither.

The coordinator waits for a dead member's answer to the rebalance first, and for its session only then.
Source: Kafka protocol, DescribeGroups.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

GROUP_ID: Final = "dialer"
STABLE_TIMEOUT_S: Final = 30.0
AFTER_BROKER_S: Final = 3.0
"""Behind a broker that came back a group is stable, and falls apart a heartbeat later: not everybody has heard of it yet."""
_ASK_TIMEOUT_S: Final = 3.0
_POLL_S: Final = 0.1


async def at_rest(bootstrap: str, ports: Collection[int], *, for_s: float = 0.0) -> bool:
    """Wait until the group is stable and each dialer in it once, for so long; False where that takes too long.

    A dialer's client id is `dialer-{host}-{port}-{run}`: one that was killed stays a member beside the one that followed.
    """
    began = restless_at = time.monotonic()
    while time.monotonic() < began + STABLE_TIMEOUT_S:
        stable = False
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                await client.start()
                (answer,) = await client.describe_consumer_groups([GROUP_ID])
            group = answer.to_object()["groups"][0]
            members = sorted(int(member["client_id"].split("-")[-2]) for member in group["members"])
            stable = group["state"] == "Stable" and members == sorted(ports)
        except (KafkaError, TimeoutError, OSError):  # the broker is on its way back
            pass
        finally:
            await client.close()
        if not stable:
            restless_at = time.monotonic()
        elif time.monotonic() >= restless_at + for_s:
            return True
        await asyncio.sleep(_POLL_S)
    return False
