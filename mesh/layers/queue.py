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
_LEAST_HINT_S = 0.001
"""The hint while no call has ended yet."""


class Queue(BaseModel):
    """Take on at most `max_rows` rows at once.

    Raises, when called through: Overloaded when the bound is reached (`reject`), or when as many requests already wait
    for room as may (`wait`); InvalidInput for a single request of more rows than could ever fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Most rows taken on and not answered yet. A request without rows counts as one."""
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
        rows = request.rows or 1
        if rows > self._settings.max_rows:
            text = f"{rows} rows in one request where the queue holds {self._settings.max_rows}"
            raise InvalidInput(text, request_id=context.request_id)
        if self._waiting or self._rows + rows > self._settings.max_rows:
            await self._wait(rows, context)
        else:
            self._rows += rows
        started = context.clock.now()
        try:
            return await self._handler(request, context)
        finally:
            took_s = context.clock.now() - started
            self._call_s += (_SMOOTHING if self._call_s else 1.0) * (took_s - self._call_s)
            self._rows -= rows
            self._admit()

    async def _wait(self, rows: int, context: Context) -> None:
        """Return once `rows` have been counted in."""
        if self._settings.when_full == "reject" or len(self._waiting) >= self._settings.max_waiting:
            text = f"the queue holds {self._rows} of {self._settings.max_rows} rows and takes no {rows} more"
            hint_s = max(self._call_s, _LEAST_HINT_S)
            raise Overloaded(text, retry_after_s=hint_s, request_id=context.request_id)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (rows, turn)
        self._waiting.append(entry)
        try:
            await context.run(turn)
        except BaseException:
            if not turn.cancel() and not turn.cancelled():
                # Let in and gone in the same turn of the loop: the room goes to the next one.
                self._rows -= rows
            elif entry in self._waiting:
                self._waiting.remove(entry)
            self._admit()
            raise

    def _admit(self) -> None:
        """Let in those that wait, in their order, for as long as there is room."""
        while self._waiting:
            rows, turn = self._waiting[0]
            if not turn.done():
                if self._rows + rows > self._settings.max_rows:
                    return
                self._rows += rows
                turn.set_result(None)
            self._waiting.popleft()  # let in now, or gone before
