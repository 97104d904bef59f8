"""A store under load: callers who ask until they are answered, and a worker that computes something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from bench.soak.node import steps
from mesh.errors import Overloaded, Unavailable
from mesh.jobs.records import Job, JobState, Work
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.work.attempt import GraphRun
from mesh.jobs.work.worker import JobWorker, WorkBounds
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import compile_file

__all__ = ["PATIENCE_S", "Callers", "check", "insisting", "work", "working"]

T = TypeVar("T")

SOAK = Path(__file__).parents[3] / "bench" / "soak" / "soak.yaml"
PATIENCE_S = 60.0
PAUSE_S = 0.02


async def insisting(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(Unavailable, Overloaded):
                return await ask()
            await asyncio.sleep(PAUSE_S)


def work(number: int, rows: int = 1) -> Work:
    """What job number so-and-so is to do."""
    return Work(inputs=Tensors({"n": np.full(rows, number + 1), "ms": np.zeros(rows, np.int64)}))


def check(number: int, job: Job) -> None:
    """See that a job is done, with the right answer."""
    assert job.state is JobState.DONE, (number, job)
    assert job.outputs is not None
    assert set(job.outputs["steps"].tolist()) == {steps(number + 1)}


@asynccontextmanager
async def working(store: JobStore, concurrency: int = 8) -> AsyncGenerator[JobWorker]:
    """A worker on a store; it leaves with the block."""
    plan, stop = compile_file(SOAK, LAYERS).plan("fused"), asyncio.Event()
    async with LocalMesh(plan) as mesh:
        run = GraphRun(plan.graph, mesh.counted)
        worker = JobWorker(store, run, name="jobs-0", bounds=WorkBounds(concurrency=concurrency, grace_s=1.0))
        serving = asyncio.create_task(worker.serve(stop))
        try:
            yield worker
        finally:
            stop.set()
            await serving


class Callers:
    """Who submits jobs, each under a key, and writes down which were acknowledged.

    Args:
        store: Where they go.
        jobs: How many.
        milestones: Numbers of acknowledged jobs that can be waited for.
    """

    def __init__(self, store: JobStore, jobs: int, *milestones: int) -> None:
        self._store = store
        self._numbers = iter(range(jobs))
        self._reached = {count: asyncio.Event() for count in milestones}
        self.ids: dict[int, str] = {}

    async def submit(self, callers: int) -> None:
        """Submit all of them, so many at once."""
        await asyncio.gather(*(self._caller() for _ in range(callers)))

    async def _caller(self) -> None:
        for number in self._numbers:
            job, _ = await insisting(lambda number=number: self._store.submit(work(number), key=f"job-{number}"))
            self.ids[number] = job.id
            if len(self.ids) in self._reached:
                self._reached[len(self.ids)].set()

    async def until(self, milestone: int) -> None:
        """Wait until so many were acknowledged."""
        await asyncio.wait_for(self._reached[milestone].wait(), PATIENCE_S)

    async def all_done(self) -> None:
        """Wait until each job that was acknowledged is done, and see that its answer is right."""
        await asyncio.gather(*(self._done(number, name) for number, name in self.ids.items()))
        assert len(set(self.ids.values())) == len(self.ids)

    async def _done(self, number: int, name: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not (job := await insisting(lambda: self._store.get(name))).over:  # noqa: ASYNC110 - as callers do
                await asyncio.sleep(PAUSE_S)
        check(number, job)
