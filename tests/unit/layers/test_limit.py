from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mesh.context import Context
from mesh.errors import DeadlineExceeded, NodeFailed, Overloaded
from mesh.layers import Limit
from mesh.tensors import Tensors
from mesh.testing import ManualClock, ScriptedHandler, settle
from tests.unit.layers.given import Asking, HandClock, rows


async def test_calls_are_let_in_up_to_the_limit_and_then_in_their_order() -> None:
    asking = Asking(Limit(max_concurrent=2))
    calls = await asking.ask_all([rows(number) for number in range(4)])
    first, second = await asking.running(), await asking.running()
    assert asking.script.pending == 0
    second.echo()
    await settle()
    assert (await asking.running()).request == rows(2)
    first.fail(NodeFailed("why"))
    await settle()
    assert (await asking.running()).request == rows(3)
    for call in calls:
        call.cancel()


async def test_a_call_of_many_rows_counts_as_one() -> None:
    asking = Asking(Limit(max_concurrent=1))
    call = await asking.ask(rows(*range(1000)))
    (await asking.running()).echo()
    assert (await call).rows == 1000


async def test_without_a_line_a_call_that_finds_no_room_is_refused_at_once() -> None:
    asking = Asking(Limit(max_concurrent=2, max_waiting=0))
    held = await asking.ask_all([rows(1), rows(2)])
    with pytest.raises(Overloaded) as caught:
        await asking.handler(rows(3), asking.context("late"))
    assert caught.value.text == "2 calls are at work"
    assert (caught.value.request_id, caught.value.retry_after_s) == ("late", 0.001)
    for call in held:
        call.cancel()


async def test_a_full_line_takes_nobody_until_somebody_leaves_it() -> None:
    asking = Asking(Limit(max_concurrent=1, max_waiting=2))
    calls = await asking.ask_all([rows(number) for number in range(3)])
    with pytest.raises(Overloaded, match="1 calls are at work, and 2 wait"):
        await asking.handler(rows(3), asking.context())
    calls[1].cancel()
    await settle()
    calls.append(await asking.ask(rows(4)))
    for number in (0, 2, 4):
        running = await asking.running()
        assert running.request == rows(number)
        running.echo()
        await settle()
    assert [call.cancelled() for call in calls] == [False, True, False, False]


async def test_nobody_waits_longer_than_the_longest_wait() -> None:
    asking = Asking(Limit(max_concurrent=1, max_wait_s=0.125))
    held = await asking.ask(rows(0))
    waiting = await asking.ask(rows(1), asking.context("w", within_s=9.0))
    await asking.clock.advance(0.1249)
    assert not waiting.done()
    await asking.clock.advance(0.0002)
    with pytest.raises(Overloaded, match="no turn came within 125ms") as caught:
        await waiting
    assert caught.value.request_id == "w"
    (await asking.running()).echo()
    await held
    assert len(asking.script.calls) == 1
    assert asking.clock.planned == 0


async def test_a_request_whose_time_runs_out_in_line_is_late_and_not_refused() -> None:
    asking = Asking(Limit(max_concurrent=1, max_wait_s=5.0))
    held = await asking.ask(rows(0))
    waiting = await asking.ask(rows(1), asking.context("w", within_s=2.0))
    await asking.clock.advance(2.0)
    with pytest.raises(DeadlineExceeded) as caught:
        await waiting
    assert caught.value.request_id == "w"
    held.cancel()


async def test_the_longest_wait_is_for_the_turn_and_not_for_the_work() -> None:
    asking = Asking(Limit(max_concurrent=1, max_wait_s=1.0))
    context = asking.context(within_s=60.0)
    calls = [await asking.ask(rows(index), context) for index in range(2)]
    (await asking.running()).echo()
    await settle()
    running = await asking.running()
    assert running.context is context
    await asking.clock.advance(30.0)
    running.echo()
    assert [await call for call in calls] == [rows(0), rows(1)]


async def test_the_hint_is_about_how_long_the_line_takes() -> None:
    asking = Asking(Limit(max_concurrent=2, max_waiting=3))
    call = await asking.ask(rows(0))
    await asking.clock.advance(0.5)
    (await asking.running()).echo()
    await call
    held = await asking.ask_all([rows(number) for number in range(5)])
    with pytest.raises(Overloaded) as caught:
        await asking.handler(rows(9), asking.context())
    assert caught.value.retry_after_s == pytest.approx(0.5 * 4 / 2)
    for one in held:
        one.cancel()


