from __future__ import annotations

import asyncio
from contextlib import suppress

import numpy as np
import pytest

from mesh.context import Context
from mesh.errors import InvalidInput, Unavailable
from mesh.runtime import shadowing
from mesh.runtime.shadowing import MAX_IN_FLIGHT, Comparison
from mesh.tensors import Tensors
from mesh.testing import settle
from tests.unit.runtime.given import flow, numbers, values

NODES = {
    "out": "Affine, with: {times: 2}, inputs: {x: x}",
    "new": "Affine, with: {times: 2}, inputs: {x: x}, shadow: out",
}


async def test_a_shadow_is_given_what_was_asked_and_never_waited_for() -> None:
    async with flow(NODES, scripted=["new"]) as given:
        assert values(await given.answer(1, 2)) == [2, 4]
        call = await given.called("new")
        assert call.request == numbers(1, 2)
        assert call.context.request_id == "r"
        call.reply(numbers(2, 5))
        await given.shadow.settled()
        assert given.shadow.comparison == Comparison(rows_alike=1, rows_unlike=1)


async def test_a_shadow_that_fails_is_counted_and_harms_nobody() -> None:
    async with flow(NODES, scripted=["new"]) as given:
        for error in (Unavailable("gone"), RuntimeError("of its own"), InvalidInput("no")):
            assert values(await given.answer(1)) == [2]
            await given.fail("new", error)
        assert given.shadow.comparison == Comparison(failed=3)


async def test_a_shadow_that_hangs_is_ended_by_its_timeout_and_not_by_the_deadline_of_the_caller() -> None:
    async with flow(NODES, scripted=["new"]) as given:
        await given.executor(numbers(1), Context(clock=given.clock).within(0.5))
        await given.clock.advance(1.0)
        call = await given.called("new")
        assert not call.cancelled
        await given.clock.advance(30.0)
        assert call.cancelled
        assert given.shadow.comparison == Comparison(failed=1)


async def test_a_shadow_that_does_not_keep_up_is_given_only_so_many_requests() -> None:
    async with flow(NODES, scripted=["new"]) as given:
        for _ in range(MAX_IN_FLIGHT + 3):
            await given.answer(1)
        await settle()
        assert given.calls("new") == MAX_IN_FLIGHT
        assert given.shadow.comparison == Comparison(dropped=3)
        await given.reply("new", 2)
        await given.answer(1)
        await settle()
        assert given.calls("new") == MAX_IN_FLIGHT + 1
        await given.shadow.close()
        assert all(call.cancelled for call in given.scripts["new"].calls[1:])
        await given.answer(1)
        await settle()
        assert given.calls("new") == MAX_IN_FLIGHT + 1


async def test_closing_does_not_wait_for_ever_for_a_shadow_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowing, "CUT_OFF_S", 0.01)
    release = asyncio.Event()

    async def stubborn(request: Tensors, context: Context, /) -> Tensors:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        return request

    async with flow(NODES, handlers={"new": stubborn}) as given:
        await given.answer(1)
        await settle()
        await given.shadow.close()
        release.set()


async def test_a_shadow_is_compared_on_the_rows_that_both_have() -> None:
    nodes = {
        "large": 'Affine, inputs: {x: x}, when: "x > 2"',
        "new": 'Affine, inputs: {x: x}, when: "x != 4", shadow: large',
        "all": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [large, all]",
    }
    async with flow(nodes, scripted=["new"]) as given:
        await given.answer(1, 3, 4, 5)
        call = await given.called("new")
        assert values(call.request) == [1, 3, 5]
        call.reply(numbers(1, 3, 6))
        await given.shadow.settled()
        assert given.shadow.comparison == Comparison(rows_alike=1, rows_unlike=1)


async def test_a_shadow_of_a_node_that_failed_or_lost_is_not_asked() -> None:
    nodes = {
        "a": "Affine, inputs: {x: x}",
        "b": "Affine, inputs: {x: x}",
        "new": "Affine, inputs: {x: x}, shadow: a",
        "out": "FirstOf, inputs: [a, b], join: first",
    }
    async with flow(nodes, scripted=["a", "b", "new"]) as given:
        asking = await given.ask(1)
        await given.reply("b", 1)
        await asking
        asking = await given.ask(1)
        await given.called("a")
        await given.fail("a", Unavailable("gone"))
        await given.reply("b", 1)
        await asking
        await settle()
        assert given.calls("new") == 0


async def test_a_request_that_is_not_answered_is_not_mirrored() -> None:
    nodes = {**NODES, "out": "Faulty, with: {how: raises}, inputs: {x: x}"}
    async with flow(nodes, scripted=["new"]) as given:
        await given.error(1)
        await settle()
        assert given.calls("new") == 0


async def test_a_stream_is_mirrored_once_it_was_read_to_its_end() -> None:
    async with flow(NODES, scripted=["new"]) as given:
        assert [node async for node, _ in given.stream(1)] == ["out"]
        await given.reply("new", 2)
        assert given.shadow.comparison == Comparison(rows_alike=1)


@pytest.mark.parametrize(
    ("mine", "alike"),
    [
        ([1.0, np.nan, 3.0], 3),
        ([1.0 + 1e-7, np.nan, 3.00001], 3),
        ([1.001, np.nan, np.inf], 1),
        ([1.0, 2.0, -3.0], 1),
    ],
)
async def test_numbers_that_differ_as_another_batch_makes_them_differ_are_alike(mine: list[float], alike: int) -> None:
    nodes = {**NODES, "out": "Affine, inputs: {x: x}"}
    async with flow(nodes, scripted=["new"]) as given:
        await given.answer(1.0, np.nan, 3.0)
        await given.reply("new", *mine)
        assert given.shadow.comparison == Comparison(rows_alike=alike, rows_unlike=3 - alike)


async def test_rows_of_another_shape_are_unlike() -> None:
    nodes = {
        "out": "Wide, with: {width: 2}, inputs: {x: x}",
        "new": "Wide, with: {width: 3}, inputs: {x: x}, shadow: out",
    }
    async with flow(nodes) as given:
        await given.answer(1, 2)
        await given.shadow.settled()
        assert given.shadow.comparison == Comparison(rows_unlike=2)
