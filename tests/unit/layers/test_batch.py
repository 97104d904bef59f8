from __future__ import annotations

import asyncio
import gc

import numpy as np
import pytest
from pydantic import ValidationError

from mesh.context import Context, NodeTiming
from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed, Overloaded, Unavailable
from mesh.layers import Batch
from mesh.partial import rows_failed, take_partial
from mesh.tensors import Tensors
from mesh.testing import settle
from tests.unit.layers.given import Asking, doubled, rows, values

# What waits, and what goes together.


async def test_a_request_that_finds_the_node_idle_runs_at_once_and_alone() -> None:
    asking = Asking(Batch())
    context = asking.context()
    alone = await asking.ask(rows(1), context)
    call = await asking.running()
    assert call.context is context
    call.reply(rows(2))
    assert await alone == rows(2)
    assert asking.clock.planned == 0


async def test_those_that_arrive_meanwhile_run_together_when_the_node_is_free() -> None:
    asking = Asking(Batch(max_rows=8))
    calls = await asking.ask_all([rows(0), rows(1, 2), rows(3), rows(4, 5, 6)])
    first = await asking.running()
    assert (values(first.request), asking.script.pending) == ([0], 0)
    first.reply(doubled(first.request))
    await settle()
    together = await asking.running()
    assert values(together.request) == [1, 2, 3, 4, 5, 6]
    assert not together.request["x"].flags.writeable
    together.reply(doubled(together.request))
    assert [values(await call) for call in calls] == [[0], [2, 4], [6], [8, 10, 12]]


async def test_no_more_rows_go_together_than_the_node_takes_and_nobody_overtakes() -> None:
    asking = Asking(Batch(max_rows=4))
    await asking.ask_all([rows(0), rows(1, 1), rows(2, 2, 2), rows(3)])
    seen: list[list[float]] = []
    while asking.script.pending:
        call = await asking.running()
        seen.append(values(call.request))
        call.echo()
        await settle()
    assert seen == [[0], [1, 1], [2, 2, 2, 3]]


async def test_several_batches_run_at_once_where_the_node_allows_it() -> None:
    asking = Asking(Batch(max_rows=2, max_concurrent=2))
    calls = await asking.ask_all([rows(0), rows(1), rows(2), rows(3), rows(4)])
    first, second = await asking.running(), await asking.running()
    assert (values(first.request), values(second.request), asking.script.pending) == ([0], [1], 0)
    second.echo()
    await settle()
    third = await asking.running()
    assert (values(third.request), asking.script.pending) == ([2, 3], 0)
    first.echo()
    await settle()
    assert values((await asking.running()).request) == [4]
    for call in calls:
        call.cancel()


DIFFERENT = {
    "other names": Tensors({"y": np.ones((1, 1), np.float32)}),
    "more names": Tensors({"x": np.ones((1, 1), np.float32), "y": np.ones((1, 1), np.float32)}),
    "another datatype": Tensors({"x": np.ones((1, 1), np.float64)}),
    "another shape": Tensors({"x": np.ones((1, 2), np.float32)}),
    "more axes": Tensors({"x": np.ones((1, 1, 1), np.float32)}),
}


@pytest.mark.parametrize("kind", DIFFERENT)
async def test_requests_of_different_tensors_do_not_mix(kind: str) -> None:
    asking = Asking(Batch())
    await asking.ask_all([rows(0), rows(1), DIFFERENT[kind], rows(2)])
    (await asking.running()).echo()
    await settle()
    alike = await asking.running()
    assert values(alike.request) == [1, 2]
    alike.echo()
    await settle()
    assert (await asking.running()).request == DIFFERENT[kind]


@pytest.mark.parametrize("other", [{"k": 2}, {"k": "1"}, {"k": True}, {"k": 1.0}, {"j": 1}, {}], ids=repr)
async def test_requests_of_different_parameters_do_not_mix(other: dict[str, int | str | bool | float]) -> None:
    asking = Asking(Batch())
    told = [{}, {"k": 1}, other, {"k": 1}]
    for number, parameters in enumerate(told):
        await asking.ask(rows(number), Context(clock=asking.clock, parameters=parameters))
    (await asking.running()).echo()
    await settle()
    alike = await asking.running()
    assert (values(alike.request), alike.context.parameters) == ([1, 3], {"k": 1})
    alike.echo()
    await settle()
    different = await asking.running()
    assert (values(different.request), different.context.parameters) == ([2], other)


