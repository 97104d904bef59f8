"""`batch: {max_rows: 32, max_delay: 0ms}`: dynamic batching, by rows.

A request that finds the node idle runs at once and alone. Those that arrive meanwhile wait, and when the node becomes
free they run together: as many as fit into `max_rows`, in the order of their arrival. So a batch grows with the load
and costs an idle mesh nothing. `max_delay` makes an idle node wait for company; it is zero unless asked for.

Only requests with the same tensors (names, datatypes, shapes past axis 0) and parameters share a batch. Rows are split
exactly as they were joined. When a batch fails for what it holds, its halves are tried apart until each bad request has
failed by itself; a node that says what became of the other rows (see `mesh.partial`) is not asked for those again. A
caller that goes away leaves the batch; a batch that all callers left is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field

from mesh.context import Context, NodeTiming, Timer
from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed, RequestError
from mesh.handler import Handler
from mesh.partial import Partial, failed_after, rows_failed, take_partial
from mesh.tensors import Tensors, concatenate
from mesh.units import Duration

__all__ = ["Batch"]


class Batch(BaseModel):
    """Run waiting requests together.

    Raises, when called through: DeadlineExceeded for a request whose time ran out before its batch began; otherwise
    what the node raises for that request. A row in an error counts from the caller's own first row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Most rows the node is given at once. A larger request is given to it in pieces."""
    max_delay_s: Annotated[Duration, Field(ge=0, le=60, alias="max_delay")] = 0.0
    """How long an idle node waits for more rows, from the arrival of the first; not once `max_rows` are waiting."""
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
    arrived: float
    """Instant on the context's clock; told only where there is a delay to count from it."""
    running: _Running | None = None
    """The batch that it went into."""


@dataclass(slots=True, eq=False)
class _Running:
    """A batch that the node works on, and how many of its callers have no answer yet."""

    members: list[_Member]
    left: int
    task: asyncio.Task[None] | None = None
    freed: bool = False
    """Whether the node was given to the next batch before this one's answers were handed out."""

    def leave(self) -> None:
        """One caller was answered or went away; the last one out cancels what still runs."""
        self.left -= 1
        if self.left == 0 and self.task is not None:
            self.task.cancel()


