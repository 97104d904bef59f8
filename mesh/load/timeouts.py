"""One timeout for many requests, at the price of one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from mesh.context import Clock, Timer
from mesh.errors import DeadlineExceeded

__all__ = ["Timeouts"]

T = TypeVar("T")


class Timeouts:
    """Lets no request run longer than `timeout_s`.

    `Context.run` would do the same with a timer each, and made a request cost this tool 8.7 µs instead of 2.6. Requests
    with one common timeout expire in the order in which they began, so a single timer waits for the oldest.
    """

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._running: dict[asyncio.Task[object], float] = {}
        """Deadline by task, the oldest first; a task that is missing when its request ends has expired."""
        self._timer: Timer | None = None

    async def run(self, work: Awaitable[T]) -> T:
        """Await `work`, but no longer than the timeout.

        Raises:
            DeadlineExceeded: The timeout passed first; `work` was cancelled.
        """
        task = asyncio.current_task()
        assert task is not None, "a request is sent by a task"
        deadline = self._clock.now() + self._timeout_s
        self._running[task] = deadline
        if self._timer is None:
            self._timer = self._clock.call_at(deadline, self._expire)
        try:
            result = await work
        except asyncio.CancelledError:
            # Ours alone: another's cancellation that came as well must go on up.
            if task not in self._running and not task.uncancel():
                raise DeadlineExceeded("no answer within the load's own timeout") from None
            raise
        finally:
            expired = self._running.pop(task, None) is None
        if expired and not task.uncancel():
            # It would not be cancelled and answered: too late.
            raise DeadlineExceeded("no answer within the load's own timeout")
        return result

    def close(self) -> None:
        """Forget the timer; nothing is running any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.now()
        for task, deadline in list(self._running.items()):
            if deadline > now:
                self._timer = self._clock.call_at(deadline, self._expire)
                return
            del self._running[task]
            task.cancel()
