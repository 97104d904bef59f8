from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from mesh.errors import DeadlineExceeded, InvalidInput, Overloaded
from mesh.layers import Queue
from mesh.tensors import Tensors
from mesh.testing import settle
from tests.unit.layers.given import Asking, rows


async def test_full_queue_rejects_at_once_with_a_hint() -> None:
    asking = Asking(Queue(max_rows=3))
    held = await asking.ask(rows(1, 2))
    with pytest.raises(Overloaded) as caught:
        await asking.handler(rows(3, 4), asking.context("late"))
    assert caught.value.text == "the queue holds 2 of 3 rows and takes no 2 more"
    assert (caught.value.request_id, caught.value.retry_after_s) == ("late", 0.001)
    fits = await asking.ask(rows(3))
    for _ in range(2):
        (await asking.running()).echo()
    assert (await held, await fits) == (rows(1, 2), rows(3))


async def test_the_hint_is_how_long_a_call_takes_of_late() -> None:
    asking = Asking(Queue(max_rows=1))
    for seconds in (2.0, 1.0):
        call = await asking.ask(rows(1))
        await asking.clock.advance(seconds)
        (await asking.running()).echo()
        await call
    held = await asking.ask(rows(1))
    with pytest.raises(Overloaded) as caught:
        await asking.handler(rows(2), asking.context())
    assert caught.value.retry_after_s == pytest.approx(2.0 - 0.2)
    held.cancel()


async def test_a_request_that_could_never_fit_is_the_callers_mistake() -> None:
    for when_full in ("reject", "wait"):
        asking = Asking(Queue(max_rows=3, when_full=when_full))
        with pytest.raises(InvalidInput, match="4 rows in one request where the queue holds 3"):
            await asking.handler(rows(1, 2, 3, 4), asking.context())


async def test_a_request_without_rows_counts_as_one() -> None:
    asking = Asking(Queue(max_rows=2))
    held = await asking.ask_all([rows(), rows()])
    with pytest.raises(Overloaded):
        await asking.handler(rows(), asking.context())
    for _ in held:
        (await asking.running()).echo()
    assert await asyncio.gather(*held) == [rows(), rows()]


async def test_those_that_wait_are_let_in_in_their_order() -> None:
    asking = Asking(Queue(max_rows=2, when_full="wait"))
    calls = await asking.ask_all([rows(0, 0), rows(1, 1), rows(2), rows(3)])
    first = await asking.running()
    assert asking.script.pending == 0
    first.echo()
    await settle()
    second = await asking.running()
    assert second.request == rows(1, 1)
    assert asking.script.pending == 0, "a small request does not overtake a large one"
    second.echo()
    await settle()
    assert [(await asking.running()).request for _ in range(2)] == [rows(2), rows(3)]
    assert [call.done() for call in calls] == [True, True, False, False]
    for call in calls:
        call.cancel()


async def test_a_newcomer_does_not_overtake_those_that_wait() -> None:
    asking = Asking(Queue(max_rows=2, when_full="wait"))
    calls = await asking.ask_all([rows(0), rows(1, 1), rows(2)])
    assert [call.request for call in asking.script.calls] == [rows(0)], (
        "there is room for one row, and it is not its turn"
    )
    for call in calls:
        call.cancel()


async def test_as_many_wait_as_may_and_the_next_is_rejected() -> None:
    asking = Asking(Queue(max_rows=1, when_full="wait", max_waiting=2))
    calls = await asking.ask_all([rows(0), rows(1), rows(2)])
    with pytest.raises(Overloaded):
        await asking.handler(rows(3), asking.context())
    calls[1].cancel()
    await settle()
    late = await asking.ask(rows(4))
    for expected in (rows(0), rows(2), rows(4)):
        call = await asking.running()
        assert call.request == expected, "a waiter that left gave its place back"
        call.echo()
        await settle()
    assert await late == rows(4)


async def test_waiting_ends_at_the_deadline_without_running() -> None:
    asking = Asking(Queue(max_rows=1, when_full="wait"))
    held = await asking.ask(rows(0))
    waiting = await asking.ask(rows(1), asking.context("w", within_s=5.0))
    await asking.clock.advance(5.0)
    with pytest.raises(DeadlineExceeded) as caught:
        await waiting
    assert caught.value.request_id == "w"
    (await asking.running()).echo()
    await held
    assert len(asking.script.calls) == 1


async def test_a_waiter_that_leaves_at_the_head_lets_the_next_one_try() -> None:
    asking = Asking(Queue(max_rows=2, when_full="wait"))
    _, large, small = await asking.ask_all([rows(0), rows(1, 1), rows(2)])
    large.cancel()
    await settle()
    assert [call.request for call in asking.script.calls] == [rows(0), rows(2)]
    small.cancel()


async def test_a_waiter_cancelled_in_the_turn_in_which_room_comes_does_not_break_the_one_that_leaves() -> None:
    asking = Asking(Queue(max_rows=1, when_full="wait"))
    held, leaving, staying = await asking.ask_all([rows(0), rows(1), rows(2)])
    # The caller is cancelled, and before it can notice, the room is given away.
    (await asking.running()).echo()
    asyncio.get_running_loop().call_soon(leaving.cancel)
    assert await held == rows(0)
    await settle()
    assert leaving.cancelled()
    (await asking.running()).echo()
    assert await staying == rows(2)


@pytest.mark.parametrize("turns", range(8))
async def test_room_is_never_lost_however_a_cancellation_and_an_admission_meet(turns: int) -> None:
    asking = Asking(Queue(max_rows=1, when_full="wait"))
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


async def test_tensors_without_common_rows_are_refused_and_take_no_room() -> None:
    asking = Asking(Queue(max_rows=1))
    for _ in range(3):
        with pytest.raises(InvalidInput):
            await asking.handler(Tensors({"x": [[1.0]], "y": [1.0, 2.0]}), asking.context())
    fits = await asking.ask(rows(1))
    (await asking.running()).echo()
    assert await fits == rows(1)


@pytest.mark.parametrize("wrong", [{"max_rows": 0}, {"when_full": "drop"}, {"max_waiting": 0}, {"rows": 1}], ids=repr)
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Queue.model_validate(wrong)
