"""One delivery to its end: begin an attempt, hold it, run it, hand in what it came to."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from mesh.context import SYSTEM_CLOCK, Clock, Context, cancel_requested
from mesh.errors import InvalidInput, NodeFailed, RequestError
from mesh.jobs.records import Lane, Progress
from mesh.jobs.store.job_store import Delivery, Lease
from mesh.jobs.store.next_step import attempts_of
from mesh.jobs.work.attempt import GraphRun
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.counts import Counted, WorkCounter
from mesh.jobs.work.holding import Unwritten, hand_in, hold
from mesh.jobs.work.pausing import ended
from mesh.jobs.work.verdict import Fail, judge
from mesh.tensors import Tensors
from mesh.transports.report import encode_report
from mesh.v1.call_pb2 import CallReport

__all__ = ["CUT_OFF_S", "Carrier", "TaskRunner", "WorkPolicy"]

log = logging.getLogger("mesh.jobs")

CUT_OFF_S = 1.0
"""How long work that was cancelled may take to end before nobody waits for it any more."""

_LOST: Counted = "lost"

TaskRunner = Callable[[bytes, Lease], Awaitable[bytes]]
"""Runs a shard or a batch: takes its task, gives its outcome. It may raise what a node may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPolicy:
    """How a worker goes about jobs."""

    backoff: Backoff = field(default_factory=Backoff)
    """The waits between the attempts at a job."""
    attempt_timeout_s: float = 3600.0
    """How long one attempt at a run may take, where the job's own deadline is not sooner. Not the graph's timeout for
    calls, which somebody waits for; but a bound, since an attempt that hangs would hold its slot for ever. Shards and
    batches have none but their deadline: they look after the calls that they make."""
    patience_s: float = 600.0
    """For how long a result is kept that the store cannot take now."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What an attempt gave."""

    outputs: Tensors | None = None
    report: CallReport | None = None
    outcome: bytes = b""


@dataclass(frozen=True, slots=True)
class _Left:
    """It was not finished: the worker leaves."""


_End = _Result | RequestError | _Left | None
"""How an attempt ended; None where it is nobody's business any more."""


