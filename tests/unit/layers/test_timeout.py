from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from mesh.errors import DeadlineExceeded
from mesh.layers import Timeout
from tests.unit.layers.given import Asking, rows


async def test_a_node_that_takes_too_long_is_cancelled_at_the_very_moment() -> None:
    asking = Asking(Timeout(after_s=2.0))
    slow = await asking.ask(rows(1))
    call = await asking.running()
    assert call.context.remaining_s() == 2.0
    await asking.clock.advance(1.999)
    assert not slow.done()
    await asking.clock.advance(0.001)
    assert call.cancelled
    with pytest.raises(DeadlineExceeded):
        await slow


async def test_a_request_keeps_a_deadline_that_is_earlier() -> None:
    asking = Asking(Timeout(after_s=2.0))
    slow = await asking.ask(rows(1), asking.context("r", within_s=0.5))
    assert (await asking.running()).context.remaining_s() == 0.5
    await asking.clock.advance(0.5)
    with pytest.raises(DeadlineExceeded) as caught:
        await slow
    assert caught.value.request_id == "r"


async def test_an_answer_in_time_leaves_no_timer() -> None:
    asking = Asking(Timeout(after_s=2.0))
    quick = await asking.ask(rows(1))
    (await asking.running()).echo()
    assert await quick == rows(1)
    assert asking.clock.planned == 0


async def test_a_request_whose_time_has_run_out_is_not_begun() -> None:
    asking = Asking(Timeout(after_s=2.0))
    late = asking.context(within_s=1.0)
    await asking.clock.advance(1.0)
    with pytest.raises(DeadlineExceeded):
        await asking.handler(rows(1), late)
    assert asking.script.calls == []


async def test_a_caller_that_leaves_is_cancelled_and_not_late() -> None:
    asking = Asking(Timeout(after_s=2.0))
    leaving = await asking.ask(rows(1))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await asking.running()).cancelled
    assert asking.clock.planned == 0


def test_the_file_says_after_with_a_unit() -> None:
    assert Timeout.model_validate({"after": "80ms"}, context={"from_file": True}) == Timeout(after_s=0.08)
    with pytest.raises(ValidationError):
        Timeout.model_validate({"after": 80}, context={"from_file": True})
    with pytest.raises(ValidationError):
        Timeout(after_s=0.0)
