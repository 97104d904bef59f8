"""Whole runs against a mesh of the test's own making, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from mesh.context import NodeTiming
from mesh.errors import InvalidInput, Overloaded, RequestError, Unavailable
from mesh.load import LoadPlan, Report, Send, precise_event_loop, run_load
from mesh.load.arrivals import wait_until
from mesh.testing import ManualClock

START = 1000.0


def answering(clock: ManualClock, takes: Callable[[int], float]) -> Send:
    """A mesh that takes `takes(index)` seconds for each request."""

    async def send(index: int) -> Sequence[NodeTiming]:
        await wait_until(clock, clock.now() + takes(index))
        return ()

    return send


def stalling(clock: ManualClock) -> Send:
    """A mesh that answers in 1 ms, but not at all from 0.5 s to 1.5 s."""

    async def send(index: int) -> Sequence[NodeTiming]:
        sent = clock.now() - START
        await wait_until(clock, START + (1.5 if 0.5 <= sent < 1.5 else sent) + 0.001)
        return ()

    return send


async def finish(clock: ManualClock, send: Send, plan: LoadPlan, seconds: float = 60.0) -> Report:
    """The report of a run that has to end within `seconds` of the manual clock."""
    run = asyncio.create_task(run_load(send, plan, clock))
    await clock.advance(seconds)
    assert run.done(), "the run is still going"
    return run.result()


class BlockedClock(ManualClock):
    """Can stand for an event loop that was blocked: time passes and no timer runs."""

    def block(self, seconds: float) -> None:
        self._now += seconds


class WatchedClock(ManualClock):
    """Knows the timers that are still to run."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self._waits: list[tuple[float, Callable[[], bool]]] = []

    def call_at(self, when: float, callback: Callable[[], object]):
        timer = super().call_at(when, callback)
        self._waits.append((when, lambda: timer.callback is not None))
        return timer

    def waits(self) -> list[float]:
        return [when for when, is_kept in self._waits if when > self.now() and is_kept()]


class LateClock(ManualClock):
    """Every timer runs 0.4 ms late, as real ones do."""

    def call_at(self, when: float, callback: Callable[[], object]):
        return super().call_at(when + 0.0004, callback)


# --- latencies


@pytest.mark.parametrize("mode", ["constant", "poisson"])
async def test_open_loop_latencies_are_exact(mode: str) -> None:
    clock = ManualClock(START)
    plan = LoadPlan(mode="constant" if mode == "constant" else "poisson", rate_per_s=100, requests=400, seed=4)
    report = await finish(clock, answering(clock, lambda index: 0.2 if index % 100 == 99 else 0.01), plan)
    assert report.latency is not None
    assert report.latency.count == 400
    assert (report.latency.p50, report.latency.p99) == (pytest.approx(0.01), pytest.approx(0.01))
    assert (report.latency.p99_9, report.latency.max) == (pytest.approx(0.2), pytest.approx(0.2))
    assert report.latency.mean == pytest.approx((396 * 0.01 + 4 * 0.2) / 400)


async def test_stall_shows_in_the_percentiles_of_an_open_loop() -> None:
    clock = ManualClock(START)
    report = await finish(clock, stalling(clock), LoadPlan(mode="constant", rate_per_s=100, duration_s=2))
    assert report.latency is not None
    # 200 requests, 100 of them in the stall: the longest waited 1.001 s, the next 0.991 s, the third 0.981 s.
    assert report.latency.count == 200
    assert report.latency.p50 == pytest.approx(0.001)
    assert report.latency.p99 == pytest.approx(0.981)
    assert report.latency.max == pytest.approx(1.001)


async def test_stall_is_nearly_invisible_in_a_closed_loop() -> None:
    clock = ManualClock(START)
    report = await finish(clock, stalling(clock), LoadPlan(duration_s=2))
    assert report.latency is not None
    assert report.latency.count == pytest.approx(1000, abs=2)
    assert report.latency.p99 == pytest.approx(0.001)
    assert report.latency.max == pytest.approx(1.0, abs=0.002)


