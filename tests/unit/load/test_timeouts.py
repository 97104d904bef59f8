from __future__ import annotations

import asyncio
import contextlib

import pytest

from mesh.errors import DeadlineExceeded
from mesh.load.arrivals import wait_until
from mesh.load.timeouts import Timeouts
from mesh.testing import ManualClock


async def test_each_request_expires_at_its_own_instant() -> None:
    clock, ended = ManualClock(0), dict[int, float]()
    timeouts = Timeouts(clock, 10)

    async def request(index: int) -> None:
        await wait_until(clock, index)
        with contextlib.suppress(DeadlineExceeded):
            await timeouts.run(wait_until(clock, 8 if index == 0 else 100))
        ended[index] = clock.now()

    tasks = [asyncio.create_task(request(index)) for index in range(4)]
    await clock.advance(50)
    assert all(task.done() for task in tasks)
    assert ended == {0: 8, 1: 11, 2: 12, 3: 13}


async def test_timeout_leaves_the_task_as_if_it_had_never_been_cancelled() -> None:
    clock = ManualClock(0)
    timeouts = Timeouts(clock, 1)

    async def request() -> str:
        with pytest.raises(DeadlineExceeded):
            await timeouts.run(wait_until(clock, 100))
        await timeouts.run(wait_until(clock, 1.5))
        task = asyncio.current_task()
        assert task is not None
        return f"went on, {task.cancelling()} cancellations left"

    task = asyncio.create_task(request())
    await clock.advance(3)
    assert task.result() == "went on, 0 cancellations left"


async def test_task_whose_request_was_answered_is_left_alone() -> None:
    clock = ManualClock(0)
    timeouts = Timeouts(clock, 10)

    async def request() -> str:
        await timeouts.run(wait_until(clock, 1))
        await wait_until(clock, 50)
        return "went on"

    task = asyncio.create_task(request())
    await clock.advance(60)
    assert task.result() == "went on"


async def test_answer_that_comes_after_the_timeout_is_late() -> None:
    clock = ManualClock(0)
    timeouts = Timeouts(clock, 1)

    async def stubborn() -> str:
        try:
            await wait_until(clock, 100)
        except asyncio.CancelledError:
            return "an answer all the same"
        return "an answer in time"

    async def request() -> int:
        with pytest.raises(DeadlineExceeded):
            await timeouts.run(stubborn())
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    task = asyncio.create_task(request())
    await clock.advance(2)
    assert task.result() == 0


async def test_cancellation_from_outside_goes_on_up() -> None:
    clock = ManualClock(0)
    task = asyncio.create_task(Timeouts(clock, 10).run(wait_until(clock, 5)))
    await clock.advance(1)
    task.cancel()
    await clock.advance(1)
    assert task.cancelled()


async def test_cancellation_from_outside_wins_over_a_timeout_that_comes_as_well() -> None:
    clock = ManualClock(0)

    async def slow_to_stop() -> None:
        try:
            await wait_until(clock, 50)
        finally:
            await wait_until(clock, 12)

    task = asyncio.create_task(Timeouts(clock, 10).run(slow_to_stop()))
    await clock.advance(5)
    task.cancel()
    await clock.advance(4)
    assert not task.done()
    await clock.advance(1)
    assert task.cancelled()