async def test_requests_that_do_not_mix_are_served_in_the_order_of_the_oldest() -> None:
    asking = Asking(Batch(max_rows=2))
    wide = Tensors({"x": np.ones((1, 2), np.float32)})
    await asking.ask_all([rows(0), wide, rows(1), wide, rows(2), rows(3)])
    seen: list[Tensors] = []
    while asking.script.pending:
        call = await asking.running()
        seen.append(call.request)
        call.echo()
        await settle()
    assert [request.rows for request in seen] == [1, 2, 2, 1]
    assert [request["x"].shape[1] for request in seen] == [1, 2, 1, 1]


async def test_tensors_of_another_order_are_the_same_tensors() -> None:
    asking = Asking(Batch())
    one = Tensors({"x": [[1.0]], "y": [[2.0]]})
    other = Tensors({"y": [[4.0]], "x": [[3.0]]})
    await asking.ask_all([one, one, other])
    (await asking.running()).echo()
    await settle()
    assert (await asking.running()).request == Tensors({"x": [[1.0], [3.0]], "y": [[2.0], [4.0]]})


async def test_a_request_without_rows_is_answered_without_rows() -> None:
    asking = Asking(Batch(max_rows=2))
    calls = await asking.ask_all([rows(0), rows(), rows(1), rows(), rows(2)])
    (await asking.running()).echo()
    await settle()
    (await asking.running()).echo()
    assert [values(await call) for call in calls] == [[0], [], [1], [], [2]]


async def test_a_request_of_too_many_rows_is_given_in_pieces() -> None:
    asking = Asking(Batch(max_rows=2))
    large = await asking.ask(rows(1, 2, 3, 4, 5))
    for expected in ([1, 2], [3, 4], [5]):
        call = await asking.running()
        assert values(call.request) == expected
        call.reply(doubled(call.request))
        await settle()
    assert values(await large) == [2, 4, 6, 8, 10]


async def test_others_have_their_turn_between_the_pieces_of_a_large_request() -> None:
    asking = Asking(Batch(max_rows=2))
    large, small = await asking.ask_all([rows(1, 2, 3), rows(9)])
    (await asking.running()).echo()
    await settle()
    assert values((await asking.running()).request) == [9]
    for call in (large, small):
        call.cancel()


async def test_the_row_of_an_error_counts_from_the_callers_own_first_row() -> None:
    asking = Asking(Batch(max_rows=2))
    large = await asking.ask(rows(1, 2, 3, 4))
    (await asking.running()).echo()
    await settle()
    (await asking.running()).fail(InvalidInput("bad", row=1))
    with pytest.raises(InvalidInput) as caught:
        await large
    assert caught.value.row == 3
    assert str(caught.value) == "row 3: bad"


async def test_pieces_that_do_not_fit_together_are_the_nodes_fault() -> None:
    asking = Asking(Batch(max_rows=2))
    large = await asking.ask(rows(1, 2, 3))
    (await asking.running()).reply(Tensors({"x": np.ones((2, 4))}))
    await settle()
    (await asking.running()).reply(Tensors({"x": np.ones((1, 5))}))
    with pytest.raises(NodeFailed, match="do not fit together"):
        await large


# How long anything waits.


async def test_an_idle_node_waits_exactly_max_delay_for_company() -> None:
    asking = Asking(Batch(max_rows=8, max_delay_s=0.005))
    first = await asking.ask(rows(1))
    await asking.clock.advance(0.003)
    second = await asking.ask(rows(2))
    await asking.clock.advance(0.001)
    assert asking.script.pending == 0
    await asking.clock.advance(0.001)
    call = await asking.running()
    assert values(call.request) == [1, 2]
    call.echo()
    assert [values(await one) for one in (first, second)] == [[1], [2]]
    assert asking.clock.planned == 0


async def test_a_full_batch_does_not_wait() -> None:
    asking = Asking(Batch(max_rows=3, max_delay_s=60))
    await asking.ask_all([rows(1), rows(2, 3)])
    call = await asking.running()
    assert values(call.request) == [1, 2, 3]
    call.echo()
    await settle()
    assert asking.clock.planned == 0


async def test_the_delay_counts_from_the_arrival_and_not_from_when_the_node_is_free() -> None:
    asking = Asking(Batch(max_delay_s=5))
    await asking.ask(rows(0))
    await asking.clock.advance(5)
    running = await asking.running()
    await asking.ask(rows(1))
    await asking.clock.advance(3)
    running.echo()
    await settle()
    assert asking.script.pending == 0
    await asking.clock.advance(1.999)
    assert asking.script.pending == 0
    await asking.clock.advance(0.001)
    late = await asking.running()
    await asking.ask(rows(2))
    await asking.clock.advance(7)
    late.echo()
    await settle()
    assert values((await asking.running()).request) == [2], "it had waited longer than the delay"


