"""`ShardWork`: who runs the shards of batches in a worker on jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from mesh.batches import BatchPlan, BatchRunner, Patience, TooManyErrors, join_batch
from mesh.context import SYSTEM_CLOCK, Clock, Context
from mesh.errors import InvalidInput, NotFound, SetupError
from mesh.handler import Handler
from mesh.jobs.records import JobState, Progress
from mesh.jobs.store.job_store import JobStore, Lease
from mesh.runtime.worker import limits_of
from mesh.tensors import Tensors
from mesh.topology.graph import Graph
from mesh.transports.admission import Admission
from mesh.transports.contract import GRAPH, Endpoint, GraphHandler
from mesh.v1.batch_record_pb2 import ShardOutcome, ShardTask

__all__ = ["ROWS", "ShardWork"]

log = logging.getLogger("mesh.jobs")

ROWS = "rows"
"""What the progress of a shard is told as: tensors `done` and `failed`, one number each."""
TELL_S = 0.5
"""Seconds between two words about it, at least."""
_KEPT = 2
"""Batches whose input is kept open between two shards."""

_Key = tuple[str, str]


class ShardWork:
    """Runs shards; an async context manager, which closes inputs when left.

    A shard is run whole, and visible whole, and they are run one by one: so at most one shard a worker is done again,
    whatever happens to it.

    Args:
        store: Where the batches are.
        graph: What is run.
        handler: What answers for it.
        inputs: Folders that may be read, where nobody trusts the batch.
        clock: What waits are measured by.
    """

    def __init__(
        self,
        store: JobStore,
        graph: Graph,
        handler: GraphHandler,
        *,
        inputs: Sequence[Path],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
        self._graph = graph
        self._handler = _admitted(graph, handler)
        self._inputs = inputs
        self._clock = clock
        self._turn = asyncio.Lock()
        self._idle: dict[_Key, tuple[BatchPlan, BatchRunner]] = {}
        self._running: tuple[_Key, BatchPlan, BatchRunner] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for _, runner in self._idle.values():
            await runner.__aexit__()
        self._idle.clear()

    async def __call__(self, task: bytes, lease: Lease) -> bytes:
        """Run one.

        Raises:
            RequestError: The graph could not be asked, or files could not be read or written.
            InvalidInput: It cannot be run at all: the input is not what it was, or too many rows fail.
        """
        message = ShardTask.FromString(task)
        if await self._is_over(message.batch):
            return b""
        if self._running is not None and self._running[0] == _key(message):
            _, plan, runner = self._running
            runner.prepare(plan.shard(message.shard))
        async with self._turn:
            return await self._run(message, lease)

    async def _run(self, message: ShardTask, lease: Lease) -> bytes:
        key = _key(message)
        plan, runner = self._idle.pop(key, None) or await self._joined(message)
        self._running = key, plan, runner
        telling = _Telling(lease, self._clock)
        most = message.most_errors if message.HasField("most_errors") else None
        try:
            try:
                commit = await runner.run(plan.shard(message.shard), most_errors=most, told=telling)
            finally:
                self._running = None  # before it is closed
        except (SetupError, TooManyErrors) as error:
            await runner.__aexit__()
            raise InvalidInput(str(error)) from None
        except BaseException:
            await runner.__aexit__()
            raise
        await self._keep(key, plan, runner)
        return ShardOutcome(rows_done=commit.rows_done, rows_failed=commit.rows_failed).SerializeToString()

    async def _is_over(self, batch: str) -> bool:
        try:
            return (await self._store.get(batch, outputs=False)).state not in (JobState.QUEUED, JobState.RUNNING)
        except NotFound:
            return True

    async def _joined(self, message: ShardTask) -> tuple[BatchPlan, BatchRunner]:
        try:
            started = await asyncio.to_thread(
                join_batch, self._graph, message.output, inputs_within=None if message.trusted else self._inputs
            )
        except SetupError as error:
            raise InvalidInput(str(error)) from None
        plan = started.plan
        if plan.digest != message.plan:
            raise InvalidInput(f"what is in {message.output} is of another batch")
        patience = Patience(row_timeout_s=self._graph.limits.default_timeout_s)
        runner = BatchRunner(
            started.folder,
            plan,
            started.source,
            self._graph.inputs,
            self._handler,
            patience=patience,
            clock=self._clock,
        )
        return plan, runner

    async def _keep(self, key: _Key, plan: BatchPlan, runner: BatchRunner) -> None:
        """Have the input open for the next shard; the one that was longest idle is closed for it."""
        if key in self._idle:
            await runner.__aexit__()
            return
        self._idle[key] = plan, runner
        while len(self._idle) > _KEPT:
            _, old = self._idle.pop(next(iter(self._idle)))
            await old.__aexit__()


def _key(message: ShardTask) -> _Key:
    return message.output, message.plan


class _Telling:
    """Tells those who follow a shard how far it is."""

    def __init__(self, lease: Lease, clock: Clock) -> None:
        self._lease = lease
        self._clock = clock
        self._done = self._failed = 0
        self._told_at = clock.now()

    def __call__(self, done: int, failed: int) -> None:
        self._done += done
        self._failed += failed
        now = self._clock.now()
        if now - self._told_at >= TELL_S:
            self._told_at = now
            rows = Tensors({"done": [self._done], "failed": [self._failed]})
            self._lease.publish(Progress(self._lease.number, ROWS, rows))


def _admitted(graph: Graph, handler: GraphHandler) -> Handler[Tensors]:
    """The graph behind the same admission as at the gateway."""
    endpoint = Endpoint(kind=GRAPH, name=graph.name, handler=handler, front=True)
    admission = Admission([endpoint], limits_of(graph))

    async def run(request: Tensors, context: Context, /) -> Tensors:
        return await admission.run(endpoint, request, context)

    return run
