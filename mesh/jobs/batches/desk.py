"""`BatchDesk`: batches as those see them who begin them and ask for them. It speaks to the store alone.

A batch is a job in a lane of its own, so it is on disk once it has an id, and is taken over where its worker dies. What
is written, and what a crash leaves behind, in this order:

1. The key, where one was given: whoever asks again with it is not told that the output folder is not empty.
2. The job. If nobody asks again, there is none.
3. The record, which tells what was asked. If it is not written, whoever works on the batch writes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mesh.errors import InvalidInput, NotFound, SetupError
from mesh.jobs.batches.documents import BatchDocument, key_document, read_record
from mesh.jobs.batches.messages import Batch, batch_of, read_spec
from mesh.jobs.records import Conflict, Job, JobState, Lane, Work
from mesh.jobs.schedules.firing import Phase, Seen
from mesh.jobs.store.job_store import JobStore
from mesh.topology.graph import Graph
from mesh.topology.graph_jobs import GraphBatch
from mesh.v1.batch_record_pb2 import BatchRecord, BatchTask
from mesh.v1.batch_service_pb2 import BatchSpec

__all__ = ["BatchDesk", "ScheduledBatches"]

_LOOKING = 4
"""Batches that are looked at at once."""
_READING = 16
"""Records that are read at once."""
_PHASES = {
    JobState.QUEUED: Phase.GOING,
    JobState.RUNNING: Phase.GOING,
    JobState.DONE: Phase.DONE,
    JobState.FAILED: Phase.FAILED,
    JobState.CANCELLED: Phase.CANCELLED,
}


class BatchDesk:
    """Batches of one graph.

    Every method may raise `Unavailable` and `Overloaded`, as the store does.

    Args:
        store: Where they are.
        graph: What they run.
        inputs: Folders that may be read; any where None.
        outputs: Folders that may be written to; any where None.
        wall: The time of day.
    """

    def __init__(
        self,
        store: JobStore,
        graph: Graph,
        *,
        inputs: Sequence[Path] | None,
        outputs: Sequence[Path] | None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._graph = graph
        self._inputs, self._outputs = inputs, outputs
        self._wall = wall
        self._looking = asyncio.Semaphore(_LOOKING)

    async def start(self, spec: BatchSpec, key: str = "", *, resume: bool = False) -> Batch:
        """Store a batch, once it was looked at.

        Args:
            spec: What to do.
            key: Makes it safe to ask again; empty for none.
            resume: Whether to go on with what is in its output folder.

        Raises:
            NotFound: It is for another graph.
            InvalidInput: What is wrong with it; or the key was given with another batch.
        """
        batch = self._read(spec)
        task = BatchTask(spec=spec, resume=resume, trusted=self._inputs is None)
        if not key or await self._store.read(key_document(key)) is None:
            await self._look(batch, resume)
            if key:
                with suppress(Conflict):
                    await self._store.keep(key_document(key), str(self._wall()).encode(), 0)
        return await self.submit(task, key)

    async def submit(self, task: BatchTask, key: str) -> Batch:
        """Store a batch without a look at it."""
        data = task.SerializeToString(deterministic=True)
        job, existed = await self._store.submit(Work(lane=Lane.BATCH, graph=self._graph.name, task=data), key=key)
        document = BatchDocument(self._store, job.id)
        if not existed or job.state is JobState.QUEUED:
            await document.open(BatchRecord(task=task))
            return batch_of(job, document.record)
        return batch_of(job, await read_record(self._store, job.id))

    async def get(self, id: str) -> Batch:  # noqa: A002 - what everybody calls it
        """One batch as it stands.

        Raises:
            NotFound: There is none of that id, or it was over so long ago that nothing is known of it any more.
        """
        job = await self._job(id)
        return batch_of(job, await read_record(self._store, job.id))

    async def list(self, size: int, token: str) -> tuple[list[Batch], str]:
        """Some batches: first those that wait or run, then those that are over.

        Raises:
            InvalidInput: The token is none.
        """
        page = await self._store.list((), size, token, (Lane.BATCH,))
        jobs = [job for job in page.jobs if job.state in _PHASES]
        reading = asyncio.Semaphore(_READING)

        async def told(job: Job) -> Batch:
            async with reading:
                return batch_of(job, await read_record(self._store, job.id))

        return list(await asyncio.gather(*map(told, jobs))), page.next_token

    async def cancel(self, id: str) -> Batch:  # noqa: A002
        """End a batch that is not over. What is written stays, and can be resumed.

        Raises:
            NotFound: As `get`.
        """
        job = await self._job(id)
        if not job.over:
            job = await self._store.cancel(job.id)
        return batch_of(job, await read_record(self._store, job.id))

    async def resume(self, id: str) -> Batch:  # noqa: A002
        """Go on with a batch that failed or was cancelled, under a new id. Asked twice, it answers with the same one.

        Raises:
            NotFound: As `get`.
            InvalidInput: It is done, or not over; or graph or input are not what they were: tells the difference.
        """
        job = await self._job(id)
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            text = "is done" if job.state is JobState.DONE else "is not over"
            raise InvalidInput(f"batch {id} {text}: there is nothing to go on with")
        record = await read_record(self._store, job.id)
        if record is None:
            raise NotFound(f"what batch {id} was to do is not known any more")
        task = record.task
        await self._look(self._read(task.spec), resume=True, trusted=task.trusted)
        task.resume = True
        return await self.submit(task, f"resume/{job.id}")

    async def _job(self, id: str) -> Job:  # noqa: A002
        job = await self._store.get(id, outputs=False)
        if job.lane is not Lane.BATCH:
            raise NotFound(f"no batch is called {id!r} here")
        if job.state not in _PHASES:
            raise NotFound(f"batch {id} was over so long ago that nothing is known of it any more")
        return job

    def _read(self, spec: BatchSpec) -> GraphBatch:
        if spec.graph not in ("", self._graph.name):
            raise NotFound(f"no graph is called {spec.graph!r} here; there is: {self._graph.name}")
        return read_spec(spec)

    async def _look(self, batch: GraphBatch, resume: bool, *, trusted: bool = False) -> None:
        try:
            # Where pyarrow is not installed, everything else of jobs works.
            from mesh.batches import check_batch

            async with self._looking:
                await asyncio.to_thread(
                    check_batch,
                    self._graph,
                    batch,
                    resume=resume,
                    inputs_within=None if trusted else self._inputs,
                    outputs_within=None if trusted else self._outputs,
                )
        except SetupError as error:
            raise InvalidInput(str(error)) from None


class ScheduledBatches:
    """Batches as their schedules see them: `mesh.jobs.schedules.schedule.Batches`.

    They are looked at by who works on them.

    Args:
        desk: Where they are begun.
    """

    def __init__(self, desk: BatchDesk) -> None:
        self._desk = desk

    async def start(self, spec: BatchSpec, key: str, *, schedule: str, due_time: float) -> str:
        """Store a batch; the same one for the same key."""
        task = BatchTask(spec=spec, trusted=True, schedule=schedule, due_time=due_time)
        return (await self._desk.submit(task, key)).id

    async def state(self, batch: str, /) -> Seen | None:
        """How far it is; None where nothing is known of it any more."""
        try:
            found = await self._desk.get(batch)
        except NotFound:
            return None
        return Seen(_PHASES[found.state], "" if found.error is None else str(found.error))

    async def cancel(self, batch: str, /) -> None:
        """End it, if it is not over."""
        with suppress(NotFound):
            await self._desk.cancel(batch)
