"""Worker threads that a node owns: started when it loads, joined when it unloads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from mesh import SetupError, Unavailable

__all__ = ["MAX_THREADS", "Threaded", "Threads", "check_threads"]

T = TypeVar("T")

MAX_THREADS = 64
"""More threads than that in one node are a mistake of the file."""


def check_threads(count: int, argument: str) -> int:
    """`count`, where it is a sane number of threads.

    Raises:
        SetupError: It is below 1 or above `MAX_THREADS`.
    """
    if not 1 <= count <= MAX_THREADS:
        raise SetupError(f"{argument} is {count}: it has to be from 1 to {MAX_THREADS}")
    return count


class Threads:
    """At most `workers` calls at once; the others wait in order.

    The line has no bound of its own: it is as long as there are callers in flight, and those the layers in front of the
    node bound. A waiting call that is cancelled leaves the line.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread. Cancelling does not stop a call that has begun: what it gives is dropped.

        Raises:
            Unavailable: `close` came before the call had begun.
        """
        task = asyncio.current_task()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            raise Unavailable("the node is being unloaded") from None  # nobody cancelled the caller: `close` did

    async def close(self) -> None:
        """Drop the calls that wait, and return when the running ones have ended."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)


class Threaded:
    """Mixin of a node that works in threads of its own, which are there from load to unload.

    Args:
        workers: Calls worked on at once. Callers beyond that wait in order.
        name: What the threads are called.

    Raises:
        SetupError: `workers` is out of range.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._workers = check_threads(workers, "workers")
        self._name = name
        self._threads: Threads | None = None

    async def __aenter__(self) -> Self:
        """Load."""
        self._threads = Threads(self._workers, self._name)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Unload."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await threads.close()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread.

        Raises:
            RuntimeError: The node is not loaded.
            Unavailable: It was unloaded meanwhile.
        """
        if self._threads is None:
            raise RuntimeError("the node is not loaded: use `async with node:`")
        return await self._threads.run(work)
