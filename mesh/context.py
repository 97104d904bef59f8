"""`Context`: what travels beside the tensors of one request, and the `Clock` it is measured by.

A deadline is one absolute instant for the whole request: a graph of five nodes with 100 ms has 100 ms, not five times
that. It crosses a link as the time that remains, because clocks of two hosts do not agree.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol, TypeVar

from mesh.errors import DeadlineExceeded, NodeFailed, RequestError
from mesh.tensors import Array

__all__ = [
    "SYSTEM_CLOCK",
    "BranchOutcome",
    "BranchState",
    "Clock",
    "Context",
    "Digests",
    "JoinOutcome",
    "NodeTiming",
    "Parameter",
    "SystemClock",
    "Timer",
    "cancel_requested",
    "new_request_id",
]

log = logging.getLogger("mesh.node")

Parameter = bool | int | float | str
"""A request parameter: one of the four scalar kinds of the Open Inference Protocol."""

Digests = dict[tuple[int, str], tuple[Array, dict[int, bytes]]]
"""By an array's identity and the kind of digest: the array, and by number the digests of its large rows."""

T = TypeVar("T")


class Timer(Protocol):
    """Something planned on a clock, as `asyncio.TimerHandle` is."""

    def cancel(self) -> None:
        """Forget it; harmless when it has already run."""
        ...


class Clock(Protocol):
    """Where time comes from; `mesh.testing.ManualClock` is the other one."""

    def now(self) -> float:
        """Seconds since some fixed instant; never goes back."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Run `callback` on the event loop once `now() >= when`."""
        ...


class SystemClock:
    """The monotonic clock of the machine, with timers of the running event loop."""

    def now(self) -> float:
        """Seconds, from `time.monotonic`."""
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Run `callback` on the running event loop once `now() >= when`."""
        return asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), callback)


SYSTEM_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTiming:
    """Where one node's share of a request went. All durations in seconds."""

    node: str
    worker: str = ""
    """The worker that ran it; empty in a mesh without workers."""
    pid: int = 0
    """The operating system's process id of that worker."""
    rows: int = 0
    queue_s: float = 0.0
    """Waiting in the node's own layers: admission and batching."""
    compute_s: float = 0.0
    """Inside the node's verb (for a row that shared a batch: the whole batch's time)."""
    wire_s: float = 0.0
    """Between the caller and the worker, both ways: zero where the node ran in the caller's process."""


class BranchState(Enum):
    """What a branch of a join had given when the join ran."""

    ANSWERED = "answered"
    FAILED = "failed"
    LATE = "late"
    """Nothing yet, or nothing in time: the join ran without it."""
    WITHOUT_ROWS = "without rows"
    """An answer without rows: its conditions let none of the join's through."""


@dataclass(frozen=True, slots=True)
class BranchOutcome:
    """What became of one branch of a join."""

    branch: str
    state: BranchState
    rows: int = 0
    """Rows that it gave to the join."""
    error: RequestError | None = None
    """Why it gave nothing, where it failed or was late."""


@dataclass(frozen=True, slots=True)
class JoinOutcome:
    """Who answered in one join."""

    node: str
    branches: tuple[BranchOutcome, ...]
    """Every branch, in the order of the file."""

    @property
    def partial(self) -> bool:
        """Whether some branch failed or was late."""
        return any(branch.error is not None for branch in self.branches)


# One random prefix a process and a counter: unique without asking the operating system for every request.
_PREFIX = os.urandom(6).hex()
_COUNTER = itertools.count(1)