class _Batching:
    def __init__(self, settings: Batch, handler: Handler[Tensors]) -> None:
        self._settings = settings
        self._handler = handler
        self._waiting: deque[_Member] = deque()
        self._running = 0
        self._timer: Timer | None = None
        """Set for the first of those that wait, while the node is idle."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        rows = request.rows
        if rows > self._settings.max_rows:
            return await self._in_pieces(request, rows, context)
        context.check_deadline()
        if self._has_room() and not self._waiting and not self._settings.max_delay_s:
            # The common case of a quiet mesh: no task, no future.
            self._running += 1
            try:
                return await self._handler(request, context)
            finally:
                self._free()
        return await self._join(request, rows, context)

    async def _in_pieces(self, request: Tensors, rows: int, context: Context) -> Tensors:
        step = self._settings.max_rows
        answers: list[Tensors] = []
        for start in range(0, rows, step):
            try:
                answers.append(await self(request.take(start, min(start + step, rows)), context))
            except RequestError as error:
                raise failed_after(error, start, answers, context) from error.__cause__
        try:
            return concatenate(answers)
        except (KeyError, TypeError, ValueError):
            text = f"its answers to the pieces of a request of more than {step} rows do not fit together"
            raise NodeFailed(text, request_id=context.request_id) from None

    async def _join(self, request: Tensors, rows: int, context: Context) -> Tensors:
        answer: asyncio.Future[Tensors] = asyncio.get_running_loop().create_future()
        arrived = context.clock.now() if self._settings.max_delay_s else 0.0
        member = _Member(request, context, rows, _key(request, context), answer, arrived)
        self._waiting.append(member)
        if self._has_room():
            self._consider()
        try:
            return await answer
        finally:
            gone = answer.cancel() or answer.cancelled()
            running, member.running = member.running, None  # which knows its members: no cycle is left behind
            if running is not None:
                running.leave()
            elif gone:
                self._leave(member)
            del answer, member, running  # an error in them knows this frame, by its traceback

    def _leave(self, member: _Member) -> None:
        """Take a caller that went away out of those that wait."""
        if member not in self._waiting:
            return
        first = self._waiting[0] is member
        self._waiting.remove(member)
        if first:
            self._forget_timer()
            self._consider()

    def _has_room(self) -> bool:
        return self._running < self._settings.max_concurrent

    def _free(self) -> None:
        self._running -= 1
        self._consider()

    def _consider(self) -> None:
        """Start batches for as long as the node has room: full ones at once, others when `max_delay` is over."""
        while self._waiting and self._has_room():
            first = self._waiting[0]
            due = first.arrived + self._settings.max_delay_s
            if self._settings.max_delay_s and not self._full() and first.context.clock.now() < due:
                if self._timer is None:
                    self._timer = first.context.clock.call_at(due, partial(self._delay_over, first))
                return
            self._start()

    def _full(self) -> bool:
        return sum(member.rows for member in self._waiting) >= self._settings.max_rows

    def _delay_over(self, first: _Member) -> None:
        self._timer = None
        if self._waiting and self._waiting[0] is first and self._has_room():
            # Without another look at the clock: timers of some loops are a little early.
            self._start()
        self._consider()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._forget_timer()
        members = self._take()
        if not members:
            return
        self._running += 1
        running = _Running(members, len(members))
        running.task = asyncio.get_running_loop().create_task(self._run(running))
        self._tasks.add(running.task)
        running.task.add_done_callback(self._tasks.discard)
        for member in members:
            member.running = running

    def _take(self) -> list[_Member]:
        """The waiting requests that go together with the first, in order, up to `max_rows`."""
        taken: list[_Member] = []
        left: deque[_Member] = deque()
        rows = 0
        while self._waiting:
            member = self._waiting.popleft()
            if not _wanted(member):
                continue
            if taken and member.key != taken[0].key:
                left.append(member)
            elif rows + member.rows > self._settings.max_rows:
                left.append(member)
                break  # those behind it must not overtake it
            else:
                taken.append(member)
                rows += member.rows
        left.extend(self._waiting)
        self._waiting = left
        return taken

    async def _run(self, running: _Running) -> None:
        try:
            await self._attempt(running.members, running)
        finally:
            for member in running.members:
                member.answer.cancel()  # does nothing to those that have their answer
            if not running.freed:
                self._free()
            running.task = None  # whose end may know this frame

    async def _attempt(self, members: list[_Member], running: _Running | None = None) -> None:
        """Run some requests as one; where that fails for what they hold, run halves of them.

        A whole batch, with its `running`, gives the node to the next batch before it hands its answers out: handing out
        wakes every caller, and a model that runs in a thread need not wait for that.
        """
        context = _joined(members)
        rows = sum(member.rows for member in members)
        try:
            outputs = await self._handler(concatenate([member.request for member in members]), context)
            _check_rows(outputs, rows)
        except Exception as error:
            failed = _request_error(error, context)
        else:
            if running is not None and self._waiting:
                running.freed = True
                self._free()
                await asyncio.sleep(0)  # the turn in which that batch begins
            _share(outputs, members, context)
            return
        try:
            await self._failed(failed, members, rows, context)
        finally:
            del failed  # which knows this frame, by its traceback: no cycle is left behind

    async def _failed(self, failed: RequestError, members: list[_Member], rows: int, context: Context) -> None:
        partial = take_partial(failed)
        if partial is not None and partial.errors and partial.within(rows):
            if left := _share_in_part(partial, members, context):
                await self._attempt(left)
            return
        if len(members) > 1 and isinstance(failed, InvalidInput | NodeFailed):
            middle = len(members) // 2
            for half in (members[:middle], members[middle:]):
                if left := [member for member in half if _wanted(member)]:
                    await self._attempt(left)
            return
        for member in members:
            if not member.answer.done():
                member.answer.set_exception(_own(failed, member, alone=len(members) == 1))


def _key(request: Tensors, context: Context) -> Key:
    shapes = [(name, array.dtype, array.shape[1:]) for name, array in request.items()]
    if len(shapes) > 1:
        shapes.sort(key=itemgetter(0))
    if not context.parameters:
        return (tuple(shapes),)
    # With their types: 1 and True are equal, and not the same to a node.
    parameters = sorted((name, type(value), value) for name, value in context.parameters.items())
    return (tuple(shapes), *parameters)


def _wanted(member: _Member) -> bool:
    """Whether a request still has to be run; one whose time ran out is answered so."""
    if member.answer.done():
        return False
    remaining_s = member.context.remaining_s()
    if remaining_s is not None and remaining_s <= 0:
        member.answer.set_exception(DeadlineExceeded("the deadline passed", request_id=member.context.request_id))
        return False
    return True


def _joined(members: list[_Member]) -> Context:
    """The context of several requests together: as long as the most patient of them will wait."""
    first = members[0].context
    if len(members) == 1:
        return replace(first, timings=[] if first.timings is not None else None)
    deadlines = [member.context.deadline for member in members]
    return Context(
        deadline=None if None in deadlines else max(deadline for deadline in deadlines if deadline is not None),
        parameters=first.parameters,
        partial=True,
        timings=[] if any(member.context.timings is not None for member in members) else None,
        clock=first.clock,
    )


def _check_rows(outputs: Tensors, rows: int) -> None:
    """Hold an answer against the rows of its batch: with one too few, nobody could tell whose is whose."""
    for name, array in outputs.items() if outputs.sources is None else ():
        if array.shape[:1] != (rows,):
            raise NodeFailed(f"gave a tensor {name!r} of shape {list(array.shape)} for {rows} rows", tensor=name)


def _share(outputs: Tensors, members: list[_Member], context: Context) -> None:
    """Give each caller its own rows of an answer, and the report if it asked for one."""
    start = 0
    for member in members:
        stop = start + member.rows
        if not member.answer.done():
            if member.context.timings is not None:
                _tell_timings(member.context.timings, member.rows, context)
            member.answer.set_result(outputs.take(start, stop))
        start = stop


def _share_in_part(partial: Partial, members: list[_Member], context: Context) -> list[_Member]:
    """Give each caller its own rows, or its own error; returns those of whose rows not all became something.

    There are fewer of them each time: a row failed, and it is somebody's.
    """
    start = 0
    left: list[_Member] = []
    for member in members:
        stop = start + member.rows
        own = partial.part(start, stop)
        start = stop
        if member.answer.done():
            continue
        if own.errors:
            error = rows_failed(own.errors, own.rows, own.answer, member.context)
            error.request_id = member.context.request_id
            member.answer.set_exception(error)
        elif len(own.rows) == member.rows:
            if member.context.timings is not None:
                _tell_timings(member.context.timings, member.rows, context)
            member.answer.set_result(own.answer)
        elif _wanted(member):
            left.append(member)
    return left


def _tell_timings(timings: list[NodeTiming], rows: int, context: Context) -> None:
    timings.extend(replace(timing, rows=rows) for timing in context.timings or ())


def _request_error(error: Exception, context: Context) -> RequestError:
    try:
        context.explain(error)
    except NodeFailed as foreign:
        return foreign
    return cast("RequestError", error)


def _own(error: RequestError, member: _Member, *, alone: bool) -> RequestError:
    """The error as this request's own: several callers must not share one exception, nor read another's request id."""
    made = copy(error)
    made.request_id = member.context.request_id
    if not alone:
        made.row = None  # it counts the rows of the batch
    return made