async def test_the_delay_of_one_that_left_does_not_hurry_the_next() -> None:
    asking = Asking(Batch(max_delay_s=5))
    leaving = await asking.ask(rows(1))
    await asking.clock.advance(3)
    await asking.ask(rows(2))
    leaving.cancel()
    await asking.clock.advance(4.999)
    assert asking.script.pending == 0
    await asking.clock.advance(0.001)
    assert values((await asking.running()).request) == [2]


async def test_one_that_left_alone_leaves_no_timer() -> None:
    asking = Asking(Batch(max_delay_s=5))
    leaving = await asking.ask(rows(1))
    leaving.cancel()
    await settle()
    assert asking.clock.planned == 0
    await asking.clock.advance(10)
    assert asking.script.calls == []


async def test_what_is_left_after_a_full_batch_waits_for_its_own_delay() -> None:
    asking = Asking(Batch(max_rows=2, max_delay_s=5, max_concurrent=2))
    await asking.ask(rows(1))
    await asking.clock.advance(1)
    await asking.ask(rows(2, 3))
    assert values((await asking.running()).request) == [1]
    assert values((await asking.running()).request) == [2, 3]
    await asking.clock.advance(10)
    assert asking.script.pending == 0


async def test_requests_whose_time_ran_out_are_not_run() -> None:
    asking = Asking(Batch())
    running = await asking.ask(rows(0))
    late = await asking.ask(rows(1), asking.context("late", within_s=1.0))
    patient = await asking.ask(rows(2), asking.context("patient", within_s=9.0))
    await asking.clock.advance(1.0)
    (await asking.running()).echo()
    await settle()
    call = await asking.running()
    assert values(call.request) == [2]
    call.echo()
    with pytest.raises(DeadlineExceeded) as caught:
        await late
    assert caught.value.request_id == "late"
    assert [values(await one) for one in (running, patient)] == [[0], [2]]


async def test_a_request_that_comes_too_late_is_not_run_by_an_idle_node() -> None:
    asking = Asking(Batch())
    late = asking.context(within_s=1.0)
    await asking.clock.advance(1.0)
    with pytest.raises(DeadlineExceeded):
        await asking.handler(rows(1), late)
    assert asking.script.calls == []


async def test_a_batch_has_as_much_time_as_the_most_patient_of_its_callers() -> None:
    asking = Asking(Batch())
    await asking.ask(rows(0))
    for seconds in (3.0, 7.0, 5.0):
        await asking.ask(rows(1), asking.context(within_s=seconds))
    (await asking.running()).echo()
    await settle()
    assert (await asking.running()).context.remaining_s() == 7.0
    asking = Asking(Batch())
    await asking.ask(rows(0))
    for seconds in (3.0, None):
        await asking.ask(rows(1), asking.context(within_s=seconds))
    (await asking.running()).echo()
    await settle()
    assert (await asking.running()).context.remaining_s() is None


# Failures: each caller has its own.


async def together(asking: Asking, *numbers: float) -> list[asyncio.Task[Tensors]]:
    """Callers whose rows are on their way to the node in one batch."""
    first, *calls = await asking.ask_all([rows(0), *(rows(number) for number in numbers)])
    (await asking.running()).echo()
    await first
    await settle()
    return calls


async def test_what_a_node_says_of_the_other_rows_is_theirs_and_not_asked_again() -> None:
    asking = Asking(Batch())
    first, *calls = await asking.ask_all([rows(0), rows(1, 2), rows(3, 4), rows(5), rows(6), rows(7)])
    (await asking.running()).echo()
    await first
    call = await asking.running()
    assert values(call.request) == [1, 2, 3, 4, 5, 6, 7]
    assert call.context.partial
    failed = {3: InvalidInput("four"), 5: Unavailable("six", retry_after_s=1.0)}
    call.fail(rows_failed(failed, [0, 1, 2, 4], rows(2, 4, 6, 10), call.context))
    await settle()
    assert await asking.double() == [7], "it was left alone"
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes == [
        rows(2, 4),
        InvalidInput("four", row=1, request_id="2"),
        rows(10),
        Unavailable("six", row=0, request_id="4", retry_after_s=1.0),
        rows(14),
    ]
    assert len(asking.script.calls) == 3


