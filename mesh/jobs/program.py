"""What processes of a mesh with jobs run: the gateway, with services beside the graph; and those that work on jobs.

A worker on jobs holds the gateway's share of the plan a second time: the same nodes, the same links to the other
workers, so the same answers. It pulls its work from the store, and listens for nothing but questions how it is. So
jobs go on while the gateway is down, and come in while no worker runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.errors import SetupError
from mesh.jobs.batches.service import BatchService
from mesh.jobs.reaching import Reaching
from mesh.jobs.schedules.schedule import schedules_of
from mesh.jobs.service import JobService
from mesh.jobs.settings import callback_settings, store_settings
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.submission import Submissions
from mesh.jobs.working import Working, batch_desk
from mesh.runtime.launch import JOBS, Launch, publish, worker_of
from mesh.runtime.worker import limits_of
from mesh.topology.graph import Graph
from mesh.topology.graph_jobs import GraphJobs
from mesh.transports import GraphHandler, Service

__all__ = ["serve", "services_of", "worker_on_jobs"]

log = logging.getLogger("mesh.jobs")

Announce = Callable[[list[str]], object]
_STORE_FIRST_S = 1.0
"""How long a gateway waits for the store before it serves the graph without."""


async def serve(launch: Launch, stop: asyncio.Event, announce: Announce) -> None:
    """Run a gateway with jobs, or a worker on them, until `stop` is set; then drain it. As `mesh.runtime.launch.serve`.

    Raises:
        SetupError: A node cannot be loaded, an address cannot be bound; or the store will not have a worker on jobs.
    """
    jobs = launch.plan.graph.jobs
    if jobs is None:
        raise SetupError(f"{launch.plan.graph.file} has no jobs")
    if launch.role == JOBS:
        await _work(launch, jobs, stop, announce)
    else:
        await _answer(launch, jobs, stop, announce)


async def _answer(launch: Launch, jobs: GraphJobs, stop: asyncio.Event, announce: Announce) -> None:
    """The gateway: it is there for calls of the graph whether or not the store is there for jobs."""
    store = JobStore(store_settings(launch.plan.graph))
    async with Reaching(store) as reaching:
        reaching.begin_later()
        # Before it listens: whoever it answers then can submit, if there is a store at all.
        await _first(reaching.tried, stop, within_s=_STORE_FIRST_S)
        async with worker_of(launch, services_of(launch.plan.graph, jobs, store)) as worker:
            announce(publish(launch, worker))
            await stop.wait()


async def _work(launch: Launch, jobs: GraphJobs, stop: asyncio.Event, announce: Announce) -> None:
    """A worker on jobs: ready once it could work, though there may be no store to take work from."""
    graph = launch.plan.graph
    store = JobStore(store_settings(graph))
    async with worker_of(launch) as worker, Reaching(store) as reaching:
        assert worker.counted is not None, "only the gateway's share has the whole graph"
        working = worker_on_jobs(graph, jobs, store, worker.counted, name=launch.called, grace_s=launch.grace_s)
        await reaching.begin()
        announce(publish(launch, worker))
        await _first(reaching.reached, stop, within_s=None)
        if reaching.reached.is_set():
            await working.serve(stop)


async def _first(*events: asyncio.Event, within_s: float | None) -> None:
    """Return once one of them is set, or after so many seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


def services_of(graph: Graph, jobs: GraphJobs, store: JobStore) -> list[Service]:
    """What a gateway answers for beside the graph.

    Args:
        graph: Of the gateway.
        jobs: What it says of them.
        store: Where they are; it need not be entered yet.

    Raises:
        SetupError: The file of keys for callbacks cannot be read, or is none.
    """
    submissions = Submissions(graph.name, graph.inputs, limits=limits_of(graph), callbacks=callback_settings(jobs))
    batches = BatchService(batch_desk(graph, jobs, store), schedules_of(graph), store)
    return [JobService(store, submissions), batches]


def worker_on_jobs(
    graph: Graph, jobs: GraphJobs, store: JobStore, handler: GraphHandler, *, name: str, grace_s: float
) -> Working:
    """Who works on jobs with what answers for the graph. As `Working`."""
    return Working(graph, jobs, store, handler, name=name, grace_s=grace_s)
