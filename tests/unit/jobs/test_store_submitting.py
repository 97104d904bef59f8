from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from mesh.errors import InvalidInput, NotFound, Overloaded
from mesh.jobs.records import RUNS, Callback, JobState, Lane, Work
from mesh.jobs.store.subjects import Subjects
from tests.harness.nats import Nats, nats_server
from tests.unit.jobs.store_given import Wall, again, ask, begun, large, opened, taken, tensors, work


@pytest.fixture(scope="module")
def server() -> Generator[Nats]:
    with nats_server() as started:
        yield started


async def test_a_job_is_known_to_whoever_looks(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        job, existed = await store.submit(work(3, lane=Lane.HIGH, deadline=4e9))
        assert not existed
        assert job == await other.get(job.id)
        assert (job.state, job.lane, job.rows, job.deadline) == (JobState.QUEUED, Lane.HIGH, 3, 4e9)
        assert job.graph == store.settings.graph


async def test_an_id_that_was_never_given_is_unknown_and_one_that_was_is_expired(server: Nats) -> None:
    async with opened(server) as store, opened(server) as other:
        job, _ = await store.submit(work())
        for id in ("", "nonsense", job.id[:-1] + ("0" if job.id[-1] != "0" else "1")):  # noqa: A001
            with pytest.raises(NotFound):
                await store.get(id)
        with pytest.raises(NotFound):
            await other.get(job.id)
        subjects = Subjects(store.settings.graph)
        await ask(server, f"STREAM.PURGE.{subjects.work}", filter=subjects.work_of(job.lane, job.id))
        gone = await store.get(job.id)
        assert (gone.state, gone.id, gone.lane) == (JobState.EXPIRED, job.id, job.lane)


@pytest.mark.parametrize("inputs", [tensors(2), large()], ids=["inline", "beside"])
async def test_what_is_to_be_done_comes_to_a_worker_as_it_was_given(server: Nats, inputs: Any) -> None:
    given = work(
        inputs=inputs,
        parameters={"a": 1, "b": "two"},
        report=True,
        deadline=4e9,
        callback=Callback(url="http://localhost/told"),
        task=b"",
    )
    async with opened(server) as store:
        await store.submit(given)
        assert (await taken(store)).work == replace(given, graph=store.settings.graph)


async def test_a_task_comes_to_whoever_runs_its_lane(server: Nats) -> None:
    given = Work(lane=Lane.SHARD, task=b"a shard", graph="g")
    async with opened(server) as store:
        await store.submit(given)
        assert await store.take(RUNS, 1, 0.0) == []
        assert (await taken(store, [Lane.SHARD])).work == given


# Keys.


async def test_the_same_key_gives_the_same_job(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        job, existed = await store.submit(work(), key="k")
        assert not existed
        assert await other.submit(work(request_id="other", deadline=4e9), key="k") == (job, True)
        assert (await other.submit(work(), key="l"))[0].id != job.id
        lease = await begun(store)
        assert await lease.done(tensors())
        found, existed = await other.submit(work(), key="k")
        assert (found.id, found.state, existed) == (job.id, JobState.DONE, True)


async def test_the_same_key_with_another_request_is_refused(server: Nats) -> None:
    async with opened(server) as store:
        await store.submit(work(), key="k")
        with pytest.raises(InvalidInput, match="key"):
            await store.submit(work(2), key="k")
        with pytest.raises(InvalidInput, match="256"):
            await store.submit(work(), key="k" * 257)


async def test_many_with_the_same_key_at_once_are_one_job(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        found = await asyncio.gather(*(one.submit(work(), key="k") for one in (store, other) for _ in range(20)))
        assert len({job.id for job, _ in found}) == 1
        assert sum((await store.counts()).waiting.values()) == 1


async def test_a_key_whose_job_was_never_stored_stores_that_very_job(server: Nats) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(work(), key="k")
        # What is there when whoever submitted dies between the claim and the job.
        subjects = Subjects(store.settings.graph)
        await ask(server, f"STREAM.PURGE.{subjects.work}", filter=subjects.work_of(job.lane, job.id))
        found, existed = await store.submit(work(), key="k")
        assert (found.id, found.state, existed) == (job.id, JobState.QUEUED, False)
        assert (await taken(store)).job.id == job.id


async def test_a_key_outlives_its_job_by_a_day(server: Nats) -> None:
    wall = Wall()
    async with opened(server, wall, result_ttl_s=60.0) as store:
        job, _ = await store.submit(work(), key="k")
        assert await (await begun(store)).done(tensors())
        wall.now += 61
        assert (await store.get(job.id)).state is JobState.EXPIRED
        # Also where the record itself is gone: the claim knows that there was one.
        subjects = Subjects(store.settings.graph)
        await ask(server, f"STREAM.PURGE.{subjects.state}", filter=subjects.state_of(job.lane, job.id))
        found, existed = await store.submit(work(), key="k")
        assert (found.id, found.state, existed) == (job.id, JobState.EXPIRED, True)


# Bounds.


async def test_more_jobs_than_may_wait_are_refused_until_one_is_over(server: Nats) -> None:
    async with opened(server, max_queued=2) as store:
        await store.submit(work())
        await store.submit(work())
        for key in ("", "k"):
            with pytest.raises(Overloaded) as caught:
                await store.submit(work(), key=key)
            assert caught.value.retry_after_s > 0
        lease = await begun(store)
        with pytest.raises(Overloaded):
            await store.submit(work())
        assert await lease.done(tensors())
        assert (await store.submit(work(), key="k"))[0].state is JobState.QUEUED


async def test_many_at_once_fill_the_store_to_its_bound_and_no_further(server: Nats) -> None:
    async with opened(server, max_queued=30) as store:
        found = await asyncio.gather(*(store.submit(work()) for _ in range(60)), return_exceptions=True)
        assert sum(isinstance(one, tuple) for one in found) == 30
        assert all(isinstance(one, tuple | Overloaded) for one in found)
        assert (await store.counts()).waiting[Lane.NORMAL] == 30


async def test_more_bytes_than_may_wait_are_refused(server: Nats) -> None:
    async with opened(server, max_queued_bytes=100_000) as store:
        for _ in range(9):
            await store.submit(work(600))
        with pytest.raises(Overloaded):
            await store.submit(work(6000))
    async with opened(server, max_queued_bytes=1_000_000) as store:
        await store.submit(work(inputs=large()))
        await store.submit(work(inputs=large()))
        with pytest.raises(Overloaded, match="payloads"):
            await store.submit(work(inputs=large()))


async def test_a_payload_that_is_too_large_is_refused(server: Nats) -> None:
    async with opened(server, max_payload_bytes=1000) as store:
        with pytest.raises(InvalidInput, match="1000 are carried"):
            await store.submit(work(100))
        with pytest.raises(InvalidInput, match="beside the tensors"):
            await store.submit(work(task=bytes(300_000)))
        assert (await store.counts()).queued_bytes == 0


# The dead letter.


@pytest.mark.parametrize("inputs", [tensors(2), large()], ids=["inline", "beside"])
async def test_a_job_of_the_dead_letter_is_replayed_once(server: Nats, inputs: Any) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(work(inputs=inputs))
        assert await (await begun(store)).fail(InvalidInput("no"))
        assert (await store.counts()).dead == 1
        first = await store.replay(job.id)
        assert first == await store.replay(job.id)
        assert (first.id != job.id, first.replay_of, first.state) == (True, job.id, JobState.QUEUED)
        assert (await store.counts()).dead == 0
        lease = await begun(store)
        assert lease.work.inputs == inputs
        assert await lease.done(inputs)
        assert (await store.replay(job.id)).state is JobState.DONE
        assert (await store.get(job.id)).error == InvalidInput("no")


async def test_a_replay_has_as_much_time_as_the_job_had(server: Nats) -> None:
    wall = Wall()
    async with opened(server, wall) as store:
        job, _ = await store.submit(work(deadline=wall.now + 30))
        wall.now += 100
        assert await (await taken(store)).begin("w") is None
        assert (await store.replay(job.id)).deadline == wall.now + 30


async def test_only_a_job_that_failed_is_replayed(server: Nats) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(work())
        with pytest.raises(InvalidInput, match="queued"):
            await store.replay(job.id)
        with pytest.raises(NotFound):
            await store.replay("nonsense")
        assert await (await begun(store)).fail(InvalidInput("no"))
        await ask(server, f"STREAM.PURGE.{Subjects(store.settings.graph).dead}")
        with pytest.raises(NotFound, match="any more"):
            await store.replay(job.id)
