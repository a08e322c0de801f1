"""The agent worker as it is deployed, killed with its jobs amid talking phones: the matrix has stand-ins without media."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rehearsal import network as networks
from rehearsal.accounts import TERMINAL, settle
from rehearsal.drive import Drive
from rehearsal.killing import kill_amid_calls
from rehearsal.producer import Kind, Pipeline
from rehearsal.provision import Provisions
from rehearsal.reader import LogReader
from rehearsal.scenario import build
from rehearsal.supervisor import Supervisor
from schemas import topics

END_S = 150.0


def at_rest(drive: Drive) -> bool:
    """Tell whether every call has its end, every phone hung up, and what follows is on its topics."""
    reader, sent = drive.reader, drive.pipeline.sent
    ends = sum(event.name in TERMINAL for event in reader.events)
    audited = sum(record.name in TERMINAL for record in reader.of(topics.AUDIT.name))
    meant = sum(one.kind in (Kind.BROKEN, Kind.CONFLICT) for one in sent)
    return (
        not drive.unfinished()
        and audited >= ends
        and len(reader.of(topics.REJECTED.name)) >= meant
        and all(dial.ended_at is not None for dial in drive.dials())
    )


@pytest.mark.e2e
@pytest.mark.slow
async def test_a_real_worker_killed_with_its_jobs_loses_no_call_and_rings_nobody_twice(
    provisions: Provisions, tmp_path: Path
) -> None:
    """Real jobs, real audio, `kill -9` of the worker with at least three legs live: by the witness and the producer."""
    network = networks.lay_out(tmp_path, provisions)
    async with Supervisor(tmp_path) as supervisor:
        await networks.start(network, supervisor)
        async with (
            LogReader(network.bootstrap) as reader,
            Pipeline(network.bootstrap, network.pepper, tmp_path / "producer.jsonl") as pipeline,
        ):
            drive = Drive(
                scenario=build(1, stops=False),
                pipeline=pipeline,
                reader=reader,
                witness_file=network.carrier_dir / "witness.jsonl",
                pepper=network.pepper,
            )
            sending = asyncio.create_task(drive.send_all())
            assert await kill_amid_calls(network, supervisor, drive, print, 1, "agent") == []
            await sending
            assert await reader.wait_for(lambda: at_rest(drive), END_S), [one.name for one in drive.unfinished()]
            accounts = settle(pipeline.sent, drive.dials(), reader.records, killed=True)
    assert accounts.findings == ()
    assert (accounts.lost, accounts.doubled) == (0, 0)
