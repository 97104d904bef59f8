from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mesh.context import Context, NodeTiming
from mesh.errors import REQUEST_ERRORS, Overloaded, RequestError, Unavailable
from mesh.handler import Handler
from mesh.layers import Retry
from mesh.tensors import Tensors
from mesh.testing import ManualClock, settle
from tests.unit.layers.given import Asking, HandClock, rows

EXACT = Retry(attempts=4, first_delay_s=1.0, factor=3.0, max_delay_s=5.0, jitter=0.0, budget=1000)
"""Waits of 1, 3 and 5 seconds."""


async def test_a_node_that_could_not_be_reached_is_asked_again_after_waits_that_grow_to_their_bound() -> None:
    asking = Asking(EXACT)
    call = await asking.ask(rows(1))
    for wait_s in (1.0, 3.0, 5.0):
        (await asking.running()).fail(Unavailable("gone"))
        await asking.clock.advance(wait_s - 0.001)
        assert asking.script.pending == 0
        await asking.clock.advance(0.001)
    (await asking.running()).echo()
    assert await call == rows(1)
    assert asking.clock.planned == 0


async def test_the_error_of_the_last_attempt_is_told_and_no_attempt_is_made_beyond_the_bound() -> None:
    asking = Asking(EXACT)
    call = await asking.ask(rows(1))
    for index in range(4):
        (await asking.running()).fail(Unavailable(f"gone {index}"))
        await asking.clock.advance(5.0)
    with pytest.raises(Unavailable, match="gone 3"):
        await call
    assert len(asking.script.calls) == 4


@pytest.mark.parametrize("error", [error for error in REQUEST_ERRORS.values() if not error.retryable])
async def test_an_error_that_is_not_retryable_is_told_at_once(error: type[RequestError]) -> None:
    asking = Asking(EXACT)
    call = await asking.ask(rows(1))
    (await asking.running()).fail(error("why"))
    with pytest.raises(error):
        await call
    assert (len(asking.script.calls), asking.clock.planned) == (1, 0)


async def test_a_foreign_exception_is_told_at_once() -> None:
    asking = Asking(EXACT)
    call = await asking.ask(rows(1))
    (await asking.running()).fail(LookupError("foreign"))
    with pytest.raises(LookupError):
        await call


# Hints.


@pytest.mark.parametrize(
    "error",
    [Overloaded("full"), Overloaded("full", retry_after_s=0.5), Unavailable("open", retry_after_s=0.5)],
    ids=repr,
)
async def test_who_says_when_to_come_back_is_left_alone_unless_told_otherwise(error: RequestError) -> None:
    asking = Asking(EXACT)
    call = await asking.ask(rows(1))
    (await asking.running()).fail(error)
    with pytest.raises(type(error)):
        await call
    assert len(asking.script.calls) == 1


@pytest.mark.parametrize(
    "error", [Overloaded("full", retry_after_s=2.0), Unavailable("open", retry_after_s=2.0)], ids=repr
)
async def test_a_hint_is_waited_for_where_the_settings_say_so(error: RequestError) -> None:
    asking = Asking(EXACT.model_copy(update={"wait_for_hint": True}))
    call = await asking.ask(rows(1))
    (await asking.running()).fail(error)
    await asking.clock.advance(2.999)
    assert asking.script.pending == 0, "two seconds of the hint, and one of our own"
    await asking.clock.advance(0.001)
    (await asking.running()).echo()
    assert await call == rows(1)


async def test_a_hint_beyond_the_longest_wait_is_not_waited_for() -> None:
    asking = Asking(EXACT.model_copy(update={"wait_for_hint": True}))
    call = await asking.ask(rows(1))
    (await asking.running()).fail(Overloaded("full", retry_after_s=5.001))
    with pytest.raises(Overloaded):
        await call


# Time.


@pytest.mark.parametrize(("within_s", "attempts"), [(1.0, 1), (1.001, 2), (4.0, 2), (4.001, 3)])
async def test_no_attempt_is_waited_for_that_would_begin_after_the_deadline(within_s: float, attempts: int) -> None:
    asking = Asking(EXACT)
    call = await asking.ask(rows(1), asking.context(within_s=within_s))
    for _ in range(attempts):
        (await asking.running()).fail(Unavailable("gone"))
        await settle()
        if not call.done():
            await asking.clock.advance(1.0 if len(asking.script.calls) == 1 else 3.0)
    with pytest.raises(Unavailable):
        await call
    assert len(asking.script.calls) == attempts


