from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing

import pytest

from mesh.errors import DeadlineExceeded, Unavailable
from mesh.tensors import Tensors
from mesh.testing import settle
from tests.unit.runtime.given import Flow, flow, numbers, values


def dead() -> Unavailable:
    return Unavailable("gone")


LATE_B = ("b", DeadlineExceeded("was not there in time", node="b", request_id="r"))
OF_B = Unavailable("gone", node="b", request_id="r")
NODES = {
    "a": "Affine, inputs: {x: x}",
    "b": "Affine, inputs: {x: x}",
    "out": "Mean, inputs: [a, b]",
}
QUORUM = {**NODES, "c": "Affine, inputs: {x: x}", "out": "Mean, inputs: [a, b, c], join: {quorum: 2}"}


class Reading:
    """What a stream has told so far."""

    def __init__(self, given: Flow, *request: float) -> None:
        self.events: list[tuple[str, object]] = []
        self.task = asyncio.ensure_future(self._read(given, request))

    async def _read(self, given: Flow, request: tuple[float, ...]) -> None:
        async with aclosing(given.stream(*request)) as events:
            async for node, result in events:
                found = result if not isinstance(result, Tensors) else values(result, next(iter(result)))
                self.events.append((node, found))


async def test_each_branch_is_told_as_it_ends_and_then_the_aggregate() -> None:
    async with flow(NODES, scripted="ab") as given:
        reading = Reading(given, 1, 2)
        await given.reply("b", 3, 4)
        assert reading.events == [("b", [3, 4])]
        await given.reply("a", 5, 6)
        await reading.task
        assert reading.events == [("b", [3, 4]), ("a", [5, 6]), ("out", [4, 5])]


async def test_a_branch_that_ran_on_some_rows_says_which_of_the_request() -> None:
    nodes = {
        "small": "Affine, inputs: {x: x}",
        "large": 'Affine, with: {plus: 100}, inputs: {x: x}, when: "small.x > 2"',
        "out": "FirstOf, inputs: [large, small]",
    }
    async with flow(nodes) as given:
        events = {node: result async for node, result in given.stream(3, 1, 4)}
    large, out = events["large"], events["out"]
    assert isinstance(large, Tensors)
    assert isinstance(out, Tensors)
    assert large == Tensors({"x": numbers(103, 104)["x"]}, sources=[0, 2])
    assert out == numbers(103, 1, 104)


async def test_a_branch_of_expanded_rows_says_which_row_of_the_request_each_came_from() -> None:
    nodes = {"lines": "Lines, inputs: {x: x}", "out": "Gather, with: {how: {x: sum}}, inputs: [lines]"}
    async with flow(nodes) as given:
        events = [event async for event in given.stream(2, 0, 1)]
    assert events == [
        ("lines", Tensors({"x": numbers(20, 21, 10)["x"]}, sources=[0, 0, 2])),
        ("out", numbers(41, 0, 10)),
    ]


async def test_an_optional_branch_that_fails_is_one_event_and_the_stream_goes_on() -> None:
    async with flow(QUORUM, scripted="abc") as given:
        reading = Reading(given, 1)
        await given.fail("b", dead())
        assert reading.events == [("b", OF_B)]
        await given.reply("a", 1)
        await given.reply("c", 3)
        await reading.task
        assert reading.events == [("b", OF_B), ("a", [1]), ("c", [3]), ("out", [2])]


async def test_a_loser_is_not_told() -> None:
    async with flow(QUORUM, scripted="abc") as given:
        reading = Reading(given, 1)
        await given.reply("a", 1)
        await given.reply("c", 3)
        await reading.task
        assert reading.events == [("a", [1]), ("c", [3]), ("out", [2])]
        assert given.scripts["b"].calls[0].cancelled


async def test_a_branch_that_is_needed_and_fails_is_the_last_event_and_told_once() -> None:
    async with flow(NODES, scripted="ab") as given:
        reading = Reading(given, 1)
        await given.fail("b", dead())
        await reading.task
        assert reading.events == [("b", OF_B)]
        assert given.scripts["a"].calls[0].cancelled


async def test_what_fails_behind_the_branches_ends_the_stream_with_its_error() -> None:
    async with flow(NODES, scripted=["a", "b", "out"]) as given:
        reading = Reading(given, 1)
        await given.reply("a", 1)
        await given.reply("b", 2)
        await given.fail("out", dead())
        await reading.task
        assert reading.events == [("a", [1]), ("b", [2]), ("out", Unavailable("gone", node="out", request_id="r"))]


async def test_a_node_before_the_branches_that_fails_ends_the_stream_with_its_error() -> None:
    nodes = {
        "before": "Affine, inputs: {x: x}",
        "after": "Affine, inputs: {x: before.x}",
    }
    async with flow(nodes, "x: after.x", scripted=["before"]) as given:
        reading = Reading(given, 1)
        await given.fail("before", dead())
        await reading.task
        assert reading.events == [("before", Unavailable("gone", node="before", request_id="r"))]


