from __future__ import annotations

import asyncio
import gc

import pytest
from pydantic import ValidationError

from mesh.context import Context, NodeTiming
from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed, NotFound, RequestError, Unavailable
from mesh.handler import stack
from mesh.layers import Hedge, Timeout
from mesh.tensors import Tensors
from mesh.testing import ScriptedCall, ScriptedHandler, settle
from tests.unit.layers.given import Asking, HandClock, rows

ALWAYS = Hedge(after=1.0, max_share=1.0)


async def late(
    asking: Asking, context: Context | None = None
) -> tuple[asyncio.Task[Tensors], ScriptedCall, ScriptedCall]:
    """A call that has had its second attempt."""
    call = await asking.ask(rows(1), context)
    await asking.clock.advance(1.0)
    return call, await asking.running(), await asking.running()


async def learn(asking: Asking, *latencies_s: float) -> None:
    """Calls that take so long and are answered, one after another."""
    for latency_s in latencies_s:
        call = await asking.ask(rows(1))
        running = await asking.running()
        await asking.clock.advance(latency_s)
        while asking.script.pending:
            await asking.running()
        running.echo()
        await call


# When the second attempt is made.


async def test_a_call_that_is_answered_in_time_has_one_attempt_and_leaves_no_timer() -> None:
    asking = Asking(ALWAYS)
    context = asking.context()
    call = await asking.ask(rows(1), context)
    await asking.clock.advance(0.999)
    running = await asking.running()
    assert running.context is context
    running.echo()
    assert await call == rows(1)
    assert asking.clock.planned == 0
    await asking.clock.advance(9.0)
    assert len(asking.script.calls) == 1


async def test_a_late_call_has_a_second_attempt_with_the_same_request_and_no_third() -> None:
    asking = Asking(ALWAYS)
    context = asking.context("r", within_s=60.0)
    call, first, second = await late(asking, context)
    assert (first.request, second.request) == (rows(1), rows(1))
    assert second.context.request_id == "r"
    assert second.context.deadline == context.deadline
    await asking.clock.advance(50.0)
    assert len(asking.script.calls) == 2
    call.cancel()


async def test_a_percentile_is_that_of_the_calls_of_late() -> None:
    asking = Asking(Hedge(after="p90", min_samples=10, max_share=1.0))
    await learn(asking, *(float(index) for index in range(1, 11)))
    await asking.ask(rows(1))
    await asking.running()
    await asking.clock.advance(8.999)
    assert asking.script.pending == 0
    await asking.clock.advance(0.001)
    assert asking.script.pending == 1, "nine of ten took nine seconds or less"


async def test_nothing_is_hedged_before_enough_is_known() -> None:
    asking = Asking(Hedge(after="p50", min_samples=3, max_share=1.0))
    await learn(asking, 1.0, 1.0)
    held = await asking.ask(rows(1))
    running = await asking.running()
    await asking.clock.advance(100.0)
    assert asking.script.pending == 0
    running.echo()
    await held
    await asking.ask(rows(1))
    await asking.running()
    await asking.clock.advance(1.0)
    assert asking.script.pending == 1


async def test_calls_of_long_ago_are_forgotten() -> None:
    asking = Asking(Hedge(after="p99.9", min_samples=1, max_share=1.0))
    await learn(asking, 100.0, *[1.0] * 511)
    call = await asking.ask(rows(1))
    running = await asking.running()
    await asking.clock.advance(50.0)
    assert asking.script.pending == 0, "one of 512 took longer"
    running.echo()
    await call
    await learn(asking, *[1.0] * 511)
    await asking.ask(rows(1))
    await asking.running()
    await asking.clock.advance(50.0)
    assert asking.script.pending == 1


async def test_calls_that_fail_or_are_left_say_nothing_of_how_long_an_answer_takes() -> None:
    asking = Asking(Hedge(after="p50", min_samples=1, max_share=1.0))
    for leaves in (True, False):
        call = await asking.ask(rows(1))
        running = await asking.running()
        call.cancel() if leaves else running.fail(NodeFailed("why"))
        await asyncio.gather(call, return_exceptions=True)
    await asking.ask(rows(1))
    await asking.running()
    await asking.clock.advance(100.0)
    assert asking.script.pending == 0


async def test_what_the_second_won_counts_as_slow_and_does_not_make_quick_calls_late() -> None:
    asking = Asking(Hedge(after="p50", min_samples=1, max_share=1.0))
    await learn(asking, 1.0)
    for _ in range(2):
        call, _, second = await late(asking)
        await asking.clock.advance(0.5)
        second.echo()
        await call
    # Half of the latencies are known to be 1.5 s or more.
    await asking.ask(rows(1))
    await asking.running()
    await asking.clock.advance(1.499)
    assert asking.script.pending == 0
    await asking.clock.advance(0.002)
    assert asking.script.pending == 1