async def test_each_attempt_has_the_callers_deadline_and_no_more() -> None:
    asking = Asking(EXACT)
    context = asking.context(within_s=60.0)
    call = await asking.ask(rows(1), context)
    (await asking.running()).fail(Unavailable("gone"))
    await asking.clock.advance(1.0)
    assert (await asking.running()).context is context
    call.cancel()


@pytest.mark.parametrize("turns", range(6))
async def test_a_caller_that_leaves_while_waiting_leaves_no_timer_and_no_attempt(turns: int) -> None:
    asking = Asking(EXACT)
    call = await asking.ask(rows(1))
    (await asking.running()).fail(Unavailable("gone"))
    for _ in range(turns):
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert asking.clock.planned == 0
    await asking.clock.advance(100.0)
    assert len(asking.script.calls) == 1


@pytest.mark.parametrize("turns", range(6))
async def test_a_caller_that_leaves_in_the_turn_in_which_its_wait_is_over_is_cancelled(turns: int) -> None:
    asking = Asking(EXACT)
    call = await asking.ask(rows(1))
    (await asking.running()).fail(Unavailable("gone"))
    await settle()
    asking.clock.call_at(asking.clock.now() + 1.0, lambda: _after(turns, call.cancel))
    await asking.clock.advance(1.0)
    assert call.cancelled()
    assert all(one.cancelled for one in asking.script.calls[1:])


def _after(turns: int, callback: Callable[[], object]) -> None:
    if turns == 0:
        callback()
    else:
        asyncio.get_running_loop().call_soon(_after, turns - 1, callback)


async def test_a_wait_that_ends_in_the_turn_in_which_its_caller_leaves_ends_quietly() -> None:
    clock = HandClock()

    async def fail(request: Tensors, context: Context, /) -> Tensors:
        raise Unavailable("gone")

    call = asyncio.ensure_future(_call(EXACT(fail), Context(clock=clock)))
    await settle()
    call.cancel()
    (timer,) = clock.timers
    timer.fire()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_only_the_attempt_that_answered_is_reported() -> None:
    asking = Asking(EXACT)
    told: list[NodeTiming] = []
    call = await asking.ask(rows(1), Context(clock=asking.clock, timings=told))
    for index, ends in enumerate((False, True)):
        running = await asking.running()
        assert running.context.timings is not None
        running.context.timings.append(NodeTiming(node=f"n{index}"))
        running.echo() if ends else running.fail(Unavailable("gone"))
        await asking.clock.advance(1.0)
    await call
    assert [timing.node for timing in told] == ["n1"]


# Jitter.


async def instants_of(retry: Retry) -> list[float]:
    """When the attempts of one request began, all of which failed at once."""
    clock = ManualClock()
    began: list[float] = []

    async def fail(request: Tensors, context: Context, /) -> Tensors:
        began.append(clock.now())
        raise Unavailable("gone")

    call = asyncio.ensure_future(_call(retry(fail), Context(clock=clock)))
    await clock.advance(retry.attempts * 60.0)
    assert isinstance(call.exception(), Unavailable)
    return began


async def _call(handler: Handler[Tensors], context: Context) -> Tensors:
    return await handler(rows(1), context)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(0.001, 60), st.floats(0.001, 60)).map(sorted),
    st.floats(1, 10),
    st.floats(0, 1),
    st.integers(0, 2**32),
    st.integers(2, 5),
)
async def test_every_wait_lies_between_its_bounds(
    delays_s: list[float], factor: float, jitter: float, seed: int, attempts: int
) -> None:
    first_s, longest_s = delays_s
    retry = Retry(
        attempts=attempts,
        first_delay_s=first_s,
        factor=factor,
        max_delay_s=longest_s,
        jitter=jitter,
        budget=1000,
        seed=seed,
    )
    began = await instants_of(retry)
    assert len(began) == attempts
    for index, (one, following) in enumerate(pairwise(began)):
        whole_s = min(first_s * factor**index, longest_s)
        # Instants in the thousands of seconds are exact to about 1e-12.
        assert whole_s * (1 - jitter) - 1e-9 <= following - one <= whole_s + 1e-9


