from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from mesh.errors import Cancelled, DeadlineExceeded, InvalidInput, NodeFailed, Unavailable
from mesh.jobs.records import RUNS, JobState, Lane, Work
from mesh.jobs.store.subjects import Subjects
from mesh.v1.call_pb2 import CallReport
from tests.harness.nats import Nats, nats_server
from tests.unit.jobs.store_given import (
    PATIENCE_S,
    Wall,
    again,
    ask,
    begun,
    large,
    opened,
    put,
    raw_work,
    taken,
    tensors,
    work,
)

BROKEN = NodeFailed("broken")
LOST = Unavailable("its worker was lost", request_id="asked")


@pytest.fixture(scope="module")
def server() -> Generator[Nats]:
    with nats_server() as started:
        yield started


# Taking.


async def test_lanes_are_taken_in_their_order(server: Nats) -> None:
    async with opened(server) as store:
        for lane in (Lane.LOW, Lane.NORMAL, Lane.HIGH, Lane.NORMAL):
            await store.submit(work(lane=lane))
        found = await store.take(RUNS, 3, PATIENCE_S)
        assert [delivery.lane for delivery in found] == [Lane.HIGH, Lane.NORMAL, Lane.NORMAL]
        assert [delivery.lane for delivery in await store.take(RUNS, 3, 0.0)] == [Lane.LOW]


