"""`JobWorker`: pulls jobs from the store and works on them, a bounded number at once.

Jobs that people wait for come first: those of high priority, of normal, of low, then shards of batches. Shards have
slots of their own: where a worker dies, what it had of a batch is done again, and that should be little. So have whole
batches, because whoever looks after one mostly waits for its shards, which would otherwise find no slot to run in.

What happens to a job whatever happens to its worker:

- The worker is killed, or cut off from the store: nobody extends the lease, and another worker takes the job over.
- It was cut off for a while, and is late: the store refuses its result, and another's stands.
- The store is gone for a while: the work goes on, and its result is kept here until the store takes it.
- The worker is told to stop: what it does not finish in time is given back, and taken by another at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mesh.context import SYSTEM_CLOCK, Clock
from mesh.errors import RequestError
from mesh.jobs.callbacks.targets import CallbackSettings
from mesh.jobs.callbacks.teller import Teller
from mesh.jobs.records import RUNS, Lane
from mesh.jobs.store.job_store import JobStore
from mesh.jobs.work.attempt import GraphRun
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.carrying import CUT_OFF_S, Carrier, TaskRunner, WorkPolicy
from mesh.jobs.work.counts import WorkCounter, WorkCounts
from mesh.jobs.work.pausing import ended, happens
from mesh.jobs.work.slots import Slots

__all__ = ["JobWorker", "WorkBounds"]

log = logging.getLogger("mesh.jobs")

T = TypeVar("T")

SWEEP_S = 60.0
"""How often what crashes left behind is looked for."""
LAST_S = 5.0
"""How long what is being given back, or handed in, may take once the time to finish is over."""
_AGAIN = Backoff(first_s=0.1, most_s=2.0)
"""Waits while the store cannot be reached, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkBounds:
    """How much a worker does at once."""

    concurrency: int = 4
    """Runs of the graph."""
    shards: int = 2
    """Parts of batches. One of them is run at a time; another one is begun at the store meanwhile, or ended."""
    batches: int = 16
    """Whole batches that it looks after."""
    callbacks: int = 8
    """Callbacks that are being told."""
    grace_s: float = 10.0
    """How long what is under way may take to finish, once the worker is told to stop."""
    poll_s: float = 1.0
    """How long one question for work waits at the store."""


