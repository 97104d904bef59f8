"""Listing, following, telling, documents, sweeping: what is looked at beside the jobs themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Generator
from contextlib import aclosing

import pytest

from mesh.errors import InvalidInput, NodeFailed, NotFound, Overloaded, Unavailable
from mesh.jobs.records import RUNS, Callback, Conflict, Job, JobState, Lane, Progress, Work
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.store.subjects import Subjects
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

BROKEN = NodeFailed("broken", node="b")


@pytest.fixture(scope="module")
def server() -> Generator[Nats]:
    with nats_server() as started:
        yield started


# Listing.


async def listed(
    store: JobStore, states: Collection[JobState] = (), size: int = 2, lanes: Collection[Lane] = RUNS
) -> list[Job]:
    found: list[Job] = []
    token = ""
    while True:
        page = await store.list(states, size, token, lanes)
        assert len(page.jobs) <= size
        found += page.jobs
        if not page.next_token:
            return found
        token = page.next_token


@pytest.mark.parametrize("size", [1, 2, 1000])
async def test_jobs_are_listed_first_those_that_wait_then_those_that_are_over(server: Nats, size: int) -> None:
    async with opened(server) as store:
        jobs = [(await store.submit(work(place)))[0] for place in range(1, 7)]
        await store.submit(Work(lane=Lane.SHARD, task=b"t"))
        assert await (await begun(store)).done(tensors())
        assert await (await begun(store)).fail(BROKEN)
        assert await (await begun(store)).retry(BROKEN, 3600.0)
        await begun(store)
        await store.cancel(jobs[5].id)
        order = [(2, "queued"), (3, "running"), (4, "queued"), (0, "done"), (1, "failed"), (5, "cancelled")]
        expected = [(jobs[place].id, state) for place, state in order]
        assert [(job.id, job.state.value) for job in await listed(store, size=size)] == expected
        for job in await listed(store, size=size):
            assert job == await store.get(job.id, outputs=False)


@pytest.mark.parametrize("state", list(JobState))
async def test_only_jobs_in_the_states_that_are_asked_for_are_listed(server: Nats, state: JobState) -> None:
    async with opened(server) as store:
        for _ in range(4):
            await store.submit(work())
        assert await (await begun(store)).done()
        assert await (await begun(store)).fail(BROKEN)
        await store.cancel((await begun(store)).job.id)
        await begun(store)
        await store.submit(work())
        found = await listed(store, [state])
        assert [job.state for job in found] == ([] if state is JobState.EXPIRED else [state])


async def test_only_jobs_of_the_lanes_that_are_asked_for_are_listed(server: Nats) -> None:
    async with opened(server) as store:
        for lane in Lane:
            await store.submit(Work(lane=lane, task=b"t"))
            assert await (await begun(store, lanes=[lane])).done()
            await store.submit(Work(lane=lane, task=b"t"))
        for lanes in ([Lane.HIGH], [Lane.LOW, Lane.BATCH], list(Lane), []):
            found = await listed(store, lanes=lanes)
            assert sorted(job.lane.value for job in found) == sorted([lane.value for lane in lanes] * 2)


async def test_what_is_expired_or_cannot_be_read_is_not_listed_and_hides_nothing(server: Nats) -> None:
    wall = Wall()
    async with opened(server, wall, result_ttl_s=10.0) as store:
        await store.submit(work())
        assert await (await begun(store)).done()
        wall.now += 11
        job, _ = await store.submit(work())
        assert await (await begun(store)).done()
        other, _ = await store.submit(work())
        assert await (await begun(store)).done()
        subjects = Subjects(store.settings.graph)
        await put(server, subjects.state_of(Lane.NORMAL, other.id), b"\xff")
        await put(server, subjects.work_of(Lane.NORMAL, "nonsense"), b"\xff")
        assert [one.id for one in await listed(store)] == [job.id]
        with pytest.raises(NodeFailed):
            await store.get(other.id)


@pytest.mark.parametrize("token", ["x", "WyJ3Il0", "e30", "MQ", "ä", "A" * 300, "////"])
async def test_a_token_that_is_none_is_refused(server: Nats, token: str) -> None:
    async with opened(server) as store:
        with pytest.raises(InvalidInput):
            await store.list(token=token)


async def test_a_token_goes_on_with_the_same_list_only(server: Nats) -> None:
    async with opened(server) as store:
        await store.submit(work())
        await store.submit(work())
        token = (await store.list(size=1)).next_token
        with pytest.raises(InvalidInput, match="other states"):
            await store.list([JobState.DONE], token=token)
        for size in (0, 1001):
            with pytest.raises(InvalidInput, match="1000"):
                await store.list(size=size)


# Following.


class Followed:
    """What somebody who follows was told."""

    def __init__(self, events: AsyncGenerator[Job | Progress]) -> None:
        self._events = events

    async def next(self) -> Job | Progress:
        async with asyncio.timeout(PATIENCE_S):
            return await anext(self._events)

    async def job(self) -> Job:
        told = await self.next()
        assert isinstance(told, Job), told
        return told

    async def ends(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            return await anext(self._events, None) is None


async def test_one_who_follows_is_told_every_state_and_what_branches_give(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        job, _ = await store.submit(work())
        async with aclosing(other.follow(job.id)) as events:
            followed = Followed(events)
            assert (await followed.job()).state is JobState.QUEUED
            lease = await begun(store)
            assert (await followed.job()).state is JobState.RUNNING
            given = [Progress(1, "a", tensors(2)), Progress(1, "b", BROKEN), Progress(1, "c", large())]
            for progress in given:
                lease.publish(progress)
                assert await followed.next() == progress
            assert await lease.extend()  # which is nothing to tell
            assert await lease.retry(BROKEN, 0.0)
            assert (await followed.job()).attempts[0].error == BROKEN
            lease = await begun(store)
            assert (await followed.job()).attempt_count == 2
            lease.publish(Progress(2, "a", tensors(1)))
            assert await followed.next() == Progress(2, "a", tensors(1))
            assert await lease.done(large())
            last = await followed.job()
            assert (last.state, last.outputs) == (JobState.DONE, large())
            assert await followed.ends()


async def test_one_who_comes_late_is_told_what_the_running_attempt_gave(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        job, _ = await store.submit(work())
        lease = await begun(store)
        lease.publish(Progress(1, "old", tensors()))
        assert await lease.retry(BROKEN, 0.0)
        lease = await begun(store)
        async with aclosing(store.follow(job.id)) as events:
            assert (await Followed(events).job()).attempt_count == 2
            lease.publish(Progress(2, "new", tensors()))
            assert await Followed(events).next() == Progress(2, "new", tensors())
        async with aclosing(other.follow(job.id)) as events:
            followed = Followed(events)
            assert (await followed.job()).state is JobState.RUNNING
            assert await followed.next() == Progress(2, "new", tensors())
            assert await lease.done()
            assert (await followed.job()).state is JobState.DONE


@pytest.mark.parametrize("end", ["done", "failed", "cancelled", "expired"])
async def test_a_job_that_is_over_is_told_once(server: Nats, end: str) -> None:
    wall = Wall()
    async with opened(server, wall, result_ttl_s=10.0) as store:
        job, _ = await store.submit(work())
        lease = await begun(store)
        lease.publish(Progress(1, "a", tensors()))
        if end == "failed":
            assert await lease.fail(BROKEN)
        elif end == "cancelled":
            await store.cancel(job.id)
        else:
            assert await lease.done(tensors(3))
        wall.now += 11 if end == "expired" else 0
        async with aclosing(store.follow(job.id)) as events:
            followed = Followed(events)
            assert await followed.job() == await store.get(job.id)
            assert await followed.ends()


async def test_one_who_follows_is_told_that_a_job_was_cancelled(server: Nats) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(work())
        async with aclosing(store.follow(job.id)) as events:
            followed = Followed(events)
            assert (await followed.job()).state is JobState.QUEUED
            cancelled = await store.cancel(job.id)
            assert await followed.job() == cancelled
            assert await followed.ends()


async def test_only_so_many_jobs_are_followed_at_once(server: Nats) -> None:
    async with opened(server, max_followers=1) as store:
        job, _ = await store.submit(work())
        with pytest.raises(NotFound):
            await anext(store.follow("nonsense"))
        async with aclosing(store.follow(job.id)) as events:
            await anext(events)
            with pytest.raises(Overloaded):
                await anext(store.follow(job.id))
        async with aclosing(store.follow(job.id)) as events:
            await anext(events)


# Telling.


@pytest.mark.parametrize("callback", [Callback(url="http://a/b"), Callback(listener="grpc://a:1")])
async def test_whoever_asked_for_it_is_told_of_an_end_until_it_is_heard(server: Nats, callback: Callback) -> None:
    async with opened(server) as store, again(store) as other:
        assert await store.take_notices(1, 0.0) == []
        job, _ = await store.submit(work(callback=callback))
        assert await (await begun(store)).done(tensors())
        (notice,) = await store.take_notices(4, PATIENCE_S)
        ended = await store.get(job.id, outputs=False)
        assert (notice.job, notice.callback, notice.number) == (ended, callback, 1)
        assert notice.first_time == ended.end_time
        await notice.again(0.01)
        (notice,) = await other.take_notices(4, PATIENCE_S)
        assert notice.number == 2
        await notice.told()
        assert (await store.counts()).notices == 0


async def test_who_cannot_be_told_ends_in_the_dead_letter(server: Nats) -> None:
    async with opened(server) as store:
        job, _ = await store.submit(work(callback=Callback(url="http://a/b")))
        await store.cancel(job.id)
        (notice,) = await store.take_notices(1, PATIENCE_S)
        assert notice.job.state is JobState.CANCELLED
        await notice.give_up(Unavailable("nobody there"))
        counts = await store.counts()
        assert (counts.notices, counts.dead) == (0, 1)


# Documents.


async def test_a_document_is_replaced_only_by_whoever_read_it_last(server: Nats) -> None:
    async with opened(server) as store, again(store) as other:
        assert await store.read("a.b") is None
        first = await store.keep("a.b", b"one", expected=0)
        assert await other.read("a.b") == (b"one", first)
        with pytest.raises(Conflict) as caught:
            await other.keep("a.b", b"two", expected=0)
        assert caught.value.revision == first
        second = await other.keep("a.b", b"two", expected=first)
        third = await store.keep("a.b", b"three")
        with pytest.raises(Conflict):
            await store.forget("a.b", expected=second)
        await store.forget("a.b", expected=third)
        await store.forget("a.b")
        assert await other.read("a.b") is None


async def test_documents_are_found_by_what_they_are_below(server: Nats) -> None:
    async with opened(server) as store:
        for key in ("b", "a.2", "a.1", "a.1.x", "ab.1"):
            await store.keep(key, b"")
        assert await store.keys() == ["a.1", "a.1.x", "a.2", "ab.1", "b"]
        assert await store.keys("a") == ["a.1", "a.1.x", "a.2"]
        assert await store.keys("c") == []


@pytest.mark.parametrize("key", ["", ".", "a.", ".a", "a..b", "a b", "a*", ">", "a" * 201, "ä", "a\n"])
async def test_a_key_that_is_none_is_refused(server: Nats, key: str) -> None:
    async with opened(server) as store:
        with pytest.raises(InvalidInput, match="key"):
            await store.keep(key, b"")
        with pytest.raises(InvalidInput, match="262144"):
            await store.keep("key", bytes(262_145))


# Sweeping.


async def test_the_sweeper_removes_what_no_job_needs_and_nothing_else(server: Nats) -> None:
    wall = Wall()
    async with opened(server, wall, lease_s=1e6) as store:
        subjects = Subjects(store.settings.graph)
        jobs = [(await store.submit(work(inputs=large()), key=str(place)))[0] for place in range(5)]
        # 0 is done and its result kept; 1 is dead; 2 runs; 3 and its key are left of a crash; 4 waits.
        assert await (await begun(store)).done(large())
        assert await (await begun(store)).fail(BROKEN)
        await begun(store)
        await ask(server, f"STREAM.PURGE.{subjects.work}", filter=subjects.work_of(jobs[3].lane, jobs[3].id))

        def there() -> list[str]:
            paths = (server.folder / "data" / "payloads" / store.settings.graph).rglob("*")
            return sorted(path.name.partition(".")[0] for path in paths if path.is_file())

        assert await store.sweep() == 0
        assert there() == sorted(job.id for job in jobs)
        wall.now += 2 * 86_400
        assert await store.sweep() == 2
        assert there() == sorted(job.id for job in jobs if job is not jobs[3])
        assert await store.sweep() == 0
        again_, existed = await store.submit(work(), key="3")
        assert (existed, again_.id != jobs[3].id) == (False, True)


async def test_the_sweeper_removes_work_of_a_job_that_is_over(server: Nats) -> None:
    wall = Wall()
    async with opened(server, wall, lease_s=1e6) as store:
        job, _ = await store.submit(work())
        subject, raw = await raw_work(server, store, job.lane, job.id)
        lease = await begun(store)
        assert await lease.fail(BROKEN)
        await put(server, subject, raw)
        await taken(store)  # by one who says nothing any more
        wall.now += 7200
        assert await store.sweep() == 1
        assert (await store.counts()).queued_bytes == 0
