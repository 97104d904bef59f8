"""`StepTask`: a task that takes its first step at once.

`asyncio.create_task` schedules: a loop turn passes before the coroutine begins, and another before anybody hears of its
end. A handler that has its answer without waiting needs neither. A `StepTask` runs its coroutine as soon as it is
started, in place; only when that really waits does it behave as any task does. (Python 3.12 has eager tasks for this;
3.11 does not.)

It follows the protocol that asyncio documents for tasks of third parties
(https://docs.python.org/3/library/asyncio-extending.html#task-lifetime-support), so `asyncio.current_task`,
`asyncio.timeout` and `asyncio.TaskGroup` work inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

__all__ = ["StepTask"]

# Documented, though their names begin with an underscore: see the page above.
_register_task: Callable[[Any], None] = asyncio._register_task  # pyright: ignore
_unregister_task: Callable[[Any], None] = asyncio._unregister_task  # pyright: ignore
_enter_task: Callable[[Any, Any], None] = asyncio._enter_task  # pyright: ignore
_leave_task: Callable[[Any, Any], None] = asyncio._leave_task  # pyright: ignore

_begin_future: Callable[..., None] = asyncio.Future.__init__


class StepTask(asyncio.Future[Any]):
    """A future of a coroutine's result, which also drives the coroutine.

    Args:
        coroutine: Not begun yet.
        loop: The running loop.
    """

    __slots__ = ("_context", "_coroutine", "_event_loop")

    # One that never waits never changes these.
    _waits_for: asyncio.Future[Any] | None = None
    _must_cancel: bool = False
    _cancel_requests: int = 0
    _registered: bool = False

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        _begin_future(self, loop=loop)
        self._coroutine = coroutine
        self._event_loop = loop
        self._context = copy_context()

    def start(self) -> bool:
        """Take the first step, now; says whether it was the last. Must not be called from inside another task."""
        # Later steps come from callbacks, which the loop runs in this context by itself.
        loop = self._event_loop
        _enter_task(loop, self)
        try:
            waits_for = self._context.run(self._coroutine.send, None)
        except StopIteration as finished:
            if self._must_cancel:
                super().cancel()
            else:
                self.set_result(finished.value)
            return True
        except BaseException as failed:
            self._fail(failed)
            return True
        else:
            self._wait(waits_for)
        finally:
            _leave_task(loop, self)
        _register_task(self)
        self._registered = True
        return False

    def get_coro(self) -> Coroutine[Any, Any, Any]:
        """The coroutine, as `asyncio.Task.get_coro`."""
        return self._coroutine

    def get_name(self) -> str:
        """A name, as `asyncio.Task.get_name`."""
        return getattr(self._coroutine, "__qualname__", "step")

    def get_context(self) -> Context:
        """The context that the coroutine runs in, as `asyncio.Task.get_context`."""
        return self._context

    def cancelling(self) -> int:
        """How often it was asked to cancel, as `asyncio.Task.cancelling`."""
        return self._cancel_requests

    def uncancel(self) -> int:
        """Take one request to cancel back, as `asyncio.Task.uncancel`."""
        if self._cancel_requests > 0:
            self._cancel_requests -= 1
        return self._cancel_requests

    def cancel(self, msg: Any = None) -> bool:
        """Throw CancelledError into the coroutine at its next step, as `asyncio.Task.cancel`."""
        if self.done():
            return False
        self._cancel_requests += 1
        if self._waits_for is not None and self._waits_for.cancel(msg=msg):
            return True
        self._must_cancel = True
        return True

    def _step(self, error: BaseException | None) -> None:
        if self.done():
            return
        if self._must_cancel:
            self._must_cancel = False
            if not isinstance(error, asyncio.CancelledError):
                error = asyncio.CancelledError()
        self._waits_for = None
        loop = self._event_loop
        _enter_task(loop, self)
        try:
            waits_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration as finished:
            if self._must_cancel:
                super().cancel()
            else:
                self.set_result(finished.value)
        except BaseException as failed:
            self._fail(failed)
        else:
            self._wait(waits_for)
        finally:
            _leave_task(loop, self)
            if self._registered and self.done():
                _unregister_task(self)

    def _fail(self, error: BaseException) -> None:
        """Called while it is handled."""
        if isinstance(error, asyncio.CancelledError):
            super().cancel()
            return
        self.set_exception(error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error

    def _wait(self, waits_for: Any) -> None:
        if waits_for is None:  # a bare yield, as asyncio.sleep(0) makes
            self._event_loop.call_soon(self._step, None, context=self._context)
        elif getattr(waits_for, "_asyncio_future_blocking", None) and waits_for is not self:
            waits_for._asyncio_future_blocking = False
            waits_for.add_done_callback(self._wake, context=self._context)
            self._waits_for = waits_for
            if self._must_cancel and waits_for.cancel():
                self._must_cancel = False
        else:
            wrong = RuntimeError(f"a handler awaited {waits_for!r}, which is nothing of asyncio's")
            self._event_loop.call_soon(self._step, wrong, context=self._context)

    def _wake(self, future: asyncio.Future[Any]) -> None:
        try:
            future.result()
        except BaseException as error:
            del future  # the error knows this frame, by its traceback: no cycle is left behind
            self._step(error)
        else:
            self._step(None)