class JobWorker:
    """One worker.

    Args:
        store: Where the jobs are; entered.
        run: The graph.
        name: The worker's name. The process is added to it, so that two lives of a worker can be told apart.
        bounds: How much it does at once.
        policy: How it goes about it.
        tasks: Who runs shards and batches, where it does.
        callbacks: Who may be told of a job's end; callbacks are left to other workers where it is None.
        clock: What durations are measured by.
        wall: The time of day.
        chance: Where the jitter of waits comes from.

    Raises:
        SetupError: Something that it needs is not installed.
    """

    def __init__(
        self,
        store: JobStore,
        run: GraphRun,
        *,
        name: str,
        bounds: WorkBounds | None = None,
        policy: WorkPolicy | None = None,
        tasks: Mapping[Lane, TaskRunner] | None = None,
        callbacks: CallbackSettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
        wall: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        tasks = tasks or {}
        self._store = store
        self._bounds = bounds or WorkBounds()
        self._clock = clock
        self._chance = chance or random.Random()
        self._counter = WorkCounter()
        self.name = f"{name}/{os.getpid()}"
        """As jobs tell of their attempts."""
        self._carry = Carrier(
            run,
            worker=self.name,
            attempts=store.settings.attempts,
            lease_s=store.settings.lease_s,
            policy=policy or WorkPolicy(),
            tasks=tasks,
            counter=self._counter,
            clock=clock,
            wall=wall,
            chance=self._chance,
        )
        self._tell: Teller | None = None
        if callbacks is not None:
            self._tell = Teller(callbacks, self._counter, clock=clock, wall=wall, chance=self._chance)
        self._changed = asyncio.Event()
        self._attempts = Slots(self._bounds.concurrency, self._changed)
        counts = {Lane.SHARD: self._bounds.shards, Lane.BATCH: self._bounds.batches}
        self._tasks = {lane: Slots(count, self._changed) for lane, count in counts.items() if lane in tasks}
        self._notices = Slots(self._bounds.callbacks, asyncio.Event())

    @property
    def counts(self) -> WorkCounts:
        """What it has done so far."""
        return self._counter.counts

    @property
    def in_flight(self) -> int:
        """Jobs that it has now."""
        return len(self._under_way())

    async def serve(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then take nothing more, finish what is under way for at most `grace_s`, and give
        the rest back. To be called once.

        Nothing that the store does ends it: it is asked again until it answers.
        """
        loops = [self._forever(self._pull, stop), self._forever(self._sweep, stop)]
        if self._tell is not None:
            loops.append(self._forever(self._pull_notices, stop))
        pulling = [asyncio.ensure_future(loop) for loop in loops]
        try:
            await stop.wait()
            await self._drain(pulling)
        finally:
            await _cut_off({*pulling, *self._under_way(), *self._notices.tasks})

    # Taking jobs.

    async def _forever(self, once: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
        """Do something again and again until it is time to stop; with waits in between while it cannot be done."""
        failures = 0
        while not stop.is_set():
            try:
                await once(stop)
                if failures:
                    log.warning("the store answers again")
                failures = 0
                continue
            except RequestError as error:
                if not failures:
                    log.warning("the store is asked again until it answers: %s", error)
            except Exception:
                log.exception("a job worker goes on after something that never should have happened")
            failures += 1
            await happens(stop, self._clock, _AGAIN.delay_s(failures, self._chance))

    async def _pull(self, stop: asyncio.Event) -> None:
        """Take as many jobs as there is room for, once there is room for any."""
        self._changed.clear()
        room, wait_s = self._attempts.free, self._bounds.poll_s
        others = tuple(lane for lane, slots in self._tasks.items() if slots.free)
        if not room and not others:
            await self._changed.wait()
            return
        lanes = (*RUNS, *others)
        if not room:
            # Nothing waits at the store meanwhile: a slot that gets free is to be filled at once.
            if await happens(self._changed, self._clock, wait_s):
                return
            room, wait_s, lanes = min(self._tasks[lane].free for lane in others), 0.0, others
        # As soon as there is room for what was not asked for, the question is another one.
        news = (stop,) if len(lanes) == len(RUNS) + len(self._tasks) else (stop, self._changed)
        for delivery in await _unless(self._store.take(lanes, room, wait_s), *news):
            slots = self._tasks.get(delivery.lane, self._attempts)
            if stop.is_set() or not slots.free:
                # More of one lane than there are slots for: somebody else may have one.
                await delivery.refuse()
            else:
                slots.start(self._carry(delivery))

    async def _pull_notices(self, stop: asyncio.Event) -> None:
        """Take as many callbacks as there is room for. One that is taken and not told is given to others later."""
        assert self._tell is not None
        self._notices.changed.clear()
        room = self._notices.free
        if not room:
            await self._notices.changed.wait()
            return
        for notice in await _unless(self._store.take_notices(room, self._bounds.poll_s), stop):
            if not stop.is_set():
                self._notices.start(self._tell(notice))

    async def _sweep(self, stop: asyncio.Event) -> None:
        # Anything around the minute, so that the workers of a mesh do not all look at once.
        if not await happens(stop, self._clock, SWEEP_S * (0.5 + self._chance.random())):
            await self._store.sweep()

    # Leaving.

    def _under_way(self) -> set[asyncio.Task[None]]:
        return self._attempts.tasks.union(*(slots.tasks for slots in self._tasks.values()))

    async def _drain(self, pulling: list[asyncio.Task[None]]) -> None:
        self._changed.set()
        self._notices.changed.set()
        # Whoever looks after a batch waits for shards that nobody takes here any more; another goes on where it stands.
        self._carry.leave((Lane.BATCH,))
        # What is pulling may have taken something just now, and gives it back.
        await ended({*pulling, *self._under_way(), *self._notices.tasks}, self._clock, self._bounds.grace_s)
        self._carry.leave()
        if not await ended({*pulling, *self._under_way()}, self._clock, LAST_S):
            log.warning("worker %s leaves %d jobs to their leases", self.name, len(self._under_way()))


async def _unless(taking: Coroutine[Any, Any, Sequence[T]], *news: asyncio.Event) -> Sequence[T]:
    """What the store has; nothing, as soon as there is news. What was taken by then is given back by who takes it."""
    task = asyncio.ensure_future(taking)
    others = [asyncio.ensure_future(event.wait()) for event in news]
    try:
        await asyncio.wait((task, *others), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for other in others:
            other.cancel()
        task.cancel()
        await asyncio.wait((task,))
    return () if task.cancelled() else task.result()


async def _cut_off(tasks: set[asyncio.Task[None]]) -> None:
    left = {task for task in tasks if not task.done()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=2 * CUT_OFF_S)
