"""`run_load`: carry out a plan and report on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from mesh.context import SYSTEM_CLOCK, Clock, NodeTiming
from mesh.errors import Cancelled, RequestError
from mesh.load.arrivals import Attempt, Window, closed_loop, open_loop, wait_until
from mesh.load.measure import Recorder
from mesh.load.plan import LoadPlan
from mesh.load.report import Report
from mesh.load.timeouts import Timeouts

__all__ = ["Progress", "Send", "run_load"]

Send = Callable[[int], Awaitable[Sequence[NodeTiming]]]
"""Send request number `index` and give the mesh's own timing of its nodes.

Numbers start at 0 with the warm-up; an arrival that is not sent uses one up. Raises `RequestError` when the request
failed; any other exception ends the run. Must end when cancelled.
"""

PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is. Counts are without the warm-up, except `in_flight`."""

    fraction: float
    """Of what the plan sends, 0 to 1; it stands at 0 through a warm-up counted in requests."""
    warming_up: bool
    elapsed_s: float
    sent: int
    answered: int
    failed: int
    not_sent: int
    in_flight: int


async def run_load(
    send: Send,
    plan: LoadPlan,
    clock: Clock = SYSTEM_CLOCK,
    on_progress: Callable[[Progress], object] | None = None,
) -> Report:
    """Send as the plan says, wait for what is in flight, and report.

    Each request is cancelled after `plan.timeout_s`, and none is sent later than that, so the run ends at most two
    timeouts after sending should end. Cancelling the call (Ctrl-C under `asyncio.run`) is how to stop it early:
    requests in flight are cancelled and the report on what there is so far is returned, marked `interrupted`.

    Args:
        send: Sends one request.
        plan: What to send.
        clock: What it is timed by.
        on_progress: Called on the event loop every 0.2 s and once at the end.

    Raises:
        Exception: What `send` raised that was no `RequestError`, or what `on_progress` raised; nothing is left running.
    """
    record = Recorder(max_samples=plan.max_samples, seed=plan.seed)
    window = Window(plan, clock.now())
    timeouts = Timeouts(clock, plan.timeout_s)
    attempt = _attempt(send, plan, clock, record, timeouts)
    arrive = closed_loop if plan.mode == "closed" else open_loop
    interrupted = False
    try:
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(_tell(on_progress, plan, window, clock, record)) if on_progress else None
            await arrive(attempt, plan, window, clock, record)
            if ticking:
                ticking.cancel()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            # The cancellation has been answered: by a report.
            task.uncancel()
        interrupted = True
    except BaseExceptionGroup as group:
        raise _first(group) from None
    finally:
        timeouts.close()
    if on_progress:
        on_progress(_progress(plan, window, clock, record))
    return _report(plan, window, clock, record, interrupted=interrupted)


def _attempt(send: Send, plan: LoadPlan, clock: Clock, record: Recorder, timeouts: Timeouts) -> Attempt:
    is_open = plan.mode != "closed"

    async def attempt(index: int, intended: float, measured: bool) -> None:
        if is_open and measured:
            record.lag.add(clock.now() - intended)
        try:
            timings = await timeouts.run(send(index))
        except RequestError as error:
            record.fail(error, measured=measured)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this task: the call was cancelled under it, and its loop must go on.
            record.fail(Cancelled("the call was cancelled on this side"), measured=measured)
        else:
            record.answer(intended, clock.now(), timings, measured=measured)

    return attempt


async def _tell(
    on_progress: Callable[[Progress], object], plan: LoadPlan, window: Window, clock: Clock, record: Recorder
) -> None:
    while True:
        await wait_until(clock, clock.now() + PROGRESS_EVERY_S)
        on_progress(_progress(plan, window, clock, record))


def _progress(plan: LoadPlan, window: Window, clock: Clock, record: Recorder) -> Progress:
    now = clock.now()
    not_sent = record.not_sent_full + record.not_sent_late
    by_time = (now - window.start) / (window.ends - window.start)
    by_count = (record.sent + not_sent) / plan.requests if plan.requests else 0.0
    return Progress(
        fraction=1.0 if window.closed is not None else min(1.0, max(by_time, by_count)),
        warming_up=now < window.begins,
        elapsed_s=now - window.start,
        sent=record.sent,
        answered=record.answered,
        failed=record.failed,
        not_sent=not_sent,
        in_flight=record.in_flight,
    )


def _report(plan: LoadPlan, window: Window, clock: Clock, record: Recorder, *, interrupted: bool) -> Report:
    closed = clock.now() if window.closed is None else window.closed
    return Report(
        plan=plan,
        interrupted=interrupted,
        sending_s=max(0.0, closed - window.begins),
        answering_s=max(0.0, closed - window.begins, record.last_answer - window.begins),
        warm_up=record.warm_up,
        sent=record.sent,
        not_sent_full=record.not_sent_full,
        not_sent_late=record.not_sent_late,
        latency=record.latency.distribution() if record.latency.count else None,
        lag=record.lag.distribution() if record.lag.count else None,
        errors=record.errors(),
        nodes=record.nodes(),
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that ended the run, out of the task groups it came through."""
    cause = group.exceptions[0]
    return _first(cause) if isinstance(cause, BaseExceptionGroup) else cause
