"""`StepTask`: its first step in place, and after that a task like any other."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

import pytest

from mesh.wire.stepping import StepTask

Variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


async def started(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    """Start one from a callback, as a transport does: not from within a task."""
    loop = asyncio.get_running_loop()
    task = StepTask(coroutine, loop)
    begun = loop.create_future()
    loop.call_soon(lambda: begun.set_result(task.start()))
    await begun
    return task


async def test_what_does_not_wait_is_over_at_once() -> None:
    async def answer() -> int:
        return 42

    loop = asyncio.get_running_loop()
    over = loop.create_future()
    task = StepTask(answer(), loop)
    loop.call_soon(lambda: over.set_result((task.start(), task.done())))
    assert await over == (True, True)
    assert task.result() == 42
    assert task not in asyncio.all_tasks()


async def test_what_waits_goes_on_later_and_is_known_as_a_task_meanwhile() -> None:
    go_on = asyncio.Event()
    seen: list[Any] = []

    async def wait() -> str:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        await go_on.wait()
        seen.append(asyncio.current_task())
        return "done"

    task = await started(wait())
    assert not task.done()
    assert task in asyncio.all_tasks()
    go_on.set()
    assert await task == "done"
    assert seen == [task, task]
    assert task not in asyncio.all_tasks()


async def test_what_raises_raises_from_its_result() -> None:
    async def at_once() -> None:
        raise ValueError("now")

    async def later() -> int:
        await asyncio.sleep(0)
        return int("later")

    assert str((await started(at_once())).exception()) == "now"
    with pytest.raises(ValueError, match="'later'"):
        await (await started(later()))


@pytest.mark.parametrize("waits", ["for an event", "for a turn"])
async def test_it_can_be_cancelled(waits: str) -> None:
    cleaned = asyncio.Event()

    async def wait() -> None:
        try:
            while True:
                await (asyncio.Event().wait() if waits == "for an event" else asyncio.sleep(0))
        finally:
            cleaned.set()

    task = await started(wait())
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()
    assert task.cancelled()
    assert not task.cancel()


async def test_it_may_refuse_to_be_cancelled() -> None:
    go_on = asyncio.Event()

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task: Any = asyncio.current_task()
            assert task.cancelling() == 1
            assert task.uncancel() == 0
        await go_on.wait()
        return "after all"

    task = await started(stubborn())
    task.cancel()
    go_on.set()
    assert await task == "after all"


async def test_timeouts_groups_and_gathering_work_inside() -> None:
    async def inside() -> list[int]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(asyncio.sleep(0, 1))
        with pytest.raises(ExceptionGroup):
            await group_that_fails()
        return [first.result(), *await asyncio.gather(asyncio.sleep(0, 2), asyncio.sleep(0, 3))]

    async def failing() -> None:
        raise ValueError

    async def group_that_fails() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing())
            await asyncio.Event().wait()

    assert await (await started(inside())) == [1, 2, 3]


async def test_each_has_a_context_of_its_own() -> None:
    async def inside(value: str) -> str:
        before = Variable.get()
        Variable.set(value)
        await asyncio.sleep(0)
        return before + " " + Variable.get()

    tasks = [await started(inside(value)) for value in ("a", "b")]
    assert await asyncio.gather(*tasks) == ["outside a", "outside b"]
    assert Variable.get() == "outside"


async def test_what_is_nothing_of_asyncio_s_cannot_be_awaited() -> None:
    class Odd:
        def __await__(self) -> Any:
            yield "odd"

    async def wait() -> None:
        await Odd()

    with pytest.raises(RuntimeError, match="nothing of asyncio's"):
        await (await started(wait()))
