"""`Coming`: the requests of a shard, as a thread reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

from mesh.batches.convert import Converted
from mesh.batches.inputs import RowsRead
from mesh.batches.pausing import to_the_end

__all__ = ["Coming", "Request"]

Request = tuple[RowsRead, Converted]
"""Some rows, and what they make."""


class Coming:
    """Requests that are read one after another, some of them before anybody waits for them.

    Whoever reads goes from one to the next without the event loop, as long as there is one to read.

    Args:
        reader: One thread.
        requests: What it reads; nobody else does.
    """

    def __init__(self, reader: ThreadPoolExecutor, requests: Generator[Request]) -> None:
        self._reader = reader
        self._requests = requests
        self._ahead: deque[Future[Request | None]] = deque()

    @property
    def ahead(self) -> int:
        """How many are read, or will be, and were not taken yet."""
        return len(self._ahead)

    def ask(self) -> None:
        """Have one more read."""
        self._ahead.append(self._reader.submit(next, self._requests, None))

    async def take(self) -> Request | None:
        """The next of those that were asked for; None behind the last there is.

        Raises:
            OSError: The system cannot read.
            SetupError: The input is not what it was.
        """
        return await asyncio.wrap_future(self._ahead.popleft())

    async def close(self) -> None:
        """Read no more."""
        for one in self._ahead:
            one.cancel()
        await to_the_end(asyncio.wrap_future(self._reader.submit(self._requests.close)))