async def test_pieces_before_the_one_that_failed_are_told_to_whoever_has_a_use_for_them() -> None:
    asking = Asking(Batch(max_rows=2))
    large = await asking.ask(rows(1, 2, 3, 4), Context(clock=asking.clock, partial=True))
    await asking.double()
    (await asking.running()).fail(InvalidInput("bad", row=1))
    with pytest.raises(InvalidInput) as caught:
        await large
    partial = take_partial(caught.value)
    assert partial is not None
    assert (list(partial.rows), partial.answer, list(partial.errors)) == ([0, 1], rows(2, 4), [3])


async def test_one_bad_request_fails_alone() -> None:
    asking = Asking(Batch())
    calls = await together(asking, 1, 2, 3, 4, 5)
    seen: list[list[float]] = []
    while asking.script.pending:
        call = await asking.running()
        seen.append(values(call.request))
        if 4 in seen[-1]:
            call.fail(InvalidInput("four", tensor="x", row=seen[-1].index(4), request_id="a batch"))
        else:
            call.reply(doubled(call.request))
        await settle()
    assert seen == [[1, 2, 3, 4, 5], [1, 2], [3, 4, 5], [3], [4, 5], [4], [5]]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes.pop(3) == InvalidInput("four", tensor="x", row=0, request_id="4")
    assert outcomes == [rows(2), rows(4), rows(6), rows(10)]


async def test_errors_are_separate_exceptions_with_the_callers_own_request() -> None:
    asking = Asking(Batch())
    calls = await together(asking, 1, 2, 3)
    (await asking.running()).fail(Overloaded("busy", node="n", row=1, retry_after_s=0.5))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes == [Overloaded("busy", node="n", request_id=str(n), retry_after_s=0.5) for n in (1, 2, 3)]
    assert len({id(outcome) for outcome in outcomes}) == 3


async def test_a_batch_that_fails_for_what_lies_outside_is_not_tried_again() -> None:
    asking = Asking(Batch())
    calls = await together(asking, 1, 2)
    (await asking.running()).fail(Unavailable("gone"))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert asking.script.pending == 0


async def test_a_foreign_exception_fails_each_caller_and_never_hangs() -> None:
    asking = Asking(Batch())
    calls = await together(asking, 1, 2)
    while asking.script.pending:
        (await asking.running()).fail(LookupError("/secret"))
        await settle()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NodeFailed, NodeFailed]
    assert "secret" not in str(outcomes)


SHORT = {
    "a row too few": Tensors({"x": np.ones((1, 1))}),
    "a row too many": Tensors({"x": np.ones((3, 1))}),
    "a scalar": Tensors({"x": 1.0}),
    "one tensor of two": Tensors({"x": np.ones((2, 1)), "y": np.ones((1, 1))}),
}


@pytest.mark.parametrize("kind", SHORT)
async def test_an_answer_whose_rows_cannot_be_told_apart_is_the_nodes_failure(kind: str) -> None:
    asking = Asking(Batch())
    calls = await together(asking, 1, 2)
    (await asking.running()).reply(SHORT[kind])
    await settle()
    for _ in range(2):
        call = await asking.running()
        call.reply(doubled(call.request))
        await settle()
    assert [values(await call) for call in calls] == [[2], [4]], "asked again one by one"


async def test_requests_whose_time_runs_out_while_halves_are_tried_are_not_run() -> None:
    asking = Asking(Batch())
    first = await asking.ask(rows(0))
    good = await asking.ask(rows(1), asking.context("good"))
    late = await asking.ask(rows(2), asking.context("late", within_s=1.0))
    (await asking.running()).echo()
    await first
    await settle()
    (await asking.running()).fail(InvalidInput("bad"))
    await settle()
    half = await asking.running()
    await asking.clock.advance(1.0)
    half.echo()
    await settle()
    assert asking.script.pending == 0
    assert values(await good) == [1]
    with pytest.raises(DeadlineExceeded):
        await late


# Callers that leave.


async def test_a_caller_that_leaves_while_it_waits_takes_no_room_in_the_batch() -> None:
    asking = Asking(Batch(max_rows=2))
    calls = await asking.ask_all([rows(0), rows(1), rows(2), rows(3)])
    calls[1].cancel()
    (await asking.running()).echo()
    await settle()
    assert values((await asking.running()).request) == [2, 3]
    for call in calls:
        call.cancel()


