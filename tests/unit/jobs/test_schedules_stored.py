"""Schedules over a real store: records outlive it, and one worker of many claims what is due."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from mesh.jobs.schedules.firing import FiringState
from mesh.jobs.schedules.messages import decode_record
from mesh.jobs.schedules.scheduler import Scheduler, tell_schedules
from mesh.jobs.store.job_store import JobStore
from tests.harness.nats import Nats, nats_server, settings_of
from tests.unit.jobs.scheduled import HOUR, Batches, hourly


@pytest.fixture(scope="module")
def server() -> Generator[Nats]:
    with nats_server() as started:
        yield started


async def test_of_many_workers_that_look_at_once_one_claims_and_what_it_wrote_outlives_the_store(server: Nats) -> None:
    settings, schedule, batches, now = settings_of(server), hourly(), Batches(), 0.5
    async with JobStore(settings) as one, JobStore(settings) as other:
        workers = [Scheduler([schedule], store, batches, wall=lambda: now) for store in (one, other) * 4]

        async def looks() -> None:
            await asyncio.gather(*(worker.look(schedule) for worker in workers))

        await looks()
        for hour in (1, 2, 3):
            now = hour * HOUR + 1.0
            await looks()
            assert len(batches.begun) == hour
            batches.end()
            now += 60.0
            await looks()
    server.restart()
    async with JobStore(settings) as store:
        (found,) = await tell_schedules([schedule], store, now)
        stored = await store.read(schedule.document)
    assert [(run.due // HOUR, run.state, run.batch) for run in found.runs] == [
        (hour, FiringState.DONE, f"batch-{hour}") for hour in (3, 2, 1)
    ]
    assert stored is not None
    assert decode_record(stored[0]).handled == 3 * HOUR
