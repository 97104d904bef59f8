from __future__ import annotations

import asyncio
import random
from math import log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.batches.asking import Answers, Asking, Patience
from mesh.context import Context
from mesh.errors import (
    DeadlineExceeded,
    InvalidInput,
    NodeFailed,
    NotFound,
    Overloaded,
    RequestError,
    Unavailable,
)
from mesh.tensors import Tensors
from mesh.testing import ManualClock, ScriptedHandler, settle
from mesh.transports.status import BROKEN_OFF
from tests.unit.batches.given import HASTY

PATIENT = Patience(attempts=3, first_s=1.0, most_s=4.0)


def rows(count: int, first: int = 0) -> Tensors:
    return Tensors({"x": np.arange(first, first + count)})


async def ask(handler: Any, count: int, patience: Patience = HASTY, **settings: Any) -> Answers:
    answers = Answers()
    await Asking(handler, ["x"], patience=patience, **settings)(np.arange(count) + 100, rows(count), answers)
    return answers


def answered(answers: Answers) -> list[int]:
    return sorted(place for places, _ in answers.parts for place in places.tolist())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.sets(st.integers(0, 59)), st.booleans())
async def test_each_row_is_answered_or_failed_once_whichever_are_bad_and_whether_they_are_named(
    count: int, bad: set[int], named: bool
) -> None:
    asked = 0

    async def handler(request: Tensors, context: Context) -> Tensors:
        nonlocal asked
        asked += request.rows
        for place, value in enumerate(request["x"].tolist()):
            if value in bad:
                raise InvalidInput(f"bad {value}", row=place if named else None)
        return request

    answers = await ask(handler, count)
    bad = {row for row in bad if row < count}
    assert {place: error.text for place, error in answers.failed.items()} == {row + 100: f"bad {row}" for row in bad}
    assert answered(answers) == [row + 100 for row in range(count) if row not in bad]
    for places, tensors in answers.parts:
        assert (tensors["x"] + 100).tolist() == places.tolist()
    assert asked <= 4 * count * (log2(count) + 1)


async def test_one_bad_row_that_is_named_costs_one_more_request() -> None:
    requests: list[int] = []

    async def handler(request: Tensors, context: Context) -> Tensors:
        requests.append(request.rows)
        if 7 in request["x"]:
            raise InvalidInput("bad", row=request["x"].tolist().index(7))
        return request

    answers = await ask(handler, 64)
    assert requests == [64, 63]
    assert set(answers.failed) == {107}


@pytest.mark.parametrize("row", [-1, 64])
async def test_a_row_that_there_is_not_is_nobody(row: int) -> None:
    async def handler(request: Tensors, context: Context) -> Tensors:
        if request.rows > 1:
            raise InvalidInput("bad", row=row)
        return request

    assert answered(await ask(handler, 4)) == [100, 101, 102, 103]


@pytest.mark.parametrize("error", [Unavailable("gone"), NodeFailed(BROKEN_OFF), Unavailable("open", retry_after_s=2)])
async def test_what_may_pass_is_waited_for_and_asked_again(error: RequestError) -> None:
    script, clock = ScriptedHandler(), ManualClock()
    asking = asyncio.ensure_future(ask(script, 2, PATIENT, clock=clock, chance=random.Random(1)))
    (await script.request()).fail(error)
    await settle()
    assert script.pending == 0
    await clock.advance(3.0)
    (await script.request()).echo()
    assert answered(await asking) == [100, 101]
    assert clock.planned == 0


async def test_patience_ends_and_the_error_is_passed_on() -> None:
    handler = ScriptedHandler()
    asking = asyncio.ensure_future(ask(handler, 2))
    for _ in range(HASTY.attempts):
        (await handler.request()).fail(Unavailable("gone"))
    with pytest.raises(Unavailable):
        await asking
    assert len(handler.calls) == HASTY.attempts


async def test_waits_grow_to_their_bound_and_a_hint_is_waited_for_up_to_it() -> None:
    always = random.Random(1)
    always.random = lambda: 1.0  # type: ignore[method-assign]
    assert [PATIENT.delay_s(made, Unavailable(""), always) for made in (1, 2, 3, 9)] == [1.0, 2.0, 4.0, 4.0]
    assert PATIENT.delay_s(1, Overloaded("", retry_after_s=3), always) == 4.0
    assert PATIENT.delay_s(1, Overloaded("", retry_after_s=3600), always) == 5.0


async def test_a_request_that_is_too_large_for_who_is_overloaded_is_halved() -> None:
    async def handler(request: Tensors, context: Context) -> Tensors:
        if request.rows > 3:
            raise Overloaded("full")
        return request

    assert answered(await ask(handler, 16)) == list(range(100, 116))


async def test_a_row_that_is_refused_by_itself_is_not_a_bad_row() -> None:
    async def handler(request: Tensors, context: Context) -> Tensors:
        raise Overloaded("full")

    with pytest.raises(Overloaded):
        await ask(handler, 2)


async def test_rows_have_the_time_that_each_would_have_by_itself_and_a_slow_one_fails_alone() -> None:
    seen: dict[int, float | None] = {}

    async def handler(request: Tensors, context: Context) -> Tensors:
        seen[request.rows] = context.remaining_s()
        if 3 in request["x"]:
            raise DeadlineExceeded("slow")
        return request

    answers = await ask(
        handler, 4, Patience(attempts=3, first_s=0.0, most_s=0.0, row_timeout_s=2.0), clock=ManualClock()
    )
    assert seen == {4: 8.0, 2: 4.0, 1: 2.0}
    assert answers.failed == {103: DeadlineExceeded("slow")}


async def test_no_request_has_more_than_an_hour() -> None:
    async def handler(request: Tensors, context: Context) -> Tensors:
        assert context.remaining_s() == 3600.0
        return request

    await ask(handler, 1000, Patience(row_timeout_s=30.0), clock=ManualClock())


@pytest.mark.parametrize(
    "answer", [Tensors({"y": [1, 2]}), Tensors({"x": [1, 2, 3]}), Tensors({"x": [1]}, sources=[2]), Tensors({})]
)
async def test_an_answer_that_is_none_to_these_rows_is_a_failure_of_each(answer: Tensors) -> None:
    async def handler(request: Tensors, context: Context) -> Tensors:
        return answer

    answers = await ask(handler, 2)
    assert set(answers.failed) == {100, 101}
    assert {type(error) for error in answers.failed.values()} == {NodeFailed}


async def test_rows_that_were_made_of_others_are_told_by_those_and_one_without_any_has_no_answer() -> None:
    async def handler(request: Tensors, context: Context) -> Tensors:
        return Tensors({"x": [0, 0, 2]}, sources=[0, 0, 2])

    answers = await ask(handler, 4)
    ((places, _),) = answers.parts
    assert places.tolist() == [100, 100, 102]
    assert answers.failed == dict.fromkeys([101, 103], NotFound("the graph has no answer for this row"))


async def test_parameters_travel_with_every_request() -> None:
    async def handler(request: Tensors, context: Context) -> Tensors:
        assert context.parameters == {"lang": "en"}
        return request

    await ask(handler, 2, parameters={"lang": "en"})