class Carrier:
    """Carries out what is delivered to one worker.

    Args:
        run: The graph, for runs.
        worker: The worker's name, and its process.
        attempts: Attempts at one job, the first included.
        lease_s: How long it may be silent before a job of its is given to another.
        policy: How it goes about it.
        tasks: Who runs what is no run, by lane.
        counter: What it counts in.
        clock: What durations are measured by.
        wall: The time of day, for deadlines.
        chance: Where the jitter of waits comes from.
    """

    def __init__(
        self,
        run: GraphRun,
        *,
        worker: str,
        attempts: int,
        lease_s: float,
        policy: WorkPolicy,
        tasks: Mapping[Lane, TaskRunner],
        counter: WorkCounter,
        clock: Clock = SYSTEM_CLOCK,
        wall: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        self._run = run
        self._worker = worker
        self._attempts = attempts
        self._lease_s = lease_s
        self._policy = policy
        self._tasks = dict(tasks)
        self._counter = counter
        self._clock = clock
        self._wall = wall
        self._chance = chance or random.Random()
        self._leaving = {lane: asyncio.Event() for lane in Lane}

    def leave(self, lanes: Iterable[Lane] = Lane) -> None:
        """Give back what is not finished of some lanes, from now on."""
        for lane in lanes:
            self._leaving[lane].set()

    async def __call__(self, delivery: Delivery) -> None:
        """Carry one out. Raises nothing but its own cancellation, after which the lease runs out by itself."""
        try:
            lease = await delivery.begin(self._worker)
        except RequestError as error:
            log.warning("job %s could not be begun, and is left to its lease: %s", delivery.job.id, error)
            return
        if lease is None:
            return
        self._counter.add("begun")
        holding = asyncio.ensure_future(hold(lease, lease_s=self._lease_s, clock=self._clock))
        try:
            await self._hand_in(lease, await self._ended(lease))
        finally:
            holding.cancel()
            await asyncio.wait((holding,))

    # Running it.

    async def _ended(self, lease: Lease) -> _End:
        """Work until there is a result, until it is of no use any more, or until the worker leaves."""
        working = asyncio.ensure_future(self._work(lease))
        leaving = self._leaving[lease.work.lane]
        others = [asyncio.ensure_future(event.wait()) for event in (lease.cancelled, leaving)]
        try:
            await asyncio.wait((working, *others), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in others:
                waiting.cancel()
            if not working.done():
                working.cancel()
                await ended((working,), self._clock, CUT_OFF_S)
        if not working.done():
            log.warning("job %s, attempt %d: went on though cancelled", lease.job.id, lease.number)
            working.add_done_callback(_unheard)
        if lease.cancelled.is_set():
            return None
        return _Left() if not working.done() or working.cancelled() else working.result()

    async def _work(self, lease: Lease) -> _Result | RequestError:
        try:
            return await (self._task(lease) if lease.work.lane in self._tasks else self._run_of(lease))
        except RequestError as error:
            return error
        except asyncio.CancelledError:
            if cancel_requested():
                raise
            return self._fault(lease, "CancelledError")
        except Exception as error:
            log.exception("job %s, attempt %d", lease.job.id, lease.number)
            return self._fault(lease, type(error).__name__)

    def _fault(self, lease: Lease, kind: str) -> NodeFailed:
        text = f"the attempt raised {kind}; the log of worker {self._worker} has the cause"
        return NodeFailed(text, request_id=lease.job.request_id)

    async def _run_of(self, lease: Lease) -> _Result:
        work = lease.work
        if work.inputs is None:
            raise InvalidInput("the job has neither inputs nor a task that is known here")
        context = self._context(lease, self._policy.attempt_timeout_s)
        began = self._clock.now()

        async def publish(node: str, outputs: Tensors | RequestError) -> None:
            lease.publish(Progress(lease.number, node, outputs))

        outputs = await self._run(work.inputs, context, publish)
        return _Result(outputs, encode_report(context, self._clock.now() - began))

    async def _task(self, lease: Lease) -> _Result:
        context = self._context(lease, None)
        return _Result(outcome=await context.run(self._tasks[lease.work.lane](lease.work.task, lease)))

    def _context(self, lease: Lease, most_s: float | None) -> Context:
        """The context of an attempt, which ends with the job's own deadline at the latest."""
        work = lease.work
        context = Context(
            request_id=work.request_id or lease.job.id,
            parameters=work.parameters,
            timings=[] if work.report else None,
            joins=[],
            clock=self._clock,
        )
        remaining_s = self._remaining_s(lease)
        for limit_s in (most_s, remaining_s):
            context = context if limit_s is None else context.within(limit_s)
        return context

    def _remaining_s(self, lease: Lease) -> float | None:
        deadline = lease.work.deadline
        return None if deadline is None else deadline - self._wall()

    # What it came to.

    async def _hand_in(self, lease: Lease, end: _End) -> None:
        """Write how it ended, and count it."""
        if end is None:
            self._counter.add(_LOST)
            log.info("job %s, attempt %d: cancelled, or taken over", lease.job.id, lease.number)
            return
        taken, counted = False, _LOST
        try:
            taken, counted = await self._written(lease, end)
        except Unwritten as error:
            log.error(
                "job %s, attempt %d: the store was gone for too long, and another attempt will follow: %s",
                lease.job.id,
                lease.number,
                error,
            )
        except RequestError as error:
            log.error("job %s, attempt %d: the store does not take its end: %s", lease.job.id, lease.number, error)
        self._counter.add(counted if taken else _LOST)

    async def _written(self, lease: Lease, end: _Result | RequestError | _Left) -> tuple[bool, Counted]:
        """Whether the end of an attempt was taken, and what it counts as."""
        if isinstance(end, _Left):
            return await self._write(lease.release), "released"
        if isinstance(end, _Result):
            write = partial(lease.done, end.outputs, end.report, outcome=end.outcome)
            try:
                return await self._write(write), "done"
            except InvalidInput as error:
                # More than a job may give. It will not be less the next time.
                end = error
        verdict = judge(
            end,
            attempt=lease.number,
            attempts=attempts_of(lease.work.lane, self._attempts),
            remaining_s=self._remaining_s(lease),
            backoff=self._policy.backoff,
            chance=self._chance,
        )
        if isinstance(verdict, Fail):
            return await self._write(partial(lease.fail, verdict.error)), "failed"
        return await self._write(partial(lease.retry, end, verdict.delay_s)), "retried"

    async def _write(self, write: Callable[[], Awaitable[bool]]) -> bool:
        return await hand_in(write, patience_s=self._policy.patience_s, clock=self._clock, chance=self._chance)


def _unheard(working: asyncio.Task[_Result | RequestError]) -> None:
    """Nobody asks any more how it ended."""
    if not working.cancelled():
        working.exception()
