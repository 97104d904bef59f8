"""The client of jobs: whom it asks, what it makes of those who do not answer, and how it watches on after a break."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from mesh.errors import NotFound, PlacementError, Unavailable
from mesh.jobs.client import JobClient
from mesh.jobs.records import Job, JobState, Progress
from mesh.tensors import Tensors
from mesh.transports import ENGINES
from tests.unit.jobs.telling import INPUTS, TellingStore, gateway, job_of, promptly, service_of

RUNNING = job_of("a", JobState.RUNNING, attempt_count=1)
DONE = job_of("a", JobState.DONE, attempt_count=2, outputs=Tensors({"label": np.array([7])}))


@pytest.fixture
def address() -> Generator[str]:
    """Where a gateway may come and go."""
    # Not pytest's folders: their paths can be too long for a socket.
    with TemporaryDirectory(prefix="jobs-") as folder:
        yield f"unix:{Path(folder) / 'gateway'}"


def given(attempt: int, node: str) -> Progress:
    return Progress(attempt, node, Tensors({"y": [float(attempt)]}))


@pytest.mark.parametrize("engine", ENGINES)
async def test_nobody_at_the_address_is_told_at_once_and_by_the_address(engine: str, address: str) -> None:
    async with promptly(), JobClient(address, engine=engine) as jobs:
        for call in (jobs.get("a"), jobs.submit(INPUTS), jobs.list(), jobs.wait("a")):
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value.text == f"{address} cannot be reached: nobody answers there"


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_mesh_without_jobs_says_what_it_needs(engine: str) -> None:
    async with gateway(None) as where, JobClient(where, engine=engine) as jobs:
        for call in (jobs.get("a"), jobs.wait("a")):
            with pytest.raises(NotFound) as caught:
                await call
            assert caught.value.text == f"{where} takes no jobs: its topology needs a jobs: block"


def test_what_is_no_address_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(PlacementError, match="'localhost:8001' is no address"):
        JobClient("localhost:8001")


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_that_is_closed_asks_nobody(engine: str, address: str) -> None:
    jobs = JobClient(address, engine=engine)
    with pytest.raises(Unavailable, match="the client is closed"):
        await jobs.get("a")
    async with jobs:
        pass
    for call in (jobs.get("a"), jobs.wait("a")):
        with pytest.raises(Unavailable, match="the client is closed"):
            await call


async def test_a_gateway_that_does_not_answer_in_time_is_unavailable() -> None:
    store = TellingStore()
    store.stuck = True
    async with gateway(service_of(store)) as where, JobClient(where, call_s=0.01) as jobs:
        with pytest.raises(Unavailable):
            await jobs.get("a")


async def test_a_caller_that_gives_up_waiting_is_cancelled_and_nothing_else() -> None:
    store = TellingStore()
    store.jobs["a"] = job_of()
    async with promptly(), gateway(service_of(store)) as where, JobClient(where) as jobs:
        waiting = asyncio.ensure_future(jobs.wait("a"))
        await store.until_following(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await store.until_following(0)


async def test_waiting_gives_the_job_as_it_ended() -> None:
    store = TellingStore()
    store.jobs["a"] = job_of()
    for event in (RUNNING, given(1, "left"), DONE):
        store.events.put_nowait(event)
    async with promptly(), gateway(service_of(store)) as where, JobClient(where) as jobs:
        assert await jobs.wait("a") == DONE


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_watch_goes_on_at_a_gateway_that_comes_back_and_tells_nothing_twice(engine: str, address: str) -> None:
    store = TellingStore()
    store.jobs["a"] = job_of()
    told: list[Job | Progress] = []

    async def watch(jobs: JobClient) -> None:
        async for event in jobs.watch("a"):
            told.append(event)
            seen.set()

    seen = asyncio.Event()
    async with promptly(), JobClient(address, engine=engine) as jobs:
        async with gateway(service_of(store), address, engine):
            watching = asyncio.ensure_future(watch(jobs))
            store.events.put_nowait(RUNNING)
            store.events.put_nowait(given(1, "left"))
            while len(told) < 3:
                seen.clear()
                await seen.wait()
        # The gateway is gone; the job goes on.
        store.jobs["a"] = RUNNING
        for event in (given(1, "left"), given(1, "right"), given(2, "left"), DONE):
            store.events.put_nowait(event)
        async with gateway(service_of(store), address, engine):
            await watching
    assert told == [job_of(), RUNNING, given(1, "left"), given(1, "right"), given(2, "left"), DONE]


async def test_a_watch_waits_no_longer_than_its_patience_for_a_gateway_that_went(address: str) -> None:
    store = TellingStore()
    store.jobs["a"] = RUNNING
    async with promptly(), JobClient(address) as jobs, aclosing(jobs.watch("a", patience_s=0.0)) as events:
        async with gateway(service_of(store), address):
            assert await anext(events) == RUNNING
        with pytest.raises(Unavailable):
            await anext(events)


async def test_a_store_that_comes_back_is_watched_on() -> None:
    store = TellingStore()
    store.jobs["a"] = RUNNING
    for event in (Unavailable("the store cannot be reached"), Unavailable("the store cannot be reached"), DONE):
        store.events.put_nowait(event)
    async with promptly(), gateway(service_of(store)) as where, JobClient(where) as jobs:
        assert [event async for event in jobs.watch("a")] == [RUNNING, DONE]


async def test_a_job_that_ends_while_nobody_tells_is_told_as_over() -> None:
    store = TellingStore()
    store.jobs["a"] = RUNNING
    store.events.put_nowait(Unavailable("the store cannot be reached"))
    async with (
        promptly(),
        gateway(service_of(store)) as where,
        JobClient(where) as jobs,
        aclosing(jobs.watch("a")) as events,
    ):
        assert await anext(events) == RUNNING
        store.jobs["a"] = DONE
        assert await anext(events) == DONE
        assert await anext(events, None) is None
