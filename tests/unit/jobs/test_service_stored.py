"""The service of jobs over the real store: each state, each error, and a store that comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from mesh.errors import InvalidInput, NodeFailed, NotFound, Overloaded, Unavailable
from mesh.jobs.client import JobClient
from mesh.jobs.records import RUNS, Job, JobState, Lane, Progress, Work
from mesh.jobs.store.job_store import JobStore, Lease
from mesh.tensors import Tensors
from mesh.transports import ENGINES
from tests.harness.nats import Nats, nats_server, settings_of
from tests.unit.jobs.telling import INPUTS, gateway, promptly, service_of

OUTPUTS = Tensors({"label": np.array([7, 2, 1])})
OTHER = Tensors({"x": np.zeros((1, 2), np.float32)})


@pytest.fixture(scope="module")
def nats() -> Generator[Nats]:
    with nats_server() as server:
        yield server


@asynccontextmanager
async def asking(nats: Nats, engine: str = "wire", **changes: Any) -> AsyncGenerator[tuple[JobStore, JobClient]]:
    """A store of its own, and a client of the gateway before it."""
    async with (
        promptly(),
        JobStore(settings_of(nats, **changes)) as store,
        gateway(service_of(store, wall=time.time), engine=engine) as address,
        JobClient(address, engine=engine) as jobs,
    ):
        yield store, jobs


async def begun(store: JobStore) -> Lease:
    """An attempt at the next job."""
    while not (given := await store.take(RUNS, 1)):
        pass
    lease = await given[0].begin("jobs-0 (1)")
    assert lease is not None
    return lease


async def submitted(jobs: JobClient, **others: Any) -> Job:
    job, existed = await jobs.submit(INPUTS, **others)
    assert not existed
    return job


@pytest.mark.parametrize("engine", ENGINES)
async def test_each_state_looks_different_from_the_others(engine: str, nats: Nats) -> None:
    async with asking(nats, engine) as (store, jobs):
        queued = await submitted(jobs, request_id="mine", timeout_s=3600, priority=Lane.HIGH)
        assert (queued.state, queued.rows, queued.graph) == (JobState.QUEUED, 3, "digits")
        assert queued.deadline == pytest.approx(queued.submit_time + 3600, abs=60)
        assert await jobs.get(queued.id) == queued

        lease = await begun(store)
        assert lease.work.inputs == INPUTS
        running = await jobs.get(queued.id)
        assert (running.state, running.attempt_count, running.attempts[0].worker) == (JobState.RUNNING, 1, "jobs-0 (1)")

        assert await lease.retry(Unavailable("gone"), 0.0)
        again = await jobs.get(queued.id)
        assert (again.state, again.attempts[0].error) == (JobState.QUEUED, Unavailable("gone"))
        assert again.next_attempt_time is not None

        assert await (await begun(store)).done(OUTPUTS)
        done = await jobs.get(queued.id)
        assert (done.state, done.outputs, done.attempt_count, done.over) == (JobState.DONE, OUTPUTS, 2, True)
        assert (await jobs.get(queued.id, outputs=False)).outputs is None

        bad = await submitted(jobs)
        assert await (await begun(store)).fail(NodeFailed("broken", node="n"))
        failed = await jobs.get(bad.id)
        assert (failed.state, failed.error) == (JobState.FAILED, NodeFailed("broken", node="n"))

        cancelled = await jobs.cancel((await submitted(jobs)).id)
        assert (cancelled.state, (await jobs.get(cancelled.id)).state) == (JobState.CANCELLED, JobState.CANCELLED)
        assert (await jobs.cancel(done.id)).state is JobState.DONE

        with pytest.raises(NotFound):
            await jobs.get("0" * 32)
        for wanted in (JobState.DONE, JobState.FAILED, JobState.CANCELLED):
            assert [job.state for job in (await jobs.list([wanted])).jobs] == [wanted]


async def test_a_job_whose_time_is_over_is_expired_and_not_unknown(nats: Nats) -> None:
    async with asking(nats, result_ttl_s=1.0) as (store, jobs):
        job = await submitted(jobs)
        assert await (await begun(store)).done(OUTPUTS)
        while (found := await jobs.get(job.id)).state is not JobState.EXPIRED:
            assert found.state is JobState.DONE
            await asyncio.sleep(0.05)
        assert (found.id, found.outputs) == (job.id, None)
        assert (await jobs.wait(job.id)).state is JobState.EXPIRED


async def test_an_id_of_another_mesh_is_unknown(nats: Nats) -> None:
    async with asking(nats) as (_, jobs), asking(nats) as (_, others):
        job = await submitted(others)
        for call in (jobs.get(job.id), jobs.cancel(job.id), jobs.replay(job.id), jobs.wait(job.id)):
            with pytest.raises(NotFound):
                await call


async def test_the_same_key_gives_the_same_job_whatever_its_deadline(nats: Nats) -> None:
    async with asking(nats) as (_, jobs):
        first, _ = await jobs.submit(INPUTS, key="k", timeout_s=3600)
        again, existed = await jobs.submit(INPUTS, key="k", timeout_s=60, request_id="another")
        assert (again, existed) == (first, True)
        with pytest.raises(InvalidInput, match="key"):
            await jobs.submit(OTHER, key="k")


async def test_a_full_store_says_so_and_when_to_come_back(nats: Nats) -> None:
    async with asking(nats, max_queued=1) as (_, jobs):
        job = await submitted(jobs)
        with pytest.raises(Overloaded) as caught:
            await jobs.submit(OTHER, request_id="mine")
        assert caught.value.retry_after_s > 0
        assert caught.value.request_id == "mine"
        assert (await jobs.get(job.id)).state is JobState.QUEUED


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_watch_tells_states_branches_and_the_result(engine: str, nats: Nats) -> None:
    async with asking(nats, engine, max_followers=1) as (store, jobs):
        job = await submitted(jobs)
        async with aclosing(jobs.watch(job.id)) as events:
            assert await anext(events) == job
            lease = await begun(store)
            running = await anext(events)
            assert isinstance(running, Job)
            assert running.state is JobState.RUNNING
            small = Progress(1, "small", Tensors({"y": [0.5]}))
            lease.publish(small)
            assert await anext(events) == small
        assert await lease.done(OUTPUTS)
        assert (await waited(jobs, job.id)).outputs == OUTPUTS


async def waited(jobs: JobClient, id: str) -> Job:  # noqa: A002
    """The job as it ended, once there is room to watch it: whoever leaves makes room a moment later."""
    while True:
        try:
            return await jobs.wait(id)
        except Overloaded as full:
            await asyncio.sleep(full.retry_after_s)


async def test_a_job_that_failed_is_replayed_once_however_often_it_is_asked(nats: Nats) -> None:
    async with asking(nats) as (store, jobs):
        job = await submitted(jobs)
        with pytest.raises(InvalidInput):
            await jobs.replay(job.id)
        assert await (await begun(store)).fail(NodeFailed("broken"))
        new = await jobs.replay(job.id)
        assert (new.replay_of, new.state, new.id != job.id) == (job.id, JobState.QUEUED, True)
        assert (await jobs.replay(job.id)).id == new.id
        lease = await begun(store)
        assert (lease.job.id, lease.work.inputs) == (new.id, INPUTS)


async def test_jobs_are_listed_page_by_page(nats: Nats) -> None:
    async with asking(nats) as (_, jobs):
        ids = {(await submitted(jobs)).id for _ in range(5)}
        found: list[str] = []
        page = await jobs.list(size=2)
        while True:
            assert len(page.jobs) <= 2
            found += [job.id for job in page.jobs]
            if not page.next_token:
                break
            page = await jobs.list(size=2, token=page.next_token)
        assert (set(found), len(found)) == (ids, 5)
        with pytest.raises(InvalidInput):
            await jobs.list(token="nonsense")


@pytest.mark.parametrize("lane", [Lane.SHARD, Lane.BATCH])
async def test_batches_and_shards_are_for_others_to_look_after(lane: Lane, nats: Nats) -> None:
    async with asking(nats) as (store, jobs):
        task, _ = await store.submit(Work(lane=lane, task=b"something"))
        for call in (jobs.get(task.id), jobs.cancel(task.id), jobs.replay(task.id), jobs.wait(task.id)):
            with pytest.raises(NotFound):
                await call
        assert (await store.get(task.id)).state is JobState.QUEUED
        assert (await jobs.list()).jobs == ()


async def test_a_store_that_is_away_is_unavailable_and_watched_on_when_it_is_back() -> None:
    with nats_server() as nats:
        async with asking(nats, timeout_s=1.0) as (store, jobs):
            job = await submitted(jobs)
            async with aclosing(jobs.watch(job.id)) as events:
                assert await anext(events) == job
                nats.kill()
                for call in (jobs.get(job.id), jobs.submit(INPUTS), jobs.cancel(job.id), jobs.list()):
                    with pytest.raises(Unavailable):
                        await call
                nats.start()
                lease = await begun_again(store)
                assert await lease.done(OUTPUTS)
                last = job
                async for event in events:
                    assert isinstance(event, Job)
                    last = event
            assert (last.state, last.outputs) == (JobState.DONE, OUTPUTS)


async def begun_again(store: JobStore) -> Lease:
    """An attempt, once the store is back."""
    while True:
        try:
            return await begun(store)
        except Unavailable:
            await asyncio.sleep(0.05)