async def test_time_in_which_the_tool_itself_was_blocked_counts_as_latency() -> None:
    clock = BlockedClock(START)

    async def send(index: int) -> Sequence[NodeTiming]:
        if index == 50:
            clock.block(1.0)
        return ()

    report = await finish(clock, send, LoadPlan(mode="constant", rate_per_s=10, duration_s=20))
    assert report.latency is not None
    assert report.lag is not None
    # Requests 51 to 59 were due while it was blocked; all were sent, and each latency says how late.
    assert report.sent == 200
    assert report.latency.p99 == pytest.approx(0.8)
    assert (report.latency.max, report.lag.max) == (pytest.approx(1.0), pytest.approx(0.9))


async def test_lateness_of_timers_does_not_add_up() -> None:
    clock, sent = LateClock(START), list[float]()

    async def send(index: int) -> Sequence[NodeTiming]:
        sent.append(clock.now() - START)
        return ()

    await finish(clock, send, LoadPlan(mode="constant", rate_per_s=1000, requests=500))
    assert sent[1:] == pytest.approx([index / 1000 + 0.0004 for index in range(1, 500)])


# --- bounds


async def test_arrival_beyond_max_in_flight_is_not_sent_and_delays_nobody() -> None:
    clock, peak, indices = ManualClock(START), 0, list[int]()
    in_flight = 0

    async def send(index: int) -> Sequence[NodeTiming]:
        nonlocal in_flight, peak
        indices.append(index)
        in_flight += 1
        peak = max(peak, in_flight)
        await wait_until(clock, clock.now() + 0.95)
        in_flight -= 1
        return ()

    plan = LoadPlan(mode="constant", rate_per_s=10, requests=20, max_in_flight=5)
    report = await finish(clock, send, plan)
    assert (report.sent, report.not_sent_full, peak) == (10, 10, 5)
    assert indices == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert report.latency is not None
    assert report.latency.max == pytest.approx(0.95)
    assert report.sent_per_s == pytest.approx(5.0)


async def test_arrival_later_than_the_timeout_is_not_sent() -> None:
    clock = BlockedClock(START)

    async def send(index: int) -> Sequence[NodeTiming]:
        if index == 10:
            clock.block(1.0)
        return ()

    plan = LoadPlan(mode="constant", rate_per_s=10, requests=30, timeout_s=0.55)
    report = await finish(clock, send, plan)
    # At 2.0 s those due at 1.1 ... 1.4 s are 0.9 ... 0.6 s late.
    assert (report.sent, report.not_sent_late) == (26, 4)
    assert report.lag is not None
    assert report.lag.max == pytest.approx(0.5)


async def test_arrivals_that_are_caught_up_with_let_each_other_end() -> None:
    clock = BlockedClock(START)

    async def send(index: int) -> Sequence[NodeTiming]:
        if index == 10:
            clock.block(1.0)
        return ()

    plan = LoadPlan(mode="constant", rate_per_s=10, requests=30, max_in_flight=1)
    report = await finish(clock, send, plan)
    assert (report.sent, report.not_sent_full) == (30, 0)


@pytest.mark.parametrize("concurrency", [1, 7, 64])
async def test_closed_loop_keeps_exactly_its_concurrency_in_flight(concurrency: int) -> None:
    clock, rng = ManualClock(START), random.Random(1)
    in_flight, levels, indices = 0, list[int](), list[int]()

    async def send(index: int) -> Sequence[NodeTiming]:
        nonlocal in_flight
        in_flight += 1
        levels.append(in_flight)
        indices.append(index)
        await wait_until(clock, clock.now() + rng.uniform(0.01, 0.1))
        in_flight -= 1
        return ()

    report = await finish(clock, send, LoadPlan(concurrency=concurrency, requests=500))
    assert report.answered == 500
    assert indices == list(range(500))
    assert max(levels) == concurrency
    assert set(levels[concurrency:]) == {concurrency}


