"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

__all__ = ["ManualClock", "settle"]

_TURNS = 50
"""Turns of the event loop after which a chain of awaits that wait for nothing outside is taken to be done."""


class _ManualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def run(self) -> None:
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A `mesh.context.Clock` for tests: no test sleeps, and every delay is exact."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _ManualTimer]] = []

    def now(self) -> float:
        """Seconds, as far as the test has moved it."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], object]) -> _ManualTimer:
        """Run `callback` when `advance` reaches `when`; in the next turn of the event loop if it has come already."""
        timer = _ManualTimer(callback)
        if when <= self._now:
            asyncio.get_running_loop().call_soon(timer.run)
        else:
            heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    @property
    def planned(self) -> int:
        """Timers that have neither run nor been cancelled: what code under test has left behind."""
        return sum(timer.callback is not None for _, _, timer in self._timers)

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`, running each due timer at its own instant and letting tasks settle after it."""
        target = self._now + seconds
        await settle()
        while self._timers and self._timers[0][0] <= target:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._now = max(self._now, when)
                timer.run()
                await settle()
        self._now = target
        await settle()


async def settle(turns: int = _TURNS) -> None:
    """Give every ready task `turns` turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