async def test_a_seed_makes_the_waits_repeatable_and_without_one_they_differ() -> None:
    seeded = [await instants_of(Retry(attempts=5, budget=1000, seed=7)) for _ in range(2)]
    unseeded = [await instants_of(Retry(attempts=5, budget=1000)) for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert unseeded[0] != unseeded[1]


# The budget.


async def test_when_half_of_the_budget_is_spent_errors_are_told_at_once_until_others_succeed() -> None:
    outcomes: list[bool] = []
    made = 0

    async def node(request: Tensors, context: Context, /) -> Tensors:
        nonlocal made
        made += 1
        if not outcomes.pop(0):
            raise Unavailable("gone")
        return request

    clock = ManualClock()
    handler = Retry(attempts=2, budget=4, refill=0.5, first_delay_s=1.0)(node)

    async def attempts_of(*ends: bool) -> int:
        nonlocal made
        made, outcomes[:] = 0, ends
        call = asyncio.ensure_future(_call(handler, Context(clock=clock)))
        await clock.advance(1.0)
        await asyncio.gather(call, return_exceptions=True)
        return made

    assert await attempts_of(False, False) == 2, "four tokens: three are left, so it is tried again, and two are left"
    assert await attempts_of(False) == 1, "one token is left"
    assert [await attempts_of(True) for _ in range(3)] == [1, 1, 1]
    assert await attempts_of(False) == 1, "two and a half less one are not more than half of four"
    assert [await attempts_of(True) for _ in range(4)] == [1, 1, 1, 1]
    assert await attempts_of(False, True) == 2, "three and a half less one are"


async def test_the_budget_does_not_grow_beyond_its_size() -> None:
    asking = Asking(Retry(attempts=2, budget=4, refill=1.0, first_delay_s=1.0))
    for _ in range(100):
        call = await asking.ask(rows(1))
        (await asking.running()).echo()
        await call
    calls = await asking.ask_all([rows(1)] * 10)
    for _ in calls:
        (await asking.running()).fail(Unavailable("gone"))
    await settle()
    assert sum(not call.done() for call in calls) == 1, "one token is taken before more than half are asked for"
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(1, 12),
    refill=st.sampled_from([0.05, 0.1, 0.5, 1.0]),
    attempts=st.integers(2, 5),
    calls=st.integers(1, 150),
    fails=st.floats(0, 1),
    leaves=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 2**32),
)
async def test_a_failing_node_sees_no_more_retries_than_the_budget_and_the_successes_pay_for(
    budget: int, refill: float, attempts: int, calls: int, fails: float, leaves: float, seed: int
) -> None:
    clock = ManualClock()
    chance = random.Random(seed)
    made: dict[str, int] = {}
    succeeded = 0

    async def node(request: Tensors, context: Context, /) -> Tensors:
        nonlocal succeeded
        made[context.request_id] = made.get(context.request_id, 0) + 1
        await asyncio.sleep(0)
        if chance.random() < fails:
            raise Unavailable("gone", request_id=context.request_id)
        succeeded += 1
        return request

    before = asyncio.all_tasks()
    handler = Retry(attempts=attempts, budget=budget, refill=refill, seed=seed)(node)
    tasks: list[asyncio.Task[Tensors]] = []
    for index in range(calls):
        tasks.append(asyncio.create_task(_call(handler, Context(request_id=f"{index}", clock=clock))))
        if chance.random() < 0.3:
            await clock.advance(0.02)
        if chance.random() < leaves:
            chance.choice(tasks).cancel()
    await clock.advance(10.0)
    assert all(task.done() for task in tasks)
    await asyncio.gather(*tasks, return_exceptions=True)
    retries = sum(made.values()) - len(made)
    assert retries <= math.ceil(budget / 2 + refill * succeeded)
    assert all(count <= attempts for count in made.values())
    assert asyncio.all_tasks() == before
    assert clock.planned == 0


def test_the_file_says_waits_with_units() -> None:
    written = {"attempts": 2, "first_delay": "5ms", "max_delay": "80ms", "wait_for_hint": True}
    read = Retry.model_validate(written, context={"from_file": True})
    assert read == Retry(attempts=2, first_delay_s=0.005, max_delay_s=0.08, wait_for_hint=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 1},
        {"attempts": 6},
        {"first_delay": 0.0},
        {"first_delay": 2.0, "max_delay": 1.0},
        {"factor": 0.5},
        {"jitter": 1.1},
        {"budget": 0},
        {"refill": 0.0},
        {"tries": 3},
    ],
    ids=repr,
)
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Retry.model_validate(wrong)
