"""`batch: {max_rows: 32, max_delay: 0ms}`: dynamic batching, by rows.

A request that finds the node idle runs at once and alone. Those that arrive meanwhile wait, and when the node becomes
free they run together: as many as fit into `max_rows`, in the order of their arrival. So a batch grows with the load
and costs an idle mesh nothing. `max_delay` makes an idle node wait for company; it is zero unless asked for.

Only requests with the same tensors (names, datatypes, shapes past axis 0) and parameters share a batch. Rows are split
exactly as they were joined. When a batch fails for what it holds, its halves are tried apart until each bad request has
failed by itself. A caller that goes away leaves the batch; a batch that all callers left is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mesh.context import Context, Timer
from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed, RequestError
from mesh.handler import Handler
from mesh.tensors import Tensors, concatenate
from mesh.units import Duration

__all__ = ["Batch"]


class Batch(BaseModel):
    """Run waiting requests together.

    Raises, when called through: DeadlineExceeded for a request whose time ran out before its batch began; otherwise
    what the node raises for that request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Most rows the node is given at once. A larger request is given to it in pieces."""
    max_delay_s: Annotated[Duration, Field(ge=0, le=60, alias="max_delay")] = 0.0
    """How long an idle node waits for more rows, from the arrival of the first."""
    max_concurrent: Annotated[int, Field(ge=1, le=64)] = 1
    """Batches that the node works on at once."""

    def __call__(self, handler: Handler[Tensors], /) -> Handler[Tensors]:
        return _Batching(self, handler)


Key = tuple[object, ...]


@dataclass(slots=True, eq=False)
class _Member:
    """One caller's place in a batch."""

    request: Tensors
    context: Context
    rows: int
    key: Key
    answer: asyncio.Future[Tensors]


@dataclass(slots=True, eq=False)
class _Running:
    """A batch that the node works on, and how many of its callers are still there."""

    members: list[_Member]
    task: asyncio.Task[None] | None = None
    gone: int = 0