@pytest.mark.parametrize("turns", range(8))
async def test_room_is_never_lost_however_a_cancellation_and_a_turn_meet(turns: int) -> None:
    asking = Asking(Limit(max_concurrent=1))
    held, leaving, staying = await asking.ask_all([rows(0), rows(1), rows(2)])
    (await asking.running()).echo()
    for _ in range(turns):
        await asyncio.sleep(0)
    leaving.cancel()
    await held
    await settle()
    while asking.script.pending:
        call = await asking.running()
        if not call.cancelled:
            call.echo()
        await settle()
    assert leaving.cancelled()
    assert await staying == rows(2)
    last = await asking.ask(rows(3))
    (await asking.running()).echo()
    assert await last == rows(3)


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("deadline", [None, 1000.5], ids=["longest wait", "deadline"])
async def test_room_is_never_lost_however_the_end_of_a_wait_and_a_turn_meet(turns: int, deadline: float | None) -> None:
    clock, script = HandClock(), ScriptedHandler()
    handler = Limit(max_concurrent=1)(script)

    async def ask(number: float, context: Context) -> Tensors:
        return await handler(rows(number), context)

    held = asyncio.create_task(ask(0, Context()))
    await settle()
    waiting = asyncio.create_task(ask(1, Context(clock=clock, deadline=deadline)))
    await settle()
    (await script.request()).echo()
    for _ in range(turns):
        await asyncio.sleep(0)
    for timer in tuple(clock.timers):
        timer.fire()
    await held
    await settle()
    if not waiting.done():
        (await script.request()).echo()
    (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    assert outcome == rows(1) or isinstance(outcome, Overloaded if deadline is None else DeadlineExceeded)
    last = asyncio.create_task(ask(3, Context()))
    await settle()
    while not last.done():
        call = await script.request()
        if not call.cancelled:
            call.echo()
        await settle()
    assert await last == rows(3)


@settings(max_examples=80, deadline=None)
@given(
    limit=st.builds(
        Limit,
        max_concurrent=st.integers(1, 4),
        max_waiting=st.integers(0, 5),
        max_wait_s=st.sampled_from([0.5, 2.0, 100.0]),
    ),
    calls=st.integers(1, 25),
    seed=st.integers(0, 2**32),
)
async def test_the_limit_and_the_line_hold_and_no_room_stands_empty_whatever_comes_and_goes(
    limit: Limit, calls: int, seed: int
) -> None:
    clock, chance = ManualClock(), random.Random(seed)
    before = asyncio.all_tasks()
    inside: list[asyncio.Future[Tensors]] = []
    begun: list[int] = []

    async def node(request: Tensors, context: Context, /) -> Tensors:
        begun.append(int(context.request_id))
        ends: asyncio.Future[Tensors] = asyncio.get_running_loop().create_future()
        inside.append(ends)
        assert len(inside) <= limit.max_concurrent
        try:
            return await ends
        finally:
            inside.remove(ends)

    handler = limit(node)

    async def ask(index: int, within_s: float | None) -> Tensors:
        context = Context(request_id=f"{index}", clock=clock)
        return await handler(rows(index), context if within_s is None else context.within(within_s))

    tasks: list[asyncio.Task[Tensors]] = []
    for _ in range(2000):
        if len(tasks) == calls and all(task.done() for task in tasks):
            break
        match chance.randrange(5):
            case 0 | 1 if len(tasks) < calls:
                within_s = chance.choice([None, None, 1.0])
                tasks.append(asyncio.create_task(ask(len(tasks), within_s)))
            case 2:
                leaving = [task for task in tasks if not task.done()]
                if leaving and chance.random() < 0.3:
                    chance.choice(leaving).cancel()
            case 3:
                await clock.advance(0.3)
            case _:
                open_calls = [ends for ends in inside if not ends.done()]
                if open_calls:
                    ends = chance.choice(open_calls)
                    ends.set_result(rows(0)) if chance.random() < 0.7 else ends.set_exception(NodeFailed("why"))
        await settle(chance.choice([0, 1, 2, 20]))
        if chance.random() < 0.3:
            await settle()
            waiting = [index for index, task in enumerate(tasks) if not task.done() and index not in begun]
            assert len(waiting) <= limit.max_waiting
            assert not waiting or len(inside) == limit.max_concurrent, "there is room, and somebody waits"
            assert min(waiting, default=calls) > max(begun, default=-1), "somebody overtook"
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        expected = Tensors | NodeFailed | Overloaded | DeadlineExceeded | asyncio.CancelledError
        assert isinstance(outcome, expected), f"a call ended in {outcome!r}"
    assert asyncio.all_tasks() == before
    assert clock.planned == 0


def test_the_file_says_the_longest_wait_with_a_unit() -> None:
    read = Limit.model_validate({"max_concurrent": 4, "max_wait": "50ms"}, context={"from_file": True})
    assert read == Limit(max_concurrent=4, max_wait_s=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"max_concurrent": 0},
        {"max_concurrent": 1, "max_waiting": -1},
        {"max_concurrent": 1, "max_wait": 0.0},
        {"max_concurrent": 1, "rows": 1},
    ],
    ids=repr,
)
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Limit.model_validate(wrong)
