"""Job workers on a real NATS server: what becomes of a job whatever becomes of its workers and its store."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import numpy as np
import pytest

from mesh.errors import InvalidInput, Unavailable
from mesh.jobs.records import Callback, JobState, Lane, Work
from mesh.jobs.store.job_store import Lease
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.counts import WorkCounts
from mesh.jobs.work.worker import JobWorker
from mesh.tensors import Tensors
from mesh.testing import ManualClock
from tests.harness.nats import Nats, nats_server
from tests.unit.jobs.hooks import allowing, hook
from tests.unit.jobs.worked import BRANCHES, bounds, promptly, shop, until
from tests.unit.runtime.given import numbers, values


@pytest.fixture(scope="module")
def server() -> Generator[Nats]:
    with nats_server() as running:
        yield running


async def counted(worker: JobWorker, counts: WorkCounts) -> None:
    """A worker counts so at last. Others may be told of an end before the worker is told that it stands."""
    await until(lambda: worker.counts == counts)


async def test_a_job_is_done_and_tells_who_did_it(server: Nats) -> None:
    async with shop(server) as here:
        worker = await here.worker("one")
        job = await here.over(await here.submit(numbers(1, 2), report=True))
        await counted(worker, WorkCounts(begun=1, done=1))
    assert job.state is JobState.DONE
    assert job.outputs == numbers(1, 2)
    assert job.report is not None
    (attempt,) = job.attempts
    assert (attempt.number, attempt.worker, attempt.error) == (1, worker.name, None)


async def test_branches_are_told_when_they_are_ready(server: Nats) -> None:
    async with shop(server, BRANCHES, "a b") as here:
        await here.worker("one")
        id_ = await here.submit(numbers(1, 2))
        following = asyncio.ensure_future(here.followed(id_))
        (await here.nodes["b"].called()).answer.set_result(numbers(3, 4))
        call = await here.nodes["a"].called()
        call.answer.set_result(numbers(5, 6))
        job, told = await promptly(following)
    assert job.outputs == numbers(4, 5)
    assert [(one.attempt, one.node, values(one.outputs)) for one in told if one.node != "out"] == [
        (1, "b", [3, 4]),
        (1, "a", [5, 6]),
    ]


async def test_what_is_urgent_is_done_first(server: Nats) -> None:
    async with shop(server, scripted="out") as here:
        for lane, number in ((Lane.LOW, 3), (Lane.NORMAL, 2), (Lane.HIGH, 1), (Lane.LOW, 4)):
            await here.submit(numbers(number), lane=lane)
        await here.worker("one", bounds=bounds(concurrency=1))
        order: list[float] = []
        for _ in range(4):
            call = await here.nodes["out"].called()
            order += values(call.request)
            call.answer.set_result(call.request)
    assert order == [1, 2, 3, 4]


async def test_the_job_of_a_worker_that_vanished_is_taken_over(server: Nats) -> None:
    async with shop(server, scripted="out", lease_s=1.0) as here:
        await here.worker("one")
        id_ = await here.submit(numbers(1))
        await here.nodes["out"].called()
        await here.vanish("one")
        await here.worker("two")
        (await here.nodes["out"].called()).answer.set_result(numbers(2))
        job = await here.over(id_)
    assert job.outputs == numbers(2)
    first, second = job.attempts
    assert first.worker.startswith("one/")
    assert (second.worker.partition("/")[0], second.number) == ("two", 2)


async def test_a_late_result_is_refused(server: Nats) -> None:
    async with shop(server, scripted="out", lease_s=1.0) as here:
        # Its clock stands still, so it says nothing of itself, as a process that is stopped.
        # And it has no room, so it is not itself who takes the job over.
        silent = await here.worker("silent", clock=ManualClock(), bounds=bounds(concurrency=1))
        id_ = await here.submit(numbers(1))
        late = await here.nodes["out"].called()
        await here.worker("two")
        (await here.nodes["out"].called()).answer.set_result(numbers(2))
        assert (await here.over(id_)).outputs == numbers(2)
        late.answer.set_result(numbers(3))
        await counted(silent, WorkCounts(begun=1, lost=1))
        assert (await here.store.get(id_)).outputs == numbers(2)


async def test_poison_ends_in_the_dead_letter_with_its_history(server: Nats) -> None:
    async with shop(server, scripted="out", attempts=3) as here:
        worker = await here.worker("one")
        id_ = await here.submit(numbers(1))
        for number in range(3):
            (await here.nodes["out"].called()).answer.set_exception(Unavailable(f"gone {number}"))
        job = await here.over(id_)
        assert job.state is JobState.FAILED
        assert job.error == Unavailable("gone 2", node="out", request_id=id_)
        assert [attempt.error and attempt.error.text for attempt in job.attempts] == ["gone 0", "gone 1", "gone 2"]
        await counted(worker, WorkCounts(begun=3, retried=2, failed=1))
        again = await here.store.replay(id_)
        (await here.nodes["out"].called()).answer.set_result(numbers(5))
        replayed = await here.over(again.id)
    assert replayed.replay_of == id_
    assert replayed.outputs == numbers(5)


async def test_what_no_attempt_can_help_fails_at_once(server: Nats) -> None:
    async with shop(server) as here:
        worker = await here.worker("one")
        # Whoever submitted it had another version of the graph.
        job = await here.over(await here.submit(Tensors({"y": np.zeros(1, np.float32)})))
        assert job.state is JobState.FAILED
        assert isinstance(job.error, InvalidInput)
        assert job.attempt_count == 1
        await counted(worker, WorkCounts(begun=1, failed=1))


async def test_a_job_that_is_cancelled_is_stopped(server: Nats) -> None:
    async with shop(server, scripted="out") as here:
        worker = await here.worker("one")
        id_ = await here.submit(numbers(1))
        call = await here.nodes["out"].called()
        assert (await here.store.cancel(id_)).state is JobState.CANCELLED
        await promptly(call.cancelled.wait())
        await here.stop("one")
        await counted(worker, WorkCounts(begun=1, lost=1))
        assert (await here.store.get(id_)).state is JobState.CANCELLED


async def test_what_a_worker_that_leaves_did_not_finish_is_taken_at_once_and_counts_as_no_attempt(server: Nats) -> None:
    # The lease is far longer than the test may take: nobody waits for it.
    async with shop(server, scripted="out", lease_s=600.0) as here:
        worker = await here.worker("one")
        id_ = await here.submit(numbers(1))
        call = await here.nodes["out"].called()
        await here.stop("one")
        assert call.cancelled.is_set()
        await counted(worker, WorkCounts(begun=1, released=1))
        await here.worker("two")
        (await here.nodes["out"].called()).answer.set_result(numbers(2))
        job = await here.over(id_)
    assert job.outputs == numbers(2)
    assert job.attempt_count == 1
    assert job.attempts[0].worker.startswith("two/")


async def test_a_result_outlives_the_death_of_the_store() -> None:
    with nats_server() as server:
        async with shop(server, scripted="out", timeout_s=1.0) as here:
            worker = await here.worker("one")
            id_ = await here.submit(numbers(1))
            call = await here.nodes["out"].called()
            server.kill()
            call.answer.set_result(numbers(2))
            server.start()
            job = await here.over_at_last(id_)
            assert job.outputs == numbers(2)
            assert job.attempt_count == 1
            await counted(worker, WorkCounts(begun=1, done=1))
            # And it goes on.
            other = await here.submit_at_last(numbers(3))
            (await here.nodes["out"].called()).answer.set_result(numbers(4))
            assert (await here.over_at_last(other)).outputs == numbers(4)


async def test_shards_and_batches_are_run_by_those_who_know_them(server: Nats) -> None:
    async def shard(task: bytes, lease: Lease) -> bytes:
        return task + b" done"

    async def batch(task: bytes, lease: Lease) -> bytes:
        job, _ = await here.store.submit(Work(lane=Lane.SHARD, task=b"shard"))
        return (await here.over(job.id)).outcome

    async with shop(server) as here:
        await here.worker("one", tasks={Lane.SHARD: shard, Lane.BATCH: batch}, bounds=bounds(concurrency=1))
        job, _ = await here.store.submit(Work(lane=Lane.BATCH, task=b"batch"))
        assert (await here.over(job.id)).outcome == b"shard done"


async def test_a_worker_that_leaves_ends_its_shard_and_gives_the_batch_to_another_at_once(server: Nats) -> None:
    begun, ending = asyncio.Event(), asyncio.Event()

    async def shard(task: bytes, lease: Lease) -> bytes:
        begun.set()
        await ending.wait()
        return b"done"

    async def batch(task: bytes, lease: Lease) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    # Neither lease nor grace run out.
    async with shop(server, lease_s=600.0) as here:
        worker = await here.worker("one", tasks={Lane.SHARD: shard, Lane.BATCH: batch}, bounds=bounds(grace_s=600.0))
        whole, part = [(await here.store.submit(Work(lane=one)))[0] for one in (Lane.BATCH, Lane.SHARD)]
        await promptly(begun.wait())
        await until(lambda: worker.counts.begun == 2)
        stopping = asyncio.ensure_future(here.stop("one"))
        await until(lambda: worker.counts.released == 1)
        job = await here.store.get(whole.id)
        assert (job.state, job.attempt_count) == (JobState.QUEUED, 0)
        ending.set()
        await promptly(stopping)
        assert (await here.store.get(part.id)).outcome == b"done"


async def test_whoever_wants_to_be_told_is_told_until_they_hear_it(server: Nats) -> None:
    async with hook() as listener, shop(server) as here:
        listener.will("500 No")
        settings = allowing(f"127.0.0.1:{listener.port}", backoff=Backoff(first_s=0, most_s=0))
        worker = await here.worker("one", callbacks=settings)
        id_ = await here.submit(numbers(1), callback=Callback(url=listener.url()))
        await until(lambda: worker.counts.callbacks_told)
        assert [heard.headers["webhook-id"] for heard in listener.heard] == [id_, id_]
        counts = worker.counts
    assert (counts.callbacks_told, counts.callbacks_retried, counts.callbacks_failed) == (1, 1, 0)