async def test_a_caller_that_leaves_a_running_batch_does_not_disturb_it() -> None:
    asking = Asking(Batch())
    leaving, staying = await together(asking, 1, 2)
    running = await asking.running()
    leaving.cancel()
    await settle()
    assert not running.cancelled
    running.reply(doubled(running.request))
    assert values(await staying) == [4]


async def test_a_batch_that_everybody_left_is_cancelled_and_the_node_is_free_again() -> None:
    asking = Asking(Batch())
    calls = await together(asking, 1, 2)
    running = await asking.running()
    waiting = await asking.ask(rows(3))
    for call in calls:
        call.cancel()
    await settle()
    assert running.cancelled
    assert values((await asking.running()).request) == [3]
    waiting.cancel()


async def test_the_half_of_a_batch_that_everybody_left_is_cancelled() -> None:
    asking = Asking(Batch())
    calls = await together(asking, 1, 2)
    (await asking.running()).fail(InvalidInput("bad"))
    await settle()
    (await asking.running()).echo()
    await settle()
    assert values(await calls[0]) == [1]
    last = await asking.running()
    calls[1].cancel()
    await settle()
    assert last.cancelled


async def test_a_caller_alone_that_leaves_cancels_the_node() -> None:
    asking = Asking(Batch())
    alone = await asking.ask(rows(1))
    running = await asking.running()
    alone.cancel()
    await settle()
    assert running.cancelled
    after = await asking.ask(rows(2))
    (await asking.running()).echo()
    assert values(await after) == [2]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("turns", range(10))
async def test_however_a_cancellation_and_an_answer_meet_the_others_are_answered(turns: int, fails: bool) -> None:
    asking = Asking(Batch())
    leaving, staying = await together(asking, 1, 2)
    running = await asking.running()
    if fails:
        running.fail(Unavailable("gone"))
    else:
        running.echo()
    for _ in range(turns):
        await asyncio.sleep(0)
    leaving.cancel()
    await settle()
    outcome = (await asyncio.gather(staying, return_exceptions=True))[0]
    assert isinstance(outcome, Unavailable) if fails else outcome == rows(2)
    after = await asking.ask(rows(3))
    (await asking.running()).echo()
    assert values(await after) == [3]


async def test_a_caller_cancelled_in_the_very_turn_of_its_error_leaves_it_to_nobody() -> None:
    loop = asyncio.get_running_loop()
    lost: list[object] = []
    loop.set_exception_handler(lambda _, told: lost.append(told))
    calls: list[asyncio.Task[Tensors]] = []

    async def fail(request: Tensors, context: Context, /) -> Tensors:
        await asyncio.sleep(0)
        if values(request) == [1]:
            # Runs after the answer is there, and before the caller has seen it.
            loop.call_soon(calls[1].cancel)
        raise Unavailable("gone")

    handler = Batch()(fail)

    async def ask(number: float) -> Tensors:
        return await handler(rows(number), Context())

    calls += [asyncio.create_task(ask(number)) for number in range(2)]
    await asyncio.wait(calls)
    assert isinstance(calls[0].exception(), Unavailable)
    assert calls[1].cancelled()
    calls.clear()
    gc.collect()
    await settle()
    assert lost == [], "an error that nobody was left to read is not a lost one"


# What is reported.


async def test_each_caller_that_asked_is_told_of_the_time_with_its_own_rows() -> None:
    asking = Asking(Batch())
    first = await asking.ask(rows(0))
    told: list[list[NodeTiming]] = [[], []]
    calls = [
        await asking.ask(rows(*range(index + 1)), Context(clock=asking.clock, timings=told[index]))
        for index in range(2)
    ]
    unasked = await asking.ask(rows(9))
    (await asking.running()).echo()
    await settle()
    running = await asking.running()
    assert running.context.timings is not None
    running.context.timings.extend([NodeTiming(node="n", rows=4, compute_s=0.5)])
    running.echo()
    await asyncio.gather(first, unasked, *calls)
    assert told == [[NodeTiming(node="n", rows=rows, compute_s=0.5)] for rows in (1, 2)]


async def test_a_node_is_not_asked_for_a_report_that_nobody_wants() -> None:
    asking = Asking(Batch())
    await together(asking, 1, 2)
    assert (await asking.running()).context.timings is None


@pytest.mark.parametrize(
    "wrong", [{"max_rows": 0}, {"max_delay": -1.0}, {"max_delay": 61.0}, {"max_concurrent": 0}, {"rows": 1}], ids=repr
)
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Batch.model_validate(wrong)
