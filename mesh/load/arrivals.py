"""When requests are sent: the closed loop and the open loop.

A **closed loop** keeps so many requests in flight: a slow answer delays the next request, as a fixed crew of callers
would be delayed. An **open loop** sends at a rate whatever the answers do, as the public does.

In the open loop a latency counts from the instant at which the request was *intended* to be sent, not from when the
tool got round to it. Otherwise a tool that falls behind while the mesh stalls leaves out just those requests that would
have waited longest: "coordinated omission", named by Gil Tene, whose wrk2 measures in this way
(https://github.com/giltene/wrk2, "A note about wrk2's latency measurement technique"). For the same reason an arrival
that cannot be sent is counted as not sent, never sent later in silence.

Instants come from the schedule's start, never from the last send, so lateness does not add up.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Callable, Coroutine, Iterator
from enum import Enum

from mesh.context import Clock
from mesh.load.measure import Recorder
from mesh.load.plan import LoadPlan

__all__ = ["Attempt", "Phase", "Window", "closed_loop", "offsets", "open_loop", "wait_until"]

Attempt = Callable[[int, float, bool], Coroutine[object, object, None]]
"""Send request `index`, intended for instant `intended`, `measured` or not, and record how it ended."""

_UNBROKEN = 64
"""Requests that one loop sends before it gives way, in case none of them ever waits."""


class Phase(Enum):
    """What a request sent at some instant counts for."""

    WARM_UP = 1
    MEASURED = 2
    OVER = 3
    """It is not to be sent any more."""


class Window:
    """When measuring begins and when sending ends. Pure: it is told the instants, in order.

    Args:
        plan: Says how long, or how many.
        start: Instant of the run's start.
    """

    def __init__(self, plan: LoadPlan, start: float) -> None:
        self.start = start
        self.begins = math.inf if plan.warm_up_requests else start + plan.warm_up_s
        """Instant from which requests are measured; infinite until the warm-up's requests have been counted off."""
        self._duration_s = math.inf if plan.duration_s is None else plan.duration_s
        self.ends = self.begins + self._duration_s
        """Instant from which nothing is sent; infinite where only the number of requests says so."""
        self.closed: float | None = None
        """Instant at which sending ended; None while it has not."""
        self._warm_up = plan.warm_up_requests
        self._left: float = math.inf if plan.requests is None else plan.requests

    def admit(self, instant: float) -> Phase:
        """Decide about the next request, intended for `instant`."""
        if instant >= self.ends or not self._left:
            if self.closed is None:
                self.closed = min(instant, self.ends)
            return Phase.OVER
        if self._warm_up:
            self._warm_up -= 1
            return Phase.WARM_UP
        if self.begins == math.inf:
            self.begins = instant
            self.ends = instant + self._duration_s
        if instant < self.begins:
            return Phase.WARM_UP
        self._left -= 1
        return Phase.MEASURED


def offsets(plan: LoadPlan) -> Iterator[float]:
    """Seconds from the start at which an open loop's requests are intended, without end.

    Constant: 0, 1/rate, 2/rate. Poisson: gaps drawn from an exponential distribution, the same for the same seed.
    """
    assert plan.rate_per_s is not None, "a plan of an open loop has a rate"
    rate = plan.rate_per_s
    if plan.mode == "constant":
        return (index / rate for index in itertools.count())
    gap = random.Random(plan.seed).expovariate
    return itertools.accumulate(gap(rate) for _ in itertools.count())


async def wait_until(clock: Clock, instant: float) -> None:
    """Wait for an instant; gives way to others once even when it has passed."""
    if clock.now() >= instant:
        await asyncio.sleep(0)
        return
    reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_at(instant, lambda: reached.done() or reached.set_result(None))
    try:
        await reached
    finally:
        timer.cancel()


async def closed_loop(attempt: Attempt, plan: LoadPlan, window: Window, clock: Clock, record: Recorder) -> None:
    """Keep `plan.concurrency` requests in flight until the window closes; returns when all have ended."""
    indices = itertools.count()

    async def send_one_by_one() -> None:
        for turn in itertools.count(1):
            now = clock.now()
            phase = window.admit(now)
            if phase is Phase.OVER:
                return
            measured = phase is Phase.MEASURED
            record.send(measured=measured)
            await attempt(next(indices), now, measured)
            if not turn % _UNBROKEN:
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(plan.concurrency):
            group.create_task(send_one_by_one())


async def open_loop(attempt: Attempt, plan: LoadPlan, window: Window, clock: Clock, record: Recorder) -> None:
    """Send at the instants of the schedule until the window closes; returns when all have ended."""
    async with asyncio.TaskGroup() as group:
        for index, offset in enumerate(offsets(plan)):
            intended = window.start + offset
            phase = window.admit(intended)
            if phase is Phase.OVER:
                return
            await wait_until(clock, intended)
            measured = phase is Phase.MEASURED
            if record.in_flight >= plan.max_in_flight:
                record.not_sent_full += measured
            elif clock.now() - intended > plan.timeout_s:
                record.not_sent_late += measured
            else:
                record.send(measured=measured)
                group.create_task(attempt(index, intended, measured))
