"""What a worker takes, how much of it at once, and what it does when it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

from mesh.errors import Unavailable
from mesh.jobs.records import RUNS, Lane, Work
from mesh.jobs.store.job_store import Lease
from mesh.jobs.work.attempt import GraphRun
from mesh.jobs.work.carrying import TaskRunner
from mesh.jobs.work.counts import WorkCounts
from mesh.jobs.work.worker import LAST_S, SWEEP_S, JobWorker, WorkBounds
from mesh.testing import settle
from tests.unit.jobs.held import ScriptedDelivery, ScriptedLease, ScriptedStore
from tests.unit.runtime.given import Flow, flow, numbers, topology

ONE = {"out": "Affine, inputs: {x: x}"}


class Tasks:
    """Tasks that wait until a test lets them go."""

    def __init__(self) -> None:
        self.running: dict[bytes, asyncio.Event] = {}

    async def __call__(self, task: bytes, lease: Lease) -> bytes:
        self.running[task] = asyncio.Event()
        try:
            await self.running[task].wait()
        finally:
            del self.running[task]
        return b""


class Serving:
    """A worker that serves."""

    def __init__(self, given: Flow, bounds: WorkBounds, tasks: Mapping[Lane, TaskRunner]) -> None:
        self.given = given
        self.clock = given.clock
        self.store = ScriptedStore()
        run = GraphRun(topology(ONE, "x: out.x").graph, given.executor)
        self.worker = JobWorker(self.store, run, name="w", bounds=bounds, tasks=tasks, clock=given.clock)
        self.stop = asyncio.Event()
        self.serving = asyncio.ensure_future(self.worker.serve(self.stop))

    async def put(self, *deliveries: ScriptedDelivery) -> None:
        self.store.put(*deliveries)
        await settle()

    async def stopped(self) -> None:
        """Tell it to stop, and see that it does."""
        self.stop.set()
        self.store.put()
        await self.clock.advance(10 + LAST_S)
        assert self.serving.done()
        await self.serving


@asynccontextmanager
async def serving(
    bounds: WorkBounds | None = None, tasks: Mapping[Lane, TaskRunner] | None = None
) -> AsyncGenerator[Serving]:
    async with flow(ONE, scripted=("out",)) as given:
        one = Serving(given, bounds or WorkBounds(), tasks or {})
        await settle()
        yield one
        await one.stopped()


def run_of(lane: Lane = Lane.NORMAL) -> ScriptedDelivery:
    return ScriptedDelivery(ScriptedLease(Work(inputs=numbers(1), lane=lane)))


def task_of(task: bytes, lane: Lane) -> ScriptedDelivery:
    return ScriptedDelivery(ScriptedLease(Work(lane=lane, task=task)))


async def test_no_more_is_worked_on_at_once_than_may() -> None:
    async with serving(WorkBounds(concurrency=2)) as one:
        await one.put(*(run_of() for _ in range(5)))
        assert one.given.calls("out") == one.worker.in_flight == 2
        await one.given.reply("out", 1)
        assert one.given.calls("out") == 3
        assert len(one.store.waiting) == 2
        for _ in range(4):
            await one.given.reply("out", 1)
        assert one.worker.counts == WorkCounts(begun=5, done=5)
        assert one.worker.in_flight == 0


async def test_what_people_wait_for_is_asked_for_first() -> None:
    async with serving(tasks={Lane.SHARD: Tasks(), Lane.BATCH: Tasks()}) as one:
        assert one.store.asked == [((*RUNS, Lane.SHARD, Lane.BATCH), 4, 1.0)]


async def test_only_what_somebody_runs_is_asked_for() -> None:
    async with serving() as one:
        assert one.store.asked == [(RUNS, 4, 1.0)]


async def test_runs_shards_and_batches_leave_one_another_their_slots() -> None:
    tasks = Tasks()
    bounds = WorkBounds(concurrency=1, shards=1, batches=2)
    async with serving(bounds, {Lane.SHARD: tasks, Lane.BATCH: tasks}) as one:
        await one.put(*(task_of(name, Lane.BATCH) for name in (b"one", b"two", b"three")))
        await one.put(task_of(b"shard", Lane.SHARD), task_of(b"next", Lane.SHARD), run_of(), run_of())
        await one.clock.advance(2)
        assert tasks.running.keys() == {b"one", b"two", b"shard"}
        assert one.given.calls("out") == 1
        tasks.running[b"one"].set()
        await one.clock.advance(2)
        assert tasks.running.keys() == {b"two", b"three", b"shard"}
        assert ((Lane.BATCH,), 1, 0.0) in one.store.asked, "while no run has room, batches are looked for now and then"


async def test_a_shard_follows_another_at_once_though_the_store_is_being_asked_for_something_else() -> None:
    tasks = Tasks()
    async with serving(WorkBounds(shards=1), {Lane.SHARD: tasks}) as one:
        await one.put(task_of(b"shard", Lane.SHARD))
        assert one.store.asked[-1][0] == RUNS
        await one.put(task_of(b"next", Lane.SHARD))
        assert tasks.running.keys() == {b"shard"}
        tasks.running[b"shard"].set()
        await settle()
        assert tasks.running.keys() == {b"next"}


async def test_a_store_that_does_not_answer_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as one:
        one.store.failures = [Unavailable("gone"), RuntimeError("odd"), Unavailable("gone")]
        await one.put()
        await one.clock.advance(10)
        await one.put(run_of())
        await one.given.reply("out", 1)
        assert one.worker.counts.done == 1
    told = [message for message in caplog.messages if "store" in message]
    assert told == ["the store is asked again until it answers: gone", "the store answers again"]


async def test_what_arrives_when_the_worker_was_told_to_stop_is_given_back() -> None:
    async with serving() as one:
        one.stop.set()
        late = run_of()
        await one.put(late)
        assert late.refused
        assert one.given.calls("out") == 0


async def test_what_is_under_way_is_finished() -> None:
    async with serving() as one:
        delivery = run_of()
        await one.put(delivery)
        one.stop.set()
        one.store.put()
        await one.clock.advance(9)
        assert not one.serving.done()
        await one.given.reply("out", 1)
        await one.serving
        assert delivery.lease.end is not None
        assert delivery.lease.end[0] == "done"


async def test_what_is_not_finished_in_time_is_given_back() -> None:
    tasks = Tasks()
    async with serving(tasks={Lane.BATCH: tasks}) as one:
        run, batch = run_of(), task_of(b"batch", Lane.BATCH)
        await one.put(run, batch)
        one.stop.set()
        one.store.put()
        await one.clock.advance(10)
        await one.serving
        assert run.lease.end == batch.lease.end == ("release", None)
        assert one.worker.counts == WorkCounts(begun=2, released=2)


async def test_a_store_that_is_gone_does_not_keep_a_worker_from_leaving(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as one:
        delivery = run_of()
        delivery.lease.refusals = [Unavailable("gone")] * 1000
        await one.put(delivery)
        one.stop.set()
        one.store.put()
        await one.clock.advance(10 + LAST_S)
        await one.serving
        assert delivery.lease.end is None
    assert "leaves 1 jobs to their leases" in caplog.text


async def test_a_worker_that_is_cancelled_leaves_nothing_running() -> None:
    async with flow(ONE, scripted=("out",)) as given:
        one = Serving(given, WorkBounds(), {})
        await one.put(run_of())
        one.serving.cancel()
        await asyncio.wait((one.serving,))
        assert one.serving.cancelled()
        assert given.scripts["out"].calls[0].cancelled


async def test_what_crashes_left_is_looked_for_about_once_a_minute() -> None:
    async with serving() as one:
        await one.clock.advance(10 * SWEEP_S)
        assert 6 <= one.store.sweeps <= 20