async def test_closed_loop_sends_nothing_after_its_duration_and_waits_for_what_is_in_flight() -> None:
    clock = ManualClock(START)
    report = await finish(clock, answering(clock, lambda index: 0.4), LoadPlan(concurrency=3, duration_s=1))
    assert (report.sent, report.answered, report.unanswered) == (9, 9, 0)
    assert (report.sending_s, report.answering_s) == (pytest.approx(1.0), pytest.approx(1.2))
    assert report.answered_per_s == pytest.approx(7.5)


async def test_request_without_answer_ends_at_the_timeout() -> None:
    clock = ManualClock(START)
    plan = LoadPlan(mode="constant", rate_per_s=10, requests=10, timeout_s=2)
    report = await finish(clock, answering(clock, lambda index: 0.5 if index else 1e6), plan, seconds=2.0)
    assert [(error.code, error.count) for error in report.errors] == [("DEADLINE_EXCEEDED", 1)]
    assert report.answered == 9


async def test_achieved_rate_is_held_against_the_asked_one() -> None:
    clock = ManualClock(START)
    plan = LoadPlan(mode="constant", rate_per_s=50, requests=100)
    report = await finish(clock, answering(clock, lambda index: 0.1), plan)
    assert (report.sending_s, report.sent_per_s) == (pytest.approx(2.0), pytest.approx(50.0))
    assert report.answering_s == pytest.approx(2.08)


async def test_mesh_that_answers_without_waiting_does_not_hold_up_the_event_loop() -> None:
    clock = ManualClock(START)

    async def send(index: int) -> Sequence[NodeTiming]:
        return ()

    # Time stands still until the loop gives way to the test.
    report = await finish(clock, send, LoadPlan(concurrency=2, duration_s=1), seconds=1.0)
    assert report.answered > 64


async def test_run_leaves_no_timer_behind() -> None:
    clock = WatchedClock(START)
    run = asyncio.create_task(run_load(answering(clock, lambda index: 0.1), LoadPlan(requests=3), clock))
    await clock.advance(0.25)
    assert clock.waits() == pytest.approx([START + 10, START + 0.3])
    await clock.advance(0.25)
    assert run.done()
    assert clock.waits() == []


# --- warm-up


@pytest.mark.parametrize(
    ("plan", "warm_up"),
    [
        (LoadPlan(mode="constant", rate_per_s=10, duration_s=2, warm_up_s=1), 10),
        (LoadPlan(mode="constant", rate_per_s=10, duration_s=2, warm_up_requests=10), 10),
        (LoadPlan(mode="constant", rate_per_s=10, requests=20, warm_up_requests=10), 10),
    ],
)
async def test_warm_up_is_sent_but_not_measured(plan: LoadPlan, warm_up: int) -> None:
    clock = ManualClock(START)

    async def send(index: int) -> Sequence[NodeTiming]:
        await wait_until(clock, clock.now() + (0.5 if index < warm_up else 0.01))
        if index == 3:
            raise Unavailable("not yet warm")
        return (NodeTiming(node="a", compute_s=0.5 if index < warm_up else 0.01),)

    report = await finish(clock, send, plan)
    assert (report.warm_up, report.sent, report.answered, report.errors) == (warm_up, 20, 20, ())
    assert report.latency is not None
    assert report.latency.max == pytest.approx(0.01)
    assert report.nodes[0].compute.max == 0.01
    assert (report.sending_s, report.sent_per_s) == (pytest.approx(2.0), pytest.approx(10.0))


# --- failures


