"""A mesh whose disk fills up, and then has room: it keeps what it acknowledged, and goes on by itself."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from pathlib import Path

import numpy as np
import pytest

from bench.soak.killing import TOPOLOGY
from mesh.errors import Overloaded, RequestError, Unavailable
from mesh.jobs.client import JobClient
from mesh.jobs.records import Job, JobState
from mesh.jobs.server.room import ENOUGH_BYTES
from mesh.tensors import Tensors
from tests.harness.disk import small_disk
from tests.harness.processes import StartMesh
from tests.unit.jobs.loaded import check, insisting, work

pytestmark = [pytest.mark.processes, pytest.mark.one_engine]

DISK = ENOUGH_BYTES + (48 << 20)
LEFT = 16 << 20
"""To begin with: the jobs of the test themselves come to where there is too little."""
ROWS = 1000
MOST = 2000
CALL_S = 10.0


async def filled(jobs: JobClient) -> tuple[dict[int, str], RequestError]:
    """Submit until a job is refused: those that were acknowledged, and what the next one was told."""
    ids: dict[int, str] = {}
    for number in range(MOST):
        inputs = work(number, ROWS).inputs
        assert inputs is not None
        try:
            job, _ = await jobs.submit(inputs, key=f"full-{number}")
        except RequestError as error:
            return ids, error
        ids[number] = job.id
    raise AssertionError(f"there was room for {MOST} jobs")


async def done(jobs: JobClient, ids: dict[int, str]) -> None:
    """Wait for each of them, and see that its answer is right."""
    for number, name in ids.items():
        while not (job := await insisting(lambda name=name: jobs.get(name))).over:
            with suppress(Unavailable):
                await jobs.wait(name)
        check(number, job)


async def submitted(jobs: JobClient, number: int) -> str:
    """Submit one as often as it takes."""
    inputs = work(number, ROWS).inputs
    assert inputs is not None
    job, _ = await insisting(lambda: jobs.submit(inputs, key=f"full-{number}"))
    return job.id


async def test_a_disk_that_fills_up_stops_submissions_before_it_stops_the_store(
    start_mesh: StartMesh, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", DISK) as disk:
        mesh = start_mesh(str(TOPOLOGY), "--data", str(disk.folder / "data"))
        async with JobClient(mesh.ready(), call_s=CALL_S) as jobs:
            disk.fill(LEFT)
            ids, refused = await filled(jobs)
            assert isinstance(refused, Overloaded)
            assert refused.retry_after_s > 0
            assert len(ids) > 10
            # They can be looked at. How many of them are done depends on what there is left for their results.
            states = {(await jobs.get(name)).state for name in ids.values()}
            assert states <= {JobState.QUEUED, JobState.RUNNING, JobState.DONE}
            disk.free()
            ids[len(ids)] = await submitted(jobs, len(ids))
            await done(jobs, ids)
            assert not any("no space left on device" in line for line in mesh.lines)


async def test_a_store_that_could_not_write_is_started_again_when_it_can(start_mesh: StartMesh, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", DISK) as disk:
        mesh = start_mesh(str(TOPOLOGY), "--data", str(disk.folder / "data"))
        async with JobClient(mesh.ready(), call_s=CALL_S) as jobs:
            ids = {number: await submitted(jobs, number) for number in range(20)}
            await done(jobs, ids)
            slow = Tensors({"n": np.array([21]), "ms": np.array([2000])})
            job, _ = await jobs.submit(slow)
            ids[20] = job.id
            async with aclosing(jobs.watch(job.id)) as events:
                async for event in events:
                    if isinstance(event, Job) and event.state is JobState.RUNNING:
                        break
            # Somebody else takes all that there is while it runs; then its worker has something to say.
            disk.fill(0)
            await asyncio.to_thread(mesh.until, "no space left on device")
            disk.free()
            await asyncio.to_thread(mesh.until, r"^mesh: nats-server: ready", 2)
            ids[len(ids)] = await submitted(jobs, len(ids))
            await done(jobs, ids)
