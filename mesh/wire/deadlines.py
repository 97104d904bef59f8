"""`Deadlines`: the deadlines of a channel's calls behind one timer of the event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

__all__ = ["Deadlines", "Expiring"]

LEAST_S: Final = 0.001
"""Between two looks at all calls; also how late a call may hear of its deadline beside what the loop adds."""


class Expiring(Protocol):
    """Something with a deadline."""

    @property
    def deadline(self) -> float | None:
        """Of `time.monotonic`."""
        ...

    def expire(self) -> None:
        """The deadline has passed."""
        ...


class Deadlines:
    """Almost every call ends long before its deadline, so none gets a timer of its own: to note one and to forget it
    costs a set two steps. The one timer stands at the earliest deadline that was noted since it last went off; it then
    looks at all that is left.

    Args:
        loop: The running loop.
    """

    __slots__ = ("_at", "_held", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held: set[Expiring] = set()
        self._at = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """How many are noted."""
        return len(self._held)

    def add(self, call: Expiring, deadline: float) -> None:
        """Note a deadline."""
        self._held.add(call)
        if deadline < self._at:
            self._arm(deadline, time.monotonic())

    def discard(self, call: Expiring) -> None:
        """Forget one."""
        self._held.discard(call)

    def close(self) -> None:
        """Forget all."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._at = float("inf")

    def _arm(self, deadline: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = deadline
        self._timer = self._loop.call_later(max(deadline - now, LEAST_S), self._look)

    def _look(self) -> None:
        self._timer = None
        self._at = float("inf")
        now = time.monotonic()
        due: list[Expiring] = []
        earliest = float("inf")
        for call in self._held:
            deadline = call.deadline
            if deadline is None or deadline <= now:
                due.append(call)
            elif deadline < earliest:
                earliest = deadline
        if earliest < self._at:
            self._arm(earliest, now)
        for call in due:
            self._held.discard(call)
            call.expire()
