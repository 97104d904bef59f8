from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from mesh.context import Context, cancel_requested, new_request_id
from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed
from mesh.testing import ManualClock, settle


def within(seconds: float) -> tuple[ManualClock, Context]:
    clock = ManualClock()
    return clock, Context(clock=clock, request_id="r").within(seconds)


def test_request_ids_differ() -> None:
    assert len({new_request_id() for _ in range(1000)} | {Context().request_id}) == 1001


def test_a_deadline_is_only_ever_brought_forward() -> None:
    clock, context = within(5.0)
    assert context.within(7.0) is context
    assert context.within(2.0).deadline == clock.now() + 2.0
    assert Context(clock=clock).remaining_s() is None


async def test_the_time_that_remains_shrinks_and_ends() -> None:
    clock, context = within(5.0)
    await clock.advance(4.0)
    assert context.remaining_s() == 1.0
    context.check_deadline()
    await clock.advance(1.0)
    with pytest.raises(DeadlineExceeded) as caught:
        context.check_deadline()
    assert caught.value.request_id == "r"


async def test_work_that_ends_in_time_is_answered_and_leaves_no_timer() -> None:
    clock, context = within(5.0)

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await context.run(work()) == 7
    assert clock.planned == 0


async def test_work_that_waits_for_nothing_never_has_a_timer() -> None:
    clock, context = within(5.0)

    async def work() -> int:
        assert clock.planned == 0
        return 7

    assert await context.run(work()) == 7


async def test_the_deadline_holds_for_work_that_waits_a_second_time() -> None:
    clock, context = within(5.0)
    waited: list[str] = []

    async def work() -> None:
        first = asyncio.Event()
        clock.call_at(clock.now() + 1.0, first.set)
        await first.wait()
        waited.append("once")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            waited.append("twice")
            await asyncio.sleep(0)
            raise

    running = asyncio.ensure_future(context.run(work()))
    await clock.advance(1.0)
    assert waited == ["once"]
    await clock.advance(4.0)
    with pytest.raises(DeadlineExceeded, match="the deadline passed"):
        await running
    assert waited == ["once", "twice"]
    assert clock.planned == 0


async def test_what_work_awaits_may_fail_and_be_handled_in_it() -> None:
    _, context = within(5.0)
    awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await awaited
        except ValueError as error:
            await asyncio.sleep(0)
            return str(error)
        return ""

    running = asyncio.ensure_future(context.run(work()))
    await settle()
    awaited.set_exception(ValueError("what was awaited failed"))
    assert await running == "what was awaited failed"


async def test_work_is_cancelled_at_the_very_deadline() -> None:
    clock, context = within(5.0)
    cancelled_at: list[float] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled_at.append(clock.now())

    running = asyncio.ensure_future(context.run(work()))
    await clock.advance(4.999)
    assert not running.done()
    await clock.advance(1.0)
    with pytest.raises(DeadlineExceeded, match="the deadline passed"):
        await running
    assert cancelled_at == [context.deadline]


async def test_work_whose_time_has_run_out_is_not_begun() -> None:
    clock, context = within(5.0)
    await clock.advance(5.0)
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)

    with pytest.raises(DeadlineExceeded):
        await context.run(work())
    assert begun == []


async def swallow() -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "an answer too late"
    return ""


async def fail() -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ValueError("because it was cancelled") from None
    return ""


@pytest.mark.parametrize("work", [swallow, fail])
async def test_whatever_late_work_ends_in_is_dropped_and_the_task_can_go_on(work: Callable[[], Awaitable[str]]) -> None:
    clock, context = within(5.0)

    async def caller() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(DeadlineExceeded):
            await context.run(work())
        # A cancellation that is still counted would fool the next timeout or task group.
        assert task.cancelling() == 0

    calling = asyncio.ensure_future(caller())
    await clock.advance(6.0)
    await calling


async def test_a_caller_that_leaves_is_cancelled_and_not_told_of_a_deadline() -> None:
    clock, context = within(5.0)
    running = asyncio.ensure_future(context.run(asyncio.Event().wait()))
    await settle()
    running.cancel()
    await settle()
    assert running.cancelled()
    assert clock.planned == 0


class OneTimer:
    """A clock whose only timer runs when the test says so, in a turn of the event loop that the test shares."""

    ring: Callable[[], object]

    def now(self) -> float:
        return 0.0

    def call_at(self, when: float, callback: Callable[[], object]) -> OneTimer:
        self.ring = callback
        return self

    def cancel(self) -> None:
        self.ring = lambda: None


@pytest.mark.parametrize("deadline_first", [True, False])
async def test_a_caller_that_leaves_in_the_turn_of_the_deadline_is_cancelled(deadline_first: bool) -> None:
    clock = OneTimer()
    running = asyncio.ensure_future(Context(clock=clock).within(5.0).run(asyncio.Event().wait()))
    await settle()
    for act in (clock.ring, running.cancel) if deadline_first else (running.cancel, clock.ring):
        act()
    await settle()
    assert running.cancelled()


async def test_an_answer_in_the_turn_of_the_deadline_is_late() -> None:
    clock = OneTimer()
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(Context(clock=clock).within(5.0).run(answer))
    await settle()
    answer.set_result(7)
    clock.ring()
    with pytest.raises(DeadlineExceeded):
        await running


async def test_an_inner_deadline_of_the_same_instant_does_not_become_a_cancellation() -> None:
    clock, context = within(5.0)
    running = asyncio.ensure_future(context.run(context.run(asyncio.Event().wait())))
    await clock.advance(5.0)
    with pytest.raises(DeadlineExceeded):
        await running


async def test_the_deadline_of_the_machines_clock_passes_as_well() -> None:
    with pytest.raises(DeadlineExceeded):
        await Context().within(0.001).run(asyncio.Event().wait())


def test_a_request_error_is_told_where_it_happened() -> None:
    error = InvalidInput("bad")
    Context(request_id="r").explain(error, node="n")
    assert (error.node, error.request_id) == ("n", "r")


async def test_a_foreign_error_becomes_node_failed_in_words_safe_to_show(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(NodeFailed) as caught:
        Context(request_id="r").explain(ValueError("/secret"), node="n")
    assert caught.value == NodeFailed(
        "the node raised ValueError; the worker's log has the cause", node="n", request_id="r"
    )
    assert isinstance(caught.value.__cause__, ValueError)
    assert "n failed on request r" in caplog.text
    assert "/secret" in caplog.text


async def test_a_cancellation_that_nobody_asked_for_is_a_failure() -> None:
    assert not cancel_requested()
    with pytest.raises(NodeFailed, match="CancelledError"):
        Context().explain(asyncio.CancelledError(), node="n")


async def test_a_cancellation_that_was_asked_for_stays_one() -> None:
    asked: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            asked.append(cancel_requested())
            Context().explain(error)
            raise

    task = asyncio.ensure_future(work())
    await settle()
    task.cancel()
    await settle()
    assert task.cancelled()
    assert asked == [True]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=repr)
async def test_what_ends_the_process_is_left_alone(error: BaseException) -> None:
    Context().explain(error)
