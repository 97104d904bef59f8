"""`limit: {max_concurrent: 8, max_wait: 50ms}`: how many calls are inside at once, and how long others wait outside.

`queue` bounds the rows that a node has taken on, those that wait in its batch included: it protects memory, and belongs
outside a batch. `limit` bounds calls at work, whatever their size: it protects what each call holds (a connection, a
thread, a licence, somebody else's service), and belongs right around that. It is also the one that knows a longest
wait: who would be answered too late to matter is told so while there is time to go elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mesh.context import Context
from mesh.errors import DeadlineExceeded, Overloaded
from mesh.handler import Handler
from mesh.tensors import Tensors
from mesh.units import Duration, format_duration

__all__ = ["Limit"]

_SMOOTHING = 0.2
"""Weight of the newest call in the moving average behind `retry_after_s`."""
_LEAST_HINT_S = 0.001
"""The hint while no call has ended yet."""


class Limit(BaseModel):
    """Let at most `max_concurrent` calls in at once; others wait in line, first come first served.

    Raises, when called through: Overloaded when the line is full, or when `max_wait` is over; its hint is about how
    long the line takes. DeadlineExceeded when the request's time runs out in line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    max_concurrent: Annotated[int, Field(ge=1, le=1_000_000)]
    """Most calls inside at once."""
    max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    """Most calls that wait for their turn; with 0 a call that finds no room is refused at once."""
    max_wait_s: Annotated[Duration, Field(gt=0, le=86400, alias="max_wait")] = 1.0
    """Longest that a call waits for its turn."""

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        return _Limiting(self, handler)


class _Limiting:
    def __init__(self, settings: Limit, handler: Handler[Tensors]) -> None:
        self._settings = settings
        self._handler = handler
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        """Those that wait, and some that have just gone. There are none while there is room."""
        self._call_s = 0.0

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        if self._inside < self._settings.max_concurrent:
            self._inside += 1
        else:
            await self._wait(context)
        clock = context.clock
        started = clock.now()
        try:
            return await self._handler(request, context)
        finally:
            took_s = clock.now() - started
            self._call_s += (_SMOOTHING if self._call_s else 1.0) * (took_s - self._call_s)
            self._leave()

    async def _wait(self, context: Context) -> None:
        """Return once a place inside is this call's own."""
        settings = self._settings
        if len(self._waiting) >= settings.max_waiting:
            waiting = f", and {settings.max_waiting} wait" if settings.max_waiting else ""
            raise self._refusal(f"{settings.max_concurrent} calls are at work{waiting}", context)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        waits = context.within(settings.max_wait_s)
        try:
            await waits.run(turn)
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave()  # let in and gone in the same turn of the loop
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, DeadlineExceeded) and waits is not context:
                text = f"no turn came within {format_duration(settings.max_wait_s)}"
                raise self._refusal(text, context) from None
            raise

    def _refusal(self, text: str, context: Context) -> Overloaded:
        """With a hint: how long those in line and one more take, by the calls of late."""
        line_s = self._call_s * (len(self._waiting) + 1) / self._settings.max_concurrent
        return Overloaded(text, retry_after_s=max(line_s, _LEAST_HINT_S), request_id=context.request_id)

    def _leave(self) -> None:
        """Give a place inside to the first in line that is still there, or to nobody."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._inside -= 1
