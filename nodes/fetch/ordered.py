"""Many pieces of work at once, with answers and failures as if they had been done in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

__all__ = ["in_order"]

T = TypeVar("T")
R = TypeVar("R")


async def in_order(work: Callable[[T], Awaitable[R]], items: Sequence[T], at_once: int) -> list[R]:
    """Do `work` on each item, at most `at_once` of them at a time.

    When one fails, those after it are cancelled and those before it are waited for; then the first failure, in the
    order of the items, is raised. So who fails first does not depend on who is fastest. Cancelled, it cancels all.
    """
    answers: dict[int, R] = {}
    failures: dict[int, BaseException] = {}
    running: dict[asyncio.Task[R], int] = {}
    begun = 0

    async def one(item: T) -> R:
        return await work(item)

    try:
        while True:
            while begun < len(items) and len(running) < at_once and not failures:
                running[asyncio.create_task(one(items[begun]))] = begun
                begun += 1
            if not running:
                break
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = running.pop(task)
                if task.cancelled():
                    continue
                failure = task.exception()
                if failure is None:
                    answers[index] = task.result()
                else:
                    failures[index] = failure
            for task, index in running.items():
                if failures and index > min(failures):
                    task.cancel()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if failures:
        raise failures[min(failures)]
    return [answers[index] for index in range(len(items))]