async def test_a_job_comes_to_whoever_waits_for_it(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        waiting = asyncio.create_task(taken(other))
        job, _ = await store.submit(work())
        assert (await waiting).job.id == job.id


async def test_a_job_that_comes_while_nobody_takes_is_for_others(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        assert await store.take(RUNS, 1, 0.01) == []
        job, _ = await store.submit(work())
        assert (await taken(other)).job.id == job.id


async def test_a_job_that_is_refused_or_taken_by_one_who_leaves_is_for_others_at_once(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        job, _ = await store.submit(work())
        await (await taken(store)).refuse()
        await (await taken(other)).refuse()
        leaving = asyncio.create_task(store.take(RUNS, 1, PATIENCE_S))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert (await taken(other)).job.id == job.id


async def test_there_may_be_no_room(server: Nats) -> None:
    async with opened(server) as store:
        await store.submit(work())
        assert await store.take(RUNS, 0, PATIENCE_S) == []


# Ending.


@pytest.mark.parametrize("outputs", [tensors(2), large(), None], ids=["inline", "beside", "none"])
async def test_a_result_is_kept_with_its_report(server: Nats, outputs: object) -> None:
    report = CallReport()
    report.elapsed.seconds = 3
    async with opened(server) as store, again(store) as other:
        job, _ = await store.submit(work())
        lease = await begun(store, "jobs-0")
        assert (lease.number, lease.last, lease.job.state) == (1, False, JobState.RUNNING)
        assert (await other.get(job.id)).state is JobState.RUNNING
        assert await lease.done(outputs, None if outputs is None else report, outcome=b"all")  # type: ignore[arg-type]
        found = await other.get(job.id)
        assert (found.state, found.outputs, found.outcome) == (JobState.DONE, outputs, b"all")
        assert found.report == (None if outputs is None else report)
        assert [(one.number, one.worker, one.error) for one in found.attempts] == [(1, "jobs-0", None)]
        assert (await other.get(job.id, outputs=False)).outputs is None
        assert await lease.done(outputs)  # type: ignore[arg-type]
        assert not await lease.extend()
        counts = await store.counts()
        assert (sum(counts.waiting.values()), sum(counts.taken.values()), counts.queued_bytes) == (0, 0, 0)


async def test_a_result_that_is_too_large_is_refused_and_the_attempt_goes_on(server: Nats) -> None:
    async with opened(server, max_payload_bytes=100) as store:
        await store.submit(work())
        lease = await begun(store)
        with pytest.raises(InvalidInput):
            await lease.done(tensors(100))
        with pytest.raises(InvalidInput):
            await lease.done(outcome=bytes(100_000))
        assert await lease.done(tensors(1))


async def test_an_attempt_that_failed_is_followed_by_another_not_before_its_time(server: Nats) -> None:
    wall = Wall()
    async with opened(server, wall, attempts=2) as store:
        job, _ = await store.submit(work())
        assert await (await begun(store)).retry(BROKEN, 0.05)
        found = await store.get(job.id)
        assert (found.state, found.next_attempt_time) == (JobState.QUEUED, wall.now + 0.05)
        assert await (await taken(store)).begin("early") is None
        assert (await store.get(job.id)) == found
        wall.now += 1
        lease = await begun(store)
        assert (lease.number, lease.last) == (2, True)
        assert await lease.retry(BROKEN, 0.05)
        found = await store.get(job.id)
        assert (found.state, found.error, found.attempt_count) == (JobState.FAILED, BROKEN, 2)
        assert [one.error for one in found.attempts] == [BROKEN, BROKEN]
        assert (await store.counts()).dead == 1


async def test_a_job_that_is_given_back_has_no_attempt_behind_it(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        job, _ = await store.submit(work())
        assert await (await begun(store)).release()
        assert (await store.get(job.id)).attempts == ()
        assert (await begun(other)).number == 1


async def test_a_job_whose_deadline_passed_fails_when_it_is_taken(server: Nats) -> None:
    wall = Wall()
    async with opened(server, wall) as store:
        job, _ = await store.submit(work(deadline=wall.now + 10))
        wall.now += 11
        assert await (await taken(store)).begin("late") is None
        found = await store.get(job.id)
        assert found.state is JobState.FAILED
        assert isinstance(found.error, DeadlineExceeded)
        assert (await store.counts()).dead == 1


async def test_a_job_that_cannot_be_read_fails(server: Nats) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(work(inputs=large()))
        for path in (server.folder / "data").rglob(f"{job.id}*"):
            path.unlink()
        assert await (await taken(store)).begin("w") is None
        assert isinstance((await store.get(job.id)).error, NodeFailed)


# Leases.


async def test_a_job_whose_worker_is_silent_is_taken_over_and_the_late_result_refused(server: Nats) -> None:
    async with opened(server, lease_s=0.2) as store, again(store) as other:
        job, _ = await store.submit(work())
        late = await begun(store, "late")
        lease = await begun(other, "new")
        assert lease.number == 2
        assert lease.job.attempts[0].error == LOST
        assert not await late.extend()
        assert late.cancelled.is_set()
        assert not await late.done(large())
        assert await lease.done(tensors(1, 2.0))
        found = await store.get(job.id)
        assert (found.outputs, found.attempt_count) == (tensors(1, 2.0), 2)


@pytest.mark.parametrize("word", ["done", "fail", "retry", "release"])
async def test_whatever_a_late_worker_says_is_refused(server: Nats, word: str) -> None:
    wall = Wall()
    async with opened(server, wall, lease_s=0.1) as store, again(store, wall) as other:
        job, _ = await store.submit(work())
        late = await begun(store)
        wall.now += 1
        lease = await begun(other)
        said = {
            "done": lambda: late.done(tensors()),
            "fail": lambda: late.fail(BROKEN),
            "retry": lambda: late.retry(BROKEN, 0.0),
            "release": late.release,
        }
        assert await said[word]() is False
        assert late.cancelled.is_set()
        assert (await store.get(job.id)).state is JobState.RUNNING
        assert await lease.done(tensors())


async def test_a_worker_that_says_that_it_goes_on_keeps_its_job_whatever_the_server_delivers(server: Nats) -> None:
    wall = Wall()
    async with opened(server, wall, lease_s=0.1) as store, again(store, wall) as other:
        await store.submit(work())
        lease = await begun(store)
        for _ in range(3):
            # Time stands still: the record's lease goes on, while the server's own is over again and again.
            assert await (await taken(other)).begin("other") is None
        wall.now += 0.09
        assert await lease.extend()
        wall.now += 0.09
        assert await (await taken(other)).begin("other") is None
        assert await lease.done(tensors())


async def test_a_job_that_kills_its_workers_ends_in_the_dead_letter(server: Nats) -> None:
    async with opened(server, lease_s=0.1, attempts=2) as store:
        job, _ = await store.submit(work())
        await begun(store, "first")
        await begun(store, "second")
        while not (found := await store.get(job.id)).over:
            assert await (await taken(store)).begin("third") is None
        assert (found.state, found.error, found.attempt_count) == (JobState.FAILED, LOST, 2)
        assert [one.worker for one in found.attempts] == ["first", "second"]
        assert (await store.counts()).dead == 1


async def test_two_who_have_the_same_delivery_begin_one_attempt(server: Nats) -> None:
    async with opened(server, lease_s=0.1) as store, again(store) as other:
        await store.submit(work())
        first = await taken(store)
        second = await taken(other)  # the same: it was not begun within the lease
        leases = await asyncio.gather(first.begin("one"), second.begin("other"))
        assert sum(lease is not None for lease in leases) == 1


async def test_a_worker_that_slept_over_the_whole_life_of_a_job_does_not_raise_it_from_the_dead(server: Nats) -> None:
    async with opened(server, lease_s=0.05) as store, again(store) as other:
        job, _ = await store.submit(work())
        sleeper = await taken(store)
        assert await (await begun(other)).done(tensors())
        # Its time is over, and nothing of it is left.
        subjects = Subjects(store.settings.graph)
        await ask(server, f"STREAM.PURGE.{subjects.state}", filter=subjects.state_of(job.lane, job.id))
        assert await sleeper.begin("sleeper") is None
        assert (await store.get(job.id)).state is JobState.EXPIRED


# Crashes between two writes.


async def test_work_of_a_job_that_is_over_goes_when_it_is_delivered_again(server: Nats) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(work())
        subject, raw = await raw_work(server, store, job.lane, job.id)
        assert await (await begun(store)).fail(BROKEN)
        before = await store.get(job.id)
        subjects = Subjects(store.settings.graph)
        await ask(server, f"STREAM.PURGE.{subjects.dead}")
        # As if the worker had died after its word, and before anything that follows from it.
        await put(server, subject, raw)
        assert await (await taken(store)).begin("w") is None
        assert await store.get(job.id) == before
        counts = await store.counts()
        assert (counts.dead, counts.queued_bytes) == (1, 0)


# Cancelling.


async def test_a_job_that_waits_is_cancelled_and_never_taken(server: Nats) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(work(inputs=large()), key="k")
        cancelled = await store.cancel(job.id)
        assert cancelled.state is JobState.CANCELLED
        assert await store.cancel(job.id) == cancelled == await store.get(job.id)
        assert await store.take(RUNS, 1, 0.0) == []
        assert (await store.counts()).queued_bytes == 0
        assert await store.submit(work(inputs=large()), key="k") == (cancelled, True)
        assert list((server.folder / "data").rglob(f"{job.id}*")) == []


async def test_the_worker_of_a_job_that_is_cancelled_is_told_and_its_result_refused(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        job, _ = await store.submit(work())
        lease = await begun(store)
        cancelled = await other.cancel(job.id)
        async with asyncio.timeout(PATIENCE_S):
            await lease.cancelled.wait()
        assert not await lease.done(tensors())
        assert await store.get(job.id) == cancelled
        assert isinstance(cancelled.attempts[0].error, Cancelled)


async def test_a_job_between_two_attempts_is_cancelled(server: Nats) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(work())
        assert await (await begun(store)).retry(BROKEN, 3600.0)
        assert (await store.cancel(job.id)).state is JobState.CANCELLED
        assert (await store.counts()).queued_bytes == 0


async def test_a_job_that_is_over_is_not_cancelled(server: Nats) -> None:
    wall = Wall()
    async with opened(server, wall, result_ttl_s=10.0) as store:
        job, _ = await store.submit(work())
        assert await (await begun(store)).done(tensors())
        assert (await store.cancel(job.id)).state is JobState.DONE
        wall.now += 11
        assert (await store.cancel(job.id)).state is JobState.EXPIRED
        assert (await store.get(job.id)).state is JobState.EXPIRED


async def test_a_shard_is_worked_on_as_any_other(server: Nats) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(Work(lane=Lane.SHARD, task=b"rows 1 to 9"))
        lease = await begun(store, lanes=[Lane.SHARD])
        assert lease.work.task == b"rows 1 to 9"
        assert await lease.done(outcome=b"nine rows")
        assert (await store.get(job.id)).outcome == b"nine rows"