@pytest.mark.parametrize(("within_s", "hedged"), [(1.0, False), (0.5, False), (1.001, True), (None, True)])
async def test_no_second_attempt_is_made_at_the_deadline_or_after(within_s: float | None, hedged: bool) -> None:
    asking = Asking(ALWAYS)
    call = await asking.ask(rows(1), asking.context(within_s=within_s))
    await asking.running()
    assert asking.clock.planned == hedged
    await asking.clock.advance(1.0)
    assert asking.script.pending == hedged
    call.cancel()


@pytest.mark.parametrize(("within_s", "hedged"), [(4.0, False), (4.001, True)])
async def test_no_second_attempt_is_made_that_would_hardly_be_answered_in_time(within_s: float, hedged: bool) -> None:
    asking = Asking(Hedge(after="p95", min_samples=4, max_share=1.0))
    await learn(asking, 1.0, 1.0, 3.0, 3.0)
    call = await asking.ask(rows(1), asking.context(within_s=within_s))
    await asking.running()
    await asking.clock.advance(3.0)
    assert asking.script.pending == hedged, "late after 3 s, and half of the calls take 1 s"
    call.cancel()


async def test_second_attempts_are_a_share_of_the_calls() -> None:
    asking = Asking(Hedge(after=1.0, max_share=0.25))
    calls = await asking.ask_all([rows(number) for number in range(11)])
    await asking.clock.advance(1.0)
    assert len(asking.script.calls) == 11 + 2
    calls += await asking.ask_all([rows(11)])
    await asking.clock.advance(1.0)
    assert len(asking.script.calls) == 12 + 3
    for call in calls:
        call.cancel()


async def test_a_quiet_time_saves_up_for_ten_second_attempts_and_no_more() -> None:
    asking = Asking(Hedge(after=1.0, max_share=0.5))
    await learn(asking, *[0.0] * 100)
    calls = await asking.ask_all([rows(1)] * 20)
    await asking.clock.advance(1.0)
    assert len(asking.script.calls) == 120 + 10
    for call in calls:
        call.cancel()


# Who wins.


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_first_answer_wins_and_the_other_attempt_is_cancelled(winner: int) -> None:
    asking = Asking(ALWAYS)
    call, *attempts = await late(asking)
    attempts[winner].reply(rows(9))
    assert await call == rows(9)
    await settle()
    assert attempts[1 - winner].cancelled
    assert call.cancelling() == 0
    assert asking.clock.planned == 0


@pytest.mark.parametrize("fails_first", [0, 1])
async def test_an_attempt_that_fails_leaves_it_to_the_other(fails_first: int) -> None:
    asking = Asking(ALWAYS)
    call, *attempts = await late(asking)
    attempts[fails_first].fail(NodeFailed("why"))
    await settle()
    assert not call.done()
    attempts[1 - fails_first].reply(rows(9))
    assert await call == rows(9)


@pytest.mark.parametrize("fails_first", [0, 1])
async def test_when_both_fail_the_error_is_that_of_the_first_attempt(fails_first: int) -> None:
    asking = Asking(ALWAYS)
    call, *attempts = await late(asking)
    for index in (fails_first, 1 - fails_first):
        attempts[index].fail(Unavailable(f"attempt {index}"))
        await settle()
    with pytest.raises(Unavailable, match="attempt 0"):
        await call


@pytest.mark.parametrize("error", [InvalidInput, NotFound])
async def test_a_request_that_is_wrong_does_not_wait_for_the_other_attempt_to_say_so(error: type[RequestError]) -> None:
    asking = Asking(ALWAYS)
    call, first, second = await late(asking)
    first.fail(error("why"))
    with pytest.raises(error):
        await call
    await settle()
    assert second.cancelled


async def test_an_attempt_that_fails_before_there_is_another_ends_the_call() -> None:
    asking = Asking(ALWAYS)
    call = await asking.ask(rows(1))
    (await asking.running()).fail(Unavailable("gone"))
    with pytest.raises(Unavailable):
        await call
    assert asking.clock.planned == 0


async def test_a_cancellation_that_nobody_asked_for_is_a_failure_like_any_other() -> None:
    asking = Asking(ALWAYS)
    call, first, second = await late(asking)
    first.fail(asyncio.CancelledError())
    await settle()
    assert not call.done()
    second.reply(rows(9))
    assert await call == rows(9)
    call, first, second = await late(asking)
    second.fail(asyncio.CancelledError())
    await settle()
    first.fail(NodeFailed("why"))
    with pytest.raises(NodeFailed):
        await call


async def test_a_first_attempt_that_will_not_be_cancelled_may_still_answer() -> None:
    asking = Asking(ALWAYS)
    release = asyncio.Event()

    async def stubborn(request: Tensors, context: Context, /) -> Tensors:
        if release.is_set():
            return rows(2)
        release.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return rows(1)
        raise AssertionError("nobody ends this wait")

    handler = ALWAYS(stubborn)

    async def ask() -> Tensors:
        answer = await handler(rows(0), asking.context())
        await asyncio.sleep(0)
        return answer

    call = asyncio.create_task(ask())
    await asking.clock.advance(1.0)
    assert await call == rows(1)
    assert call.cancelling() == 0


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_caller_is_told_of_the_time_of_the_winner_alone(winner: int) -> None:
    asking = Asking(ALWAYS)
    told: list[NodeTiming] = []
    call, *attempts = await late(asking, Context(clock=asking.clock, timings=told))
    for index, attempt in enumerate(attempts):
        assert attempt.context.timings is not None
        attempt.context.timings.append(NodeTiming(node=f"attempt {index}"))
    attempts[winner].echo()
    await call
    assert [timing.node for timing in told] == [f"attempt {winner}"]


