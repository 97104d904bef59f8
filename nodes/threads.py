"""Worker threads that a node owns: started when it loads, joined when it unloads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mesh import SetupError, Unavailable

__all__ = ["MAX_THREADS", "Threads", "check_threads"]

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
