"""`BatchWork`: who looks after whole batches in a worker on jobs.

It makes the plan, has the shards run by whoever is free, and makes the results whole. It keeps nothing that is not in
the output folder or in the store: when its worker dies, another begins the same way, and finds what is written already.
Each shard is a job under a key made of the batch and its number, so one that was begun is found, and not begun again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from mesh.batches import Started, commits_of, finish_batch, start_batch
from mesh.context import SYSTEM_CLOCK, Clock
from mesh.errors import InvalidInput, RequestError, SetupError, Unavailable
from mesh.jobs.batches.documents import BatchDocument, forget_old
from mesh.jobs.batches.messages import read_spec
from mesh.jobs.batches.shards import ROWS
from mesh.jobs.records import Job, JobState, Lane, Progress, Work
from mesh.jobs.store.job_store import JobStore, Lease
from mesh.jobs.work.pausing import pause
from mesh.tensors import Tensors
from mesh.topology.graph import Graph
from mesh.v1.batch_record_pb2 import BatchRecord, BatchTask, ShardOutcome, ShardTask

__all__ = ["BatchWork"]

log = logging.getLogger("mesh.jobs")

WINDOW = 64
"""Shards of one batch that wait or run at once: enough for as many workers, and few to take back."""
WRITE_S = 1.0
"""Seconds between two words about how far a batch is."""
AGAIN_S = 1.0
"""Until the store is asked again, where it did not answer."""
PATIENCE = 600
"""How often, in a row, before the batch is left to another attempt."""


class BatchWork:
    """Looks after batches.

    Args:
        store: Where they are.
        graph: What they run.
        inputs: Folders that may be read, where nobody trusts the batch.
        outputs: Folders that may be written to.
        wall: The time of day.
        clock: What waits are measured by.
    """

    def __init__(
        self,
        store: JobStore,
        graph: Graph,
        *,
        inputs: Sequence[Path],
        outputs: Sequence[Path],
        wall: Callable[[], float] = time.time,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
        self._graph = graph
        self._inputs, self._outputs = inputs, outputs
        self._wall = wall
        self._clock = clock

    async def __call__(self, task: bytes, lease: Lease) -> bytes:
        """Have one batch done.

        Returns:
            Its last record.

        Raises:
            InvalidInput: What is wrong with it; or why its policy ended it.
            RequestError: The store or the files could not be reached, for as long as patience went.
        """
        document = BatchDocument(self._store, lease.job.id)
        message = BatchTask.FromString(task)
        await document.open(BatchRecord(task=message))
        try:
            # First what the folder may hold from now on, then what it holds.
            resume = message.resume or document.record.begun
            document.record.begun = True
            await document.write()
            started = await asyncio.to_thread(self._start, message, resume)
            try:
                await _Running(self, started, message, document, lease).run()
            finally:
                await asyncio.to_thread(started.source.close)
        except SetupError as error:
            raise InvalidInput(str(error)) from None
        except OSError as error:
            raise Unavailable(f"files cannot be read or written: {error.strerror or error}") from error
        with suppress(RequestError):
            await forget_old(self._store, self._wall())
        return document.record.SerializeToString()

    def _start(self, message: BatchTask, resume: bool) -> Started:
        return start_batch(
            self._graph,
            read_spec(message.spec),
            resume=resume,
            inputs_within=None if message.trusted else self._inputs,
            outputs_within=None if message.trusted else self._outputs,
        )

    @property
    def store(self) -> JobStore:
        """Where the batches are."""
        return self._store

    @property
    def clock(self) -> Clock:
        """What waits are measured by."""
        return self._clock

    def now(self) -> float:
        """The time of day."""
        return self._wall()


class _Running:
    """One batch, looked after by one worker."""

    def __init__(
        self, work: BatchWork, started: Started, task: BatchTask, document: BatchDocument, lease: Lease
    ) -> None:
        self._work, self._store = work, work.store
        self._folder, self._plan, self._source = started.folder, started.plan, started.source
        self._is_done = started.done
        self._task = task
        self._document, self._record = document, document.record
        self._lease = lease
        self._batch = lease.job.id
        policy = task.spec.on_error
        self._most = policy.stop_after if policy.WhichOneof("policy") == "stop_after" else None
        self._done = self._failed = self._shards_done = 0
        self._partly: dict[int, tuple[int, int]] = {}
        """Shard that runs -> rows of it that are answered, and that failed."""
        self._jobs: dict[int, str] = {}
        """Shard that waits or runs -> its job."""

    async def run(self) -> None:
        plan, record = self._plan, self._record
        if not record.HasField("start_time"):
            record.start_time = self._work.now()
        record.rows, record.shards = plan.rows, plan.shards
        if not self._is_done:
            missing = await self._missing()
            writing = asyncio.ensure_future(self._keep_writing())
            try:
                await self._have_run(missing)
            finally:
                writing.cancel()
                await asyncio.wait((writing,))
        summary = await asyncio.to_thread(
            finish_batch, self._folder, plan, self._source.schema, began=record.start_time, ended=self._work.now()
        )
        self._done, self._failed, self._shards_done = summary.rows_done, summary.rows_failed, summary.shards
        self._partly.clear()
        self._tell()
        await self._document.write()

    async def _missing(self) -> list[int]:
        """Shards that are not written; those that are, are counted."""
        commits = await asyncio.to_thread(lambda: list(commits_of(self._folder, self._plan)))
        for commit in commits:
            self._count(commit.rows_done, commit.rows_failed)
        self._check_policy("")
        there = {commit.shard for commit in commits}
        return [number for number in range(self._plan.shards) if number not in there]

    async def _have_run(self, missing: Sequence[int]) -> None:
        """Have shards run, a window of them at once."""
        waiting = iter(missing)
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                while len(tasks) < WINDOW and (number := next(waiting, None)) is not None:
                    tasks.add(asyncio.ensure_future(self._shard(number)))
                if not tasks:
                    return
                ended, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
        except asyncio.CancelledError:
            # A worker that leaves gives the batch to another, who finds its shards at work.
            if self._lease.cancelled.is_set():
                await self._take_back()
            raise
        except InvalidInput:
            await self._take_back()
            raise
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _take_back(self) -> None:
        """Cancel what waits or runs. What is not reached finds out by itself that its batch is over."""
        cancelling = [asyncio.ensure_future(self._store.cancel(job)) for job in self._jobs.values()]
        if cancelling:
            await asyncio.wait(cancelling)
        for one in cancelling:
            one.exception()

    async def _shard(self, number: int) -> None:
        """Have one shard run, and count it."""
        job = await self._patiently(lambda: self._submitted(number))
        self._jobs[number] = job.id
        while not job.over:
            job = await self._patiently(lambda known=job.id: self._followed(number, known))
        self._jobs.pop(number, None)
        self._partly.pop(number, None)
        if job.state is JobState.DONE:
            outcome = ShardOutcome.FromString(job.outcome)
            self._count(outcome.rows_done, outcome.rows_failed)
            self._check_policy(f", the last of them in shard {number}")
        elif job.state is JobState.EXPIRED:
            raise Unavailable(f"nothing is known of shard {number} any more: it is looked for among the results")
        else:
            error = job.error
            text = f"shard {number} was cancelled" if error is None else error.text
            raise InvalidInput(text, node="" if error is None else error.node)

    async def _submitted(self, number: int) -> Job:
        task = ShardTask(
            batch=self._batch,
            output=str(self._folder.root),
            plan=self._plan.digest,
            shard=number,
            trusted=self._task.trusted,
        )
        if self._most is not None:
            # Of its own, whatever others have by then: a job under a key is the same whenever it is stored.
            task.most_errors = self._most
        work = Work(lane=Lane.SHARD, task=task.SerializeToString(deterministic=True))
        job, existed = await self._store.submit(work, key=f"shard/{self._batch}/{number}")
        if existed and job.over and job.state is not JobState.DONE:
            # What an attempt before this one took back, or failed with.
            job, _ = await self._store.submit(work, key=f"shard/{self._batch}/{number}/{self._lease.number}")
        return job

    async def _followed(self, number: int, id: str) -> Job:  # noqa: A002
        """The job of a shard once it is over; how far it is is noted meanwhile."""
        async with aclosing(self._store.follow(id)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    if event.node == ROWS and isinstance(event.outputs, Tensors):
                        self._partly[number] = int(event.outputs["done"][0]), int(event.outputs["failed"][0])
                elif event.over:
                    return event
        return await self._store.get(id, outputs=False)

    async def _patiently(self, ask: Callable[[], Coroutine[Any, Any, Job]]) -> Job:
        """Ask the store until it answers."""
        failures = 0
        while True:
            try:
                return await ask()
            except RequestError as error:
                failures += 1
                if not error.retryable or failures >= PATIENCE:
                    raise
            await pause(self._work.clock, AGAIN_S)

    # How far it is.

    def _count(self, done: int, failed: int) -> None:
        self._done += done
        self._failed += failed
        self._shards_done += 1

    def _check_policy(self, where: str) -> None:
        if self._most is not None and self._failed > self._most:
            raise InvalidInput(f"{self._failed} rows failed, where at most {self._most} may{where}")

    def _tell(self) -> None:
        record = self._record
        record.rows_done = self._done + sum(done for done, _ in self._partly.values())
        record.rows_failed = self._failed + sum(failed for _, failed in self._partly.values())
        record.shards_done = self._shards_done

    async def _keep_writing(self) -> None:
        """Write down how far it is, now and then."""
        while True:
            self._tell()
            try:
                await self._document.write()
            except RequestError as error:
                log.debug("how far batch %s is could not be written down: %s", self._batch, error)
            await pause(self._work.clock, WRITE_S)