async def test_a_join_that_is_not_reached_ends_the_stream_with_its_own_error() -> None:
    nodes = {**NODES, "out": "Mean, inputs: [a, b], join: {quorum: 2, deadline: 80ms}"}
    async with flow(nodes, scripted="ab") as given:
        reading = Reading(given, 1)
        await given.reply("a", 1)
        await given.clock.advance(0.08)
        await reading.task
        text = "1 of 2 branches were there in time; missing: b"
        assert reading.events == [("a", [1]), LATE_B, ("out", DeadlineExceeded(text, node="out", request_id="r"))]
        assert given.scripts["b"].calls[0].cancelled


@pytest.mark.parametrize("join", ["{deadline: 80ms}", "{deadline: 1s, quorum: 1, timeouts: {b: 80ms}}"])
async def test_a_branch_that_is_late_is_one_event_before_the_aggregate(join: str) -> None:
    async with flow({**NODES, "out": f"Mean, inputs: [a, b], join: {join}"}, scripted="ab") as given:
        reading = Reading(given, 1)
        await given.reply("a", 1)
        await given.clock.advance(0.08)
        await reading.task
        assert reading.events == [("a", [1]), LATE_B, ("out", [1])]


async def test_a_branch_that_is_late_for_its_join_and_an_output_as_well_is_told_when_it_comes() -> None:
    nodes = {**NODES, "out": "Mean, inputs: [a, b], join: {deadline: 80ms}"}
    async with flow(nodes, "x: out.x, b: b.x", scripted="ab") as given:
        reading = Reading(given, 1)
        await given.reply("a", 1)
        await given.clock.advance(0.08)
        await given.reply("b", 7)
        await reading.task
        assert reading.events == [("a", [1]), ("out", [1]), ("b", [7])]


async def test_nothing_is_told_after_the_error_that_ends_a_stream() -> None:
    async with flow({**NODES, "c": "Affine, inputs: {x: x}"}, "x: out.x, c: c.x", scripted="abc") as given:
        reading = Reading(given, 1)
        b, c = await given.called("b"), await given.called("c")
        b.fail(dead())
        c.reply(numbers(1))  # in the same turn
        await reading.task
        assert reading.events == [("b", OF_B)]


async def test_a_branch_that_lost_is_not_told_to_be_late_afterwards() -> None:
    nodes = {**NODES, "c": "Affine, inputs: {x: x}"}
    nodes["out"] = "Mean, inputs: [a, b], join: {quorum: 1, timeouts: {b: 80ms}}"
    async with flow(nodes, "x: out.x, c: c.x", scripted="abc") as given:
        reading = Reading(given, 1)
        await given.reply("a", 1)
        await given.clock.advance(0.08)
        await given.reply("c", 2)
        await reading.task
        assert reading.events == [("a", [1]), ("out", [1]), ("c", [2])]


async def test_a_branch_that_fails_in_several_ways_at_once_is_one_event() -> None:
    nodes = {
        "before": "Affine, inputs: {x: x}",
        "one": "Affine, inputs: {x: before.x}",
        "two": "Affine, inputs: {x: before.x}",
        "a": "Add, inputs: {a: one.x, b: two.x}",
        "b": "Affine, inputs: {x: x}",
        "out": "FirstOf, inputs: [a, b], join: {required: [b]}",
    }
    async with flow(nodes, scripted=["before", "b"]) as given:
        reading = Reading(given, 1)
        await given.fail("before", dead())
        await given.reply("b", 2)
        await reading.task
        of_before = Unavailable("gone", node="before", request_id="r")
        assert reading.events == [("a", of_before), ("b", [2]), ("out", [2])]


async def test_a_stream_that_is_closed_cancels_what_runs_and_waits_for_its_end() -> None:
    async with flow(NODES, scripted="ab") as given:
        stream = given.stream(1)
        first = asyncio.ensure_future(anext(stream))
        await given.reply("a", 1)
        assert (await first)[0] == "a"
        await stream.aclose()
        assert given.scripts["b"].calls[0].cancelled


async def test_a_stream_whose_reader_is_cancelled_cancels_what_runs() -> None:
    async with flow(NODES, scripted="ab") as given:
        reading = Reading(given, 1)
        await settle()
        reading.task.cancel()
        await settle()
        assert reading.task.cancelled()
        assert [given.scripts[name].calls[0].cancelled for name in "ab"] == [True, True]


async def test_a_stream_that_is_closed_after_a_failure_leaves_no_error_unread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with flow(NODES, scripted="ab") as given:
        stream = given.stream(1)
        first = asyncio.ensure_future(anext(stream))
        await given.fail("b", dead())
        assert await first == ("b", OF_B)
        await stream.aclose()
    del stream, first
    gc.collect()
    assert caplog.messages == []


async def test_a_reader_that_is_slow_holds_up_nothing() -> None:
    async with flow(NODES, scripted="ab") as given:
        stream = given.stream(1)
        first = asyncio.ensure_future(anext(stream))
        await given.reply("a", 1)
        await given.reply("b", 3)
        await first
        assert [node async for node, _ in stream] == ["b", "out"]


async def test_outputs_that_are_no_join_are_told_by_their_names_in_the_graph() -> None:
    async with flow({"a": "Affine, inputs: {x: x}", "b": "Affine, inputs: {x: a.x}"}, "y: a.x, z: b.x") as given:
        events = [(node, list(result)) async for node, result in given.stream(1) if isinstance(result, Tensors)]
        assert events == [("a", ["y"]), ("b", ["z"])]
