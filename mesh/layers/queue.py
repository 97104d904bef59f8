"""`queue: {max_rows: 256, when_full: reject}`: a bound on the rows that a node has taken on.

Put outside a batch it bounds those that wait and those that run together. It counts rows, because rows are what costs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mesh.context import Context
from mesh.errors import InvalidInput, Overloaded
from mesh.handler import Handler
from mesh.tensors import Tensors

__all__ = ["Queue"]

_SMOOTHING = 0.2
"""Weight of the newest call in the moving average behind `retry_after_s`."""


class Queue(BaseModel):
    """Take on at most `max_rows` rows at once.

    Raises, when called through: Overloaded when the bound is reached (`reject`), or when as many requests already wait
    for room as may (`wait`); InvalidInput for a single request of more rows than could ever fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Most rows taken on and not answered yet."""
    when_full: Literal["reject", "wait"] = "reject"
    """Refuse at once with a hint when to come back, or wait for room until the deadline, first come first served."""
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Most requests that wait for room; only with `wait`."""

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        return _Admission(self, handler)


class _Admission:
    def __init__(self, settings: Queue, handler: Handler[Tensors]) -> None:
        self._settings = settings
        self._handler = handler
        self._rows = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._call_s = 0.0

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        rows = request.rows
        if rows > self._settings.max_rows:
            raise InvalidInput(f"{rows} rows in one request where the queue holds {self._settings.max_rows}")
        if self._waiting or self._rows + rows > self._settings.max_rows:
            await self._wait(rows, context)
        else:
            self._rows += rows
        started = context.clock.now()
        try:
            return await self._handler(request, context)
        finally:
            self._call_s += _SMOOTHING * (context.clock.now() - started - self._call_s)
            self._leave(rows)

    async def _wait(self, rows: int, context: Context) -> None:
        if self._settings.when_full == "reject" or len(self._waiting) >= self._settings.max_waiting:
            text = f"the queue holds {self._rows} of {self._settings.max_rows} rows and takes no {rows} more"
            raise Overloaded(text, retry_after_s=self._call_s)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (rows, turn)
        self._waiting.append(entry)
        try:
            await context.run(turn)
        except BaseException:
            if turn.done() and not turn.cancelled():
                # Let in and gone in the same turn of the loop: the room goes to the next one.
                self._leave(rows)
            else:
                self._waiting.remove(entry)
                self._admit()
            raise

    def _leave(self, rows: int) -> None:
        self._rows -= rows
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._rows + self._waiting[0][0] <= self._settings.max_rows:
            rows, turn = self._waiting.popleft()
            self._rows += rows
            turn.set_result(None)