async def test_errors_are_counted_by_code_and_stay_out_of_the_latencies() -> None:
    clock = ManualClock(START)
    failures: dict[int, RequestError] = {
        1: InvalidInput("tensor 'x' is missing"),
        2: Overloaded("the queue is full", node="large"),
        3: Overloaded("the queue is full", node="small"),
    }

    async def send(index: int) -> Sequence[NodeTiming]:
        if error := failures.get(index % 5):
            raise error
        await wait_until(clock, clock.now() + 0.1)
        return ()

    report = await finish(clock, send, LoadPlan(concurrency=2, requests=50))
    assert [(error.code, error.count, error.first_text) for error in report.errors] == [
        ("RESOURCE_EXHAUSTED", 20, "node large: the queue is full"),
        ("INVALID_ARGUMENT", 10, "tensor 'x' is missing"),
    ]
    assert (report.sent, report.failed, report.answered) == (50, 30, 20)
    assert report.latency is not None
    assert report.latency.p50 == pytest.approx(0.1)


@pytest.mark.parametrize(
    "plan", [LoadPlan(concurrency=4, requests=50), LoadPlan(mode="constant", rate_per_s=100, requests=50)]
)
async def test_any_other_exception_ends_the_run_as_itself(plan: LoadPlan) -> None:
    clock, cancelled = ManualClock(START), 0

    async def send(index: int) -> Sequence[NodeTiming]:
        nonlocal cancelled
        if index == 3:
            raise ZeroDivisionError("a mistake in send")
        try:
            await wait_until(clock, clock.now() + 100)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return ()

    run = asyncio.create_task(run_load(send, plan, clock))
    await clock.advance(1)
    with pytest.raises(ZeroDivisionError, match="a mistake in send"):
        run.result()
    assert cancelled == 3


async def test_call_that_is_cancelled_under_the_loop_is_an_error_and_the_loop_goes_on() -> None:
    clock = ManualClock(START)

    async def send(index: int) -> Sequence[NodeTiming]:
        if index == 1:
            raise asyncio.CancelledError
        return ()

    report = await finish(clock, send, LoadPlan(requests=5))
    assert (report.sent, report.answered, report.interrupted) == (5, 4, False)
    assert report.errors[0].code == "CANCELLED"


@pytest.mark.parametrize(
    "plan", [LoadPlan(concurrency=4, duration_s=50), LoadPlan(mode="constant", rate_per_s=4, duration_s=50)]
)
async def test_cancelled_run_reports_what_there_is(plan: LoadPlan) -> None:
    clock = ManualClock(START)
    run = asyncio.create_task(run_load(answering(clock, lambda index: 0.999 if index < 8 else 100), plan, clock))
    await clock.advance(2.999)
    run.cancel()
    await clock.advance(0)
    report = run.result()
    assert report.interrupted
    assert (report.sent, report.answered, report.failed, report.unanswered) == (12, 8, 0, 4)
    assert report.sending_s == pytest.approx(2.999)
    assert run.cancelling() == 0


async def test_run_that_is_cancelled_in_its_warm_up_reports_nothing_measured() -> None:
    clock = ManualClock(START)
    plan = LoadPlan(requests=5, warm_up_requests=1_000_000)
    run = asyncio.create_task(run_load(answering(clock, lambda index: 0.1), plan, clock))
    await clock.advance(1.05)
    run.cancel()
    await clock.advance(0)
    report = run.result()
    assert (report.warm_up, report.sent, report.latency) == (11, 0, None)
    assert (report.sending_s, report.sent_per_s, report.answered_per_s) == (0.0, 0.0, 0.0)


# --- the real clock


def test_real_clock_and_precise_event_loop_carry_a_run() -> None:
    async def send(index: int) -> Sequence[NodeTiming]:
        await asyncio.sleep(0)
        return (NodeTiming(node="a", rows=1),)

    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        report = runner.run(run_load(send, LoadPlan(mode="poisson", rate_per_s=5_000, requests=50)))
    assert (report.sent, report.answered, report.nodes[0].rows) == (50, 50, 50)