class _Batching:
    def __init__(self, settings: Batch, handler: Handler[Tensors]) -> None:
        self._settings = settings
        self._handler = handler
        self._waiting: deque[_Member] = deque()
        self._running = 0
        self._timer: Timer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        rows = request.rows
        if rows > self._settings.max_rows:
            return await self._in_pieces(request, rows, context)
        if self._idle() and self._settings.max_delay_s == 0:
            # The common case of a quiet mesh: no task, no future.
            self._running += 1
            try:
                return await self._handler(request, context)
            finally:
                self._free()
        return await self._join(request, rows, context)

    async def _in_pieces(self, request: Tensors, rows: int, context: Context) -> Tensors:
        step = self._settings.max_rows
        pieces = [request.take(start, min(start + step, rows)) for start in range(0, rows, step)]
        return concatenate([await self(piece, context) for piece in pieces])

    async def _join(self, request: Tensors, rows: int, context: Context) -> Tensors:
        answer: asyncio.Future[Tensors] = asyncio.get_running_loop().create_future()
        member = _Member(request, context, rows, _key(request, context), answer)
        self._waiting.append(member)
        self._consider(context)
        try:
            return await answer
        finally:
            # Cancelled while it waited: it must not take up room in a batch. (Cancelled while it ran: see _watch.)
            if answer.cancelled() and member in self._waiting:
                self._waiting.remove(member)

    def _idle(self) -> bool:
        return self._running < self._settings.max_concurrent and not self._waiting

    def _free(self) -> None:
        self._running -= 1
        if self._waiting:
            self._consider(self._waiting[0].context)

    def _consider(self, context: Context) -> None:
        """Start batches for as long as the node has room: full ones at once, others when `max_delay` is over."""
        while self._waiting and self._running < self._settings.max_concurrent:
            delay_s = self._settings.max_delay_s
            full = sum(member.rows for member in self._waiting) >= self._settings.max_rows
            if delay_s and not full:
                if self._timer is None:
                    self._timer = context.clock.call_at(context.clock.now() + delay_s, self._delay_over)
                return
            self._start()

    def _delay_over(self) -> None:
        self._timer = None
        if self._waiting and self._running < self._settings.max_concurrent:
            self._start()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        members = self._take()
        if not members:
            return
        self._running += 1
        running = _Running(members)
        running.task = asyncio.get_running_loop().create_task(self._run(running))
        self._tasks.add(running.task)
        running.task.add_done_callback(self._tasks.discard)
        for member in members:
            member.answer.add_done_callback(lambda answer: _watch(answer, running))

    def _take(self) -> list[_Member]:
        """The waiting requests that go together with the first, in order, up to `max_rows`."""
        taken: list[_Member] = []
        left: deque[_Member] = deque()
        rows = 0
        while self._waiting:
            member = self._waiting.popleft()
            if member.answer.done():
                continue
            remaining_s = member.context.remaining_s()
            if remaining_s is not None and remaining_s <= 0:
                late = DeadlineExceeded("the deadline passed", request_id=member.context.request_id)
                member.answer.set_exception(late)
            elif taken and (member.key != taken[0].key or rows + member.rows > self._settings.max_rows):
                left.append(member)
                if rows + member.rows > self._settings.max_rows and member.key == taken[0].key:
                    break  # those behind it must not overtake it
            else:
                taken.append(member)
                rows += member.rows
        left.extend(self._waiting)
        self._waiting = left
        return taken

    async def _run(self, running: _Running) -> None:
        try:
            await self._attempt(running.members)
        except asyncio.CancelledError:
            for member in running.members:
                member.answer.cancel()
            raise
        finally:
            self._free()

    async def _attempt(self, members: list[_Member]) -> None:
        """Run some requests as one; where that fails for what they hold, run halves of them."""
        context = _joined(members)
        try:
            outputs = await self._handler(concatenate([member.request for member in members]), context)
        except RequestError as error:
            members = [member for member in members if not member.answer.done()]
            if len(members) > 1 and isinstance(error, InvalidInput | NodeFailed):
                middle = len(members) // 2
                await self._attempt(members[:middle])
                await self._attempt(members[middle:])
                return
            for member in members:
                member.answer.set_exception(_own(error, member))
            return
        start = 0
        for member in members:
            stop = start + member.rows
            if not member.answer.done():
                if member.context.timings is not None:
                    shared = context.timings or ()
                    member.context.timings.extend(replace(timing, rows=member.rows) for timing in shared)
                member.answer.set_result(outputs.take(start, stop))
            start = stop


def _key(request: Tensors, context: Context) -> Key:
    shapes = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(request.items()))
    return (shapes, tuple(sorted(context.parameters.items())) if context.parameters else ())


def _joined(members: list[_Member]) -> Context:
    """The context of several requests together: as long as the most patient of them will wait."""
    first = members[0].context
    if len(members) == 1:
        return replace(first, timings=[] if first.timings is not None else None)
    deadlines = [member.context.deadline for member in members]
    return Context(
        deadline=None if None in deadlines else max(deadline for deadline in deadlines if deadline is not None),
        parameters=first.parameters,
        timings=[] if any(member.context.timings is not None for member in members) else None,
        clock=first.clock,
    )


def _own(error: RequestError, member: _Member) -> RequestError:
    """The error as this request's own: several callers must not share one exception, nor read another's request id."""
    made = type(error).__new__(type(error))
    made.__dict__.update(error.__dict__)
    made.args = error.args
    made.request_id = member.context.request_id
    return made


def _watch(answer: asyncio.Future[Tensors], running: _Running) -> None:
    """Count a caller that left; the last one out cancels the batch."""
    if answer.cancelled():
        running.gone += 1
        if running.gone == len(running.members) and running.task is not None:
            running.task.cancel()
