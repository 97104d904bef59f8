"""`LocalJobs`: a whole mesh with jobs in this process, but for its store. For tests and notebooks."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Self

from mesh.errors import SetupError
from mesh.jobs.program import services_of, worker_on_jobs
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.store.settings import StoreSettings
from mesh.runtime.mesh import LocalMesh
from mesh.topology.placement import Plan
from mesh.transports import GrpcTransport

__all__ = ["LocalJobs"]


class LocalJobs:
    """Every worker of a plan in one process, one that works on jobs among them; an async context manager.

    Args:
        plan: What to run; its graph has to have jobs.
        settings: The store: a NATS server that runs. Its bounds go before those of the graph.
        working: Whether jobs are worked on, too; else they are only taken in.
        grace_s: How long what is under way may take to finish in the end.
    """

    def __init__(self, plan: Plan, settings: StoreSettings, *, working: bool = True, grace_s: float = 1.0) -> None:
        jobs = plan.graph.jobs
        if jobs is None:
            raise SetupError(f"{plan.graph.file} has no jobs")
        self._jobs = jobs
        self._plan = plan
        self._working = working
        self._grace_s = grace_s
        self._lifetime = AsyncExitStack()
        self.store = JobStore(settings)
        """Where its jobs are, once entered."""
        self.address = ""
        """Where the gateway listens, once entered: for the graph, and for JobService."""

    async def __aenter__(self) -> Self:
        """Connect, start the workers, listen on loopback.

        Raises:
            SetupError: A worker cannot be built, or the store is none.
            Unavailable: The store cannot be reached.
        """
        graph, jobs, store = self._plan.graph, self._jobs, self.store
        try:
            await self._lifetime.enter_async_context(store)
            mesh = await self._lifetime.enter_async_context(
                LocalMesh(
                    self._plan,
                    transport=GrpcTransport(graph.engine),
                    address="grpc://127.0.0.1:0",
                    services=services_of(graph, jobs, store),
                )
            )
            if self._working:
                stop = asyncio.Event()
                made = worker_on_jobs(graph, jobs, store, mesh.counted, name="local", grace_s=self._grace_s)
                serving = asyncio.create_task(made.serve(stop), name="jobs")
                self._lifetime.push_async_callback(_ended, stop, serving)
        except BaseException:
            await self._lifetime.aclose()
            raise
        self.address = mesh.gateway_address
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop working, then the workers, then leave the store."""
        await self._lifetime.aclose()


async def _ended(stop: asyncio.Event, serving: asyncio.Task[None]) -> None:
    stop.set()
    await serving
