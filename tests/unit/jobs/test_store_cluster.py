"""A store of three servers, one of which is killed and comes back under load: nothing is lost, submissions go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from mesh.errors import RequestError
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.store.settings import StoreSettings
from tests.harness.nats import Nats
from tests.harness.nats_cluster import nats_cluster
from tests.unit.jobs.loaded import PATIENCE_S, Callers, working
from tests.unit.jobs.store_given import ask

JOBS = 120
CALLERS = 8


async def opened(settings: StoreSettings) -> JobStore:
    """A store, once its servers have agreed on who leads."""
    store = JobStore(settings)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(RequestError):
                return await store.__aenter__()
            await asyncio.sleep(0.02)


async def leader(servers: list[Nats], stream: str) -> Nats:
    """The server whose word on a stream counts."""
    told = await ask(servers[0], f"STREAM.INFO.{stream}")
    return servers[int(told["cluster"]["leader"].removeprefix("server-"))]


@pytest.mark.parametrize("victim", ["leader", "follower"])
async def test_a_server_of_three_is_killed_and_comes_back_and_no_job_is_lost(victim: str, tmp_path: Path) -> None:
    with nats_cluster() as servers:
        settings = StoreSettings(
            servers=tuple(server.url for server in servers),
            graph="cluster",
            folder=str(tmp_path),
            replicas=3,
            lease_s=2.0,
            attempts=20,
            timeout_s=2.0,
        )
        submitting, taking = await opened(settings), await opened(settings)
        try:
            async with working(taking):
                callers = Callers(submitting, JOBS, JOBS // 3, 2 * JOBS // 3)
                load = asyncio.create_task(callers.submit(CALLERS))
                await callers.until(JOBS // 3)
                leads = await leader(servers, "cluster-work")
                killed = leads if victim == "leader" else servers[(servers.index(leads) + 1) % len(servers)]
                killed.kill()
                # Two of three take jobs, and work on them.
                await callers.until(2 * JOBS // 3)
                killed.start()
                await asyncio.wait_for(load, PATIENCE_S)
                await callers.all_done()
                assert len(callers.ids) == JOBS
        finally:
            for store in (submitting, taking):
                await store.__aexit__(None, None, None)
