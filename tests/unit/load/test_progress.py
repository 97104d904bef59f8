from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mesh.context import NodeTiming
from mesh.load import LoadPlan, Progress, Send, run_load
from mesh.load.arrivals import wait_until
from mesh.testing import ManualClock


def answering(clock: ManualClock, takes_s: float) -> Send:
    async def send(index: int) -> Sequence[NodeTiming]:
        await wait_until(clock, clock.now() + takes_s)
        return ()

    return send


async def test_progress_is_told_as_it_goes_and_at_the_end() -> None:
    clock, told = ManualClock(), list[Progress]()
    plan = LoadPlan(mode="constant", rate_per_s=10, duration_s=1, warm_up_s=1)
    run = asyncio.create_task(run_load(answering(clock, 0.25), plan, clock, told.append))
    await clock.advance(5)
    assert run.done()
    assert [progress.fraction for progress in told[:4]] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [progress.warming_up for progress in told[:6]] == [True, True, True, True, False, False]
    last = told[-1]
    assert (last.fraction, last.sent, last.answered, last.in_flight) == (1.0, 10, 10, 0)
    assert max(progress.in_flight for progress in told) == 3


async def test_progress_counts_requests_where_there_is_no_duration() -> None:
    clock, told = ManualClock(), list[Progress]()
    plan = LoadPlan(requests=10)
    run = asyncio.create_task(run_load(answering(clock, 0.1), plan, clock, told.append))
    await clock.advance(5)
    assert run.done()
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert 0.2 <= fractions[0] <= 0.3
    assert fractions[-1] == 1.0


async def test_progress_is_full_where_the_next_arrival_would_come_after_the_end() -> None:
    clock, told = ManualClock(), list[Progress]()
    plan = LoadPlan(mode="constant", rate_per_s=0.1, duration_s=5)
    run = asyncio.create_task(run_load(answering(clock, 1.0), plan, clock, told.append))
    await clock.advance(1)
    assert run.done()
    assert (told[-1].fraction, told[-1].answered) == (1.0, 1)


async def test_mistake_in_the_progress_display_ends_the_run_as_itself() -> None:
    clock = ManualClock()

    def broken(progress: Progress) -> None:
        raise ZeroDivisionError("a mistake in the display")

    plan = LoadPlan(requests=1_000)
    run = asyncio.create_task(run_load(answering(clock, 0.1), plan, clock, broken))
    await clock.advance(1)
    with pytest.raises(ZeroDivisionError, match="a mistake in the display"):
        run.result()