def new_request_id() -> str:
    """A request id that no other process of this mesh makes."""
    return f"{_PREFIX}-{next(_COUNTER):x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a handler knows of the request besides its tensors."""

    request_id: str = field(default_factory=new_request_id)
    deadline: float | None = None
    """Instant on `clock` by which the answer must be there; None where nobody set one."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    """What the caller sent beside the tensors."""
    timings: list[NodeTiming] | None = None
    """Filled by the nodes as they finish, where the caller asked for a report; else None."""
    joins: list[JoinOutcome] | None = None
    """Filled by joins as they run: those that some branch failed in or was late for, and where the caller asked for a
    report, all. None where nobody looks."""
    partial: bool = False
    """Whether somebody has a use for what other rows gave where one fails: a layer that keeps rows, or that put
    several requests together (see `mesh.partial`). It does not cross a link."""
    digests: Digests | None = field(default=None, compare=False, repr=False)
    """What has been digested for the keys of one cache and may serve for those of the next, while the request runs;
    None where there is but one. It does not cross a link."""
    clock: Clock = SYSTEM_CLOCK

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, below zero when it has passed; None where there is no deadline."""
        return None if self.deadline is None else self.deadline - self.clock.now()

    def check_deadline(self) -> None:
        """Refuse to start work whose time has run out.

        Raises:
            DeadlineExceeded: The deadline has passed.
        """
        if self.deadline is not None and self.clock.now() >= self.deadline:
            raise self._not_begun()

    def _not_begun(self) -> DeadlineExceeded:
        return DeadlineExceeded("the deadline passed before the work began", request_id=self.request_id)

    def within(self, seconds: float) -> Context:
        """The same request with at most `seconds` left."""
        latest = self.clock.now() + seconds
        if self.deadline is not None and self.deadline <= latest:
            return self
        return replace(self, deadline=latest)

    async def run(self, work: Awaitable[T]) -> T:
        """Await `work`, but no longer than the deadline. Work whose time has run out already is not begun.

        Raises:
            DeadlineExceeded: The deadline passed first; `work` was cancelled, and whatever it ended in was dropped.
        """
        if self.deadline is None:
            return await work
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - an await outside any task has nobody to cancel
            return await work
        if self.clock.now() >= self.deadline:
            if isinstance(work, Coroutine):
                work.close()
            raise self._not_begun()
        before = task.cancelling()
        steps = work.__await__()
        try:
            waits_for = steps.send(None)
        except StopIteration as ready:
            # The common case of an answer that is there: no timer.
            return ready.value
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        timer = self.clock.call_at(self.deadline, expire)
        try:
            result = await _rest(steps, waits_for)
        except (asyncio.CancelledError, Exception):
            # Ours alone: a caller's own cancellation that came as well must go on up.
            if expired and task.uncancel() <= before:
                raise DeadlineExceeded("the deadline passed", request_id=self.request_id) from None
            raise
        finally:
            timer.cancel()
            del waits_for  # an error in it knows this frame, by its traceback: no cycle is left behind
        if expired and task.uncancel() <= before:
            # The answer and the deadline met in the same turn of the loop: the answer is late.
            raise DeadlineExceeded("the deadline passed", request_id=self.request_id)
        return result

    def explain(self, error: BaseException, *, node: str = "") -> None:
        """Make of what left a handler what its caller may see. Called in an `except`, before its `raise`.

        A request error is told its node and request where it does not know them. A cancellation stays one if somebody
        asked for it.

        Raises:
            NodeFailed: Anything else. The cause goes to the log; the caller is told only its kind.
        """
        if isinstance(error, RequestError):
            error.locate(node=node, request_id=self.request_id)
            return
        if isinstance(error, asyncio.CancelledError):
            if cancel_requested():
                return
        elif not isinstance(error, Exception):
            return
        log.error("node %s failed on request %s", node or "?", self.request_id, exc_info=error)
        text = f"the node raised {type(error).__name__}; the worker's log has the cause"
        raise NodeFailed(text, node=node, request_id=self.request_id) from error


@types.coroutine
def _rest(steps: Generator[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """What is left of some work that has begun, and waits for something: to be awaited in its place."""
    while True:
        try:
            yield waits_for
        except BaseException as error:
            del waits_for
            try:
                waits_for = steps.throw(error)
            except StopIteration as finished:
                return finished.value
        else:
            del waits_for
            return (yield from steps)


def cancel_requested() -> bool:
    """Whether somebody asked the current task to stop.

    A `CancelledError` that nobody asked for (a future that was cancelled elsewhere, say) is a failure like any other:
    passed on, it would leave a caller without an answer.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