async def test_the_time_of_the_second_is_told_also_when_the_first_failed() -> None:
    asking = Asking(ALWAYS)
    told: list[NodeTiming] = []
    call, first, second = await late(asking, Context(clock=asking.clock, timings=told))
    assert second.context.timings is not None
    second.context.timings.append(NodeTiming(node="second"))
    first.fail(Unavailable("gone"))
    await settle()
    second.echo()
    await call
    assert [timing.node for timing in told] == ["second"]


# Callers that leave.


@pytest.mark.parametrize("first_failed", [False, True])
async def test_a_caller_that_leaves_cancels_what_runs(first_failed: bool) -> None:
    asking = Asking(ALWAYS)
    call, first, second = await late(asking)
    if first_failed:
        first.fail(Unavailable("gone"))
        await settle()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await settle()
    assert second.cancelled
    assert first.cancelled or first_failed
    assert asking.clock.planned == 0


@pytest.mark.parametrize("winner", [0, 1])
@pytest.mark.parametrize("ends", ["answer", "error"])
@pytest.mark.parametrize("turns", range(8))
async def test_however_an_end_and_a_cancellation_meet_the_call_ends_and_nothing_is_left(
    winner: int, ends: str, turns: int
) -> None:
    asking = Asking(ALWAYS)
    before = asyncio.all_tasks()
    lost: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: lost.append(told))
    call, *attempts = await late(asking)
    attempts[winner].echo() if ends == "answer" else attempts[winner].fail(Unavailable("gone"))
    for _ in range(turns):
        await asyncio.sleep(0)
    left = call.cancel()
    await settle()
    assert call.done()
    assert call.cancelled() == left, "a caller that left before its answer came is cancelled, and no other is"
    assert all(attempt.cancelled or index == winner for index, attempt in enumerate(attempts))
    assert asyncio.all_tasks() == before
    del call
    gc.collect()
    await settle()
    assert lost == []


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("first_fails", [False, True])
async def test_however_the_ends_of_both_attempts_meet_the_call_is_answered(turns: int, first_fails: bool) -> None:
    for winner in (0, 1):
        asking = Asking(ALWAYS)
        call, *attempts = await late(asking)
        attempts[winner].fail(Unavailable("gone")) if first_fails else attempts[winner].reply(rows(winner))
        for _ in range(turns):
            await asyncio.sleep(0)
        other = attempts[1 - winner]
        if not other.cancelled:
            other.reply(rows(1 - winner))
        assert await call in ([rows(1 - winner)] if first_fails else [rows(0), rows(1)])
        assert call.cancelling() == 0


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("inside", [True, False])
async def test_however_a_win_and_a_timeout_meet_one_of_them_is_told(inside: bool, turns: int) -> None:
    """Both cancel the task of the caller: neither may take the other's cancellation for its own."""
    clock, script = HandClock(), ScriptedHandler()
    layers = (ALWAYS, Timeout(after_s=2.0)) if inside else (Timeout(after_s=2.0), ALWAYS)
    handler = stack(script, *layers)

    async def ask() -> Tensors:
        return await handler(rows(1), Context(clock=clock))

    call = asyncio.create_task(ask())
    await settle()
    hedge, timeout = sorted(clock.timers, key=lambda timer: timer.when)
    hedge.fire()
    await settle()
    first, second = await script.request(), await script.request()
    second.reply(rows(9))
    for _ in range(turns):
        await asyncio.sleep(0)
    timeout.fire()
    (outcome,) = await asyncio.gather(call, return_exceptions=True)
    assert outcome == rows(9) or (isinstance(outcome, DeadlineExceeded) and not inside)
    assert call.cancelling() == 0
    assert first.cancelled


def test_the_file_says_a_percentile_or_a_time_with_a_unit() -> None:
    def read(after: object) -> Hedge:
        return Hedge.model_validate({"after": after}, context={"from_file": True})

    assert read("p99.9") == Hedge(after="p99.9")
    assert read("30ms") == Hedge(after=0.03) == Hedge(after="30ms")
    for wrong in (30, "p100", "p5", "p95.55", "95", "0ms", "", None):
        with pytest.raises(ValidationError):
            read(wrong)
    with pytest.raises(ValidationError, match=r"'p200' is not a percentile: write p50 to p99\.9"):
        read("p200")


@pytest.mark.parametrize(
    "wrong", [{"min_samples": 0}, {"min_samples": 513}, {"max_share": 0.0}, {"max_share": 1.1}, {"times": 2}], ids=repr
)
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Hedge.model_validate(wrong)
