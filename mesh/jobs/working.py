"""`Working`: all that a worker on jobs does: runs, shards and batches; and schedules, where there are some."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mesh.errors import SetupError
from mesh.jobs.batches.desk import BatchDesk, ScheduledBatches
from mesh.jobs.records import Lane
from mesh.jobs.schedules.schedule import schedules_of
from mesh.jobs.schedules.scheduler import Scheduler
from mesh.jobs.settings import callback_settings, work_policy
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.work.attempt import GraphRun
from mesh.jobs.work.carrying import TaskRunner
from mesh.jobs.work.worker import JobWorker, WorkBounds
from mesh.topology.graph import Graph
from mesh.topology.graph_jobs import GraphJobs
from mesh.transports.contract import GraphHandler

if TYPE_CHECKING:
    from mesh.jobs.batches.shards import ShardWork

__all__ = ["Working", "batch_desk"]

log = logging.getLogger("mesh.jobs")


def batch_desk(graph: Graph, jobs: GraphJobs, store: JobStore) -> BatchDesk:
    """Where callers of a mesh begin batches: only in the folders that its topology allows."""
    inputs, outputs = (list(map(Path, folders)) for folders in (jobs.batch_inputs, jobs.batch_outputs))
    return BatchDesk(store, graph, inputs=inputs, outputs=outputs)


class Working:
    """A worker on jobs.

    Args:
        graph: Of the worker.
        jobs: What it says of them.
        store: Where they are; to be entered before it serves.
        handler: What answers for the graph.
        name: As jobs tell of their attempts.
        grace_s: How long what is under way may take to finish, once it is told to stop.

    Raises:
        SetupError: Something that it needs is not installed, or not right.
    """

    def __init__(
        self, graph: Graph, jobs: GraphJobs, store: JobStore, handler: GraphHandler, *, name: str, grace_s: float
    ) -> None:
        self._shards, tasks = _tasks(graph, jobs, store, handler)
        self.worker = JobWorker(
            store,
            GraphRun(graph, handler),
            name=name,
            bounds=WorkBounds(concurrency=jobs.concurrency, grace_s=grace_s),
            policy=work_policy(jobs),
            tasks=tasks,
            callbacks=callback_settings(jobs),
        )
        """Who carries out what is in the store."""
        self._scheduler: Scheduler | None = None
        if graph.schedules:
            batches = ScheduledBatches(batch_desk(graph, jobs, store))
            self._scheduler = Scheduler(schedules_of(graph), store, batches)

    async def serve(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then as `JobWorker.serve`. To be called once."""
        async with AsyncExitStack() as lifetime:
            if self._shards is not None:
                await lifetime.enter_async_context(self._shards)
            async with asyncio.TaskGroup() as group:
                group.create_task(self.worker.serve(stop))
                if self._scheduler is not None:
                    group.create_task(self._scheduler.serve(stop))


def _tasks(
    graph: Graph, jobs: GraphJobs, store: JobStore, handler: GraphHandler
) -> tuple[ShardWork | None, Mapping[Lane, TaskRunner]]:
    """Who runs shards and batches, where what they need is installed."""
    try:
        from mesh.jobs.batches.coordinator import BatchWork
        from mesh.jobs.batches.shards import ShardWork
    except SetupError as error:
        if graph.schedules or jobs.batch_inputs:
            raise
        log.info("this worker takes no batches: %s", error)
        return None, {}
    inputs, outputs = (list(map(Path, folders)) for folders in (jobs.batch_inputs, jobs.batch_outputs))
    shards = ShardWork(store, graph, handler, inputs=inputs)
    return shards, {Lane.SHARD: shards, Lane.BATCH: BatchWork(store, graph, inputs=inputs, outputs=outputs)}
