"""What a worker counts, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, Overloaded, RequestError
from mesh.handler import Handler, stack
from mesh.layers import LAYERS
from mesh.runtime.statistics import CallCounter, CountedGraph, NodeCounter
from mesh.tensors import Tensors
from mesh.testing import ManualClock, ScriptedHandler, settle
from mesh.transports.contract import Event
from mesh.transports.statistics import BUCKETS


def rows(count: int) -> Tensors:
    return Tensors({"x": np.zeros(count, np.float32)})


class Node:
    """A node in its layers, counted as a worker counts it; what it does is up to the test."""

    def __init__(self, **layers: dict[str, Any]) -> None:
        self.clock = ManualClock()
        self.script = ScriptedHandler()
        self.counter = NodeCounter()
        self.counter.layered = bool(layers)
        made = [LAYERS[name].model_validate(settings, context={"from_file": True}) for name, settings in layers.items()]
        self.handler = self.counter.calls.around(stack(self._itself, *made))

    async def _itself(self, request: Tensors, context: Context, /) -> Tensors:
        began = context.clock.now()
        try:
            return await self.script(request, context)
        finally:
            self.counter.ran(request.rows, context.clock.now() - began)

    async def ask(self, count: int, within_s: float | None = None) -> asyncio.Task[Tensors]:
        context = Context(clock=self.clock)
        limited = context if within_s is None else context.within(within_s)
        asking = asyncio.create_task(limited.run(self.handler(rows(count), limited)))
        await settle()
        return asking

    async def reply(self) -> None:
        (await self.script.request()).echo()
        await settle()


# One node.


async def test_requests_and_rows_are_counted_from_their_arrival_and_times_once_they_are_answered() -> None:
    node = Node()
    asking = await node.ask(3)
    told = node.counter.told("n")
    assert (told.requests, told.rows, told.in_flight, told.batches) == (1, 3, 1, 0)
    await node.clock.advance(0.25)
    await node.reply()
    await asking
    told = node.counter.told("n")
    assert (told.requests, told.rows, told.in_flight, told.answered, told.failed) == (1, 3, 0, 1, 0)
    assert (told.elapsed_s, told.compute_s, told.queue_s, told.batches) == (0.25, 0.25, 0.0, 1)


@pytest.mark.parametrize("error", [InvalidInput("x"), NodeFailed("x"), Overloaded("x")])
async def test_errors_are_counted_by_their_code(error: RequestError) -> None:
    node = Node()
    for _ in range(2):
        asking = await node.ask(1)
        await node.clock.advance(0.5)
        (await node.script.request()).fail(error)
        with pytest.raises(type(error)):
            await asking
    told = node.counter.told("n")
    assert told.errors == {error.code: 2}
    assert (told.requests, told.in_flight, told.answered, told.elapsed_s, told.compute_s) == (2, 0, 0, 0.0, 1.0)


async def test_a_caller_that_goes_away_and_one_whose_time_runs_out_are_told_apart() -> None:
    node = Node()
    leaving = await node.ask(1)
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    late = await node.ask(1, within_s=0.5)
    await node.clock.advance(0.5)
    assert isinstance(late.exception(), RequestError)
    assert node.counter.told("n").errors == {"CANCELLED": 1, "DEADLINE_EXCEEDED": 1}
    assert node.counter.told("n").in_flight == 0


# Its layers.


async def test_what_rows_wait_for_a_batch_is_told_for_each_row() -> None:
    node = Node(batch={"max_rows": 8})
    first = await node.ask(1)
    await node.clock.advance(0.25)
    waiting = [await node.ask(2), await node.ask(3)]
    await node.clock.advance(0.5)
    await node.reply()
    await node.clock.advance(1.0)
    await node.reply()
    await asyncio.gather(first, *waiting)
    told = node.counter.told("n")
    assert told.queue_s == (2 + 3) * 0.5
    assert told.compute_s == 0.75 + 1.0
    assert told.elapsed_s == 0.75 + 2 * 1.5
    assert (told.requests, told.batches, told.batch_rows) == (3, 2, (1, 0, 0, 1))


async def test_a_request_that_is_given_up_while_it_waits_has_waited_all_the_same() -> None:
    node = Node(batch={"max_rows": 8})
    first = await node.ask(1)
    waiting = await node.ask(4)
    await node.clock.advance(0.5)
    waiting.cancel()
    await settle()
    await node.reply()
    await first
    told = node.counter.told("n")
    assert (told.queue_s, told.compute_s, told.errors) == (4 * 0.5, 0.5, {"CANCELLED": 1})


async def test_a_request_that_its_layers_refuse_never_comes_to_the_node() -> None:
    node = Node(queue={"max_rows": 2})
    first = await node.ask(2)
    refused = await node.ask(1)
    assert isinstance(refused.exception(), Overloaded)
    await node.reply()
    await first
    told = node.counter.told("n")
    assert (told.requests, told.batches, told.errors) == (2, 1, {"RESOURCE_EXHAUSTED": 1})


@given(st.integers(0, 5000))
def test_a_batch_is_counted_in_the_first_bucket_that_holds_it(count: int) -> None:
    counter = NodeCounter()
    counter.ran(count, 0.0)
    bound = next((index for index, bound in enumerate(BUCKETS) if count <= bound), len(BUCKETS))
    assert counter.told("n").batch_rows == (*[0] * bound, 1)


# A whole graph.


class Graph:
    """A graph that gives the events it was made with."""

    def __init__(self, *events: Event, then: Callable[[], Awaitable[object]] | None = None) -> None:
        self._events = events
        self._then = then
        self.closed = False

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        return request

    async def stream(self, request: Tensors, context: Context, /) -> AsyncGenerator[Event, None]:
        try:
            for event in self._events:
                yield event
            if self._then is not None:
                await self._then()
        finally:
            self.closed = True


FAILED = NodeFailed("x", node="a")


@pytest.mark.parametrize(
    ("events", "errors"),
    [
        ([("a", rows(1))], {}),
        ([("a", FAILED), ("b", rows(1))], {}),
        ([("b", rows(1)), ("a", FAILED)], {"INTERNAL": 1}),
    ],
    ids=["answered", "a branch failed", "failed"],
)
async def test_a_stream_is_a_request_that_failed_where_it_ends_with_an_error(
    events: list[Event], errors: dict[str, int]
) -> None:
    counter = CallCounter()
    graph = CountedGraph(Graph(*events), counter)
    assert [event async for event in graph.stream(rows(2), Context())] == events
    assert (counter.requests, counter.rows, counter.in_flight, counter.errors) == (1, 2, 0, errors)


async def test_a_stream_that_is_closed_early_closes_the_graphs_and_counts_as_cancelled() -> None:
    counter = CallCounter()
    root = Graph(("a", rows(1)), ("b", rows(1)))
    events = CountedGraph(root, counter).stream(rows(1), Context())
    await anext(events)
    assert counter.in_flight == 1
    await events.aclose()
    assert root.closed
    assert (counter.in_flight, counter.errors) == (0, {"CANCELLED": 1})


async def test_a_stream_that_raises_counts_its_error() -> None:
    async def fail() -> None:
        raise Overloaded("full")

    counter = CallCounter()
    with pytest.raises(Overloaded):
        async for _ in CountedGraph(Graph(("a", rows(1)), then=fail), counter).stream(rows(1), Context()):
            pass
    assert (counter.in_flight, counter.errors) == (0, {"RESOURCE_EXHAUSTED": 1})


async def test_a_graph_is_called_as_it_is() -> None:
    counter = CallCounter()
    graph: Handler[Tensors] = CountedGraph(Graph(), counter)
    assert await graph(rows(2), Context()) == rows(2)
    assert (counter.requests, counter.rows, counter.answered) == (1, 2, 1)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Tensors({}), 0),
        (Tensors({"x": np.float32(1)}), 0),
        (Tensors({"x": np.zeros(2), "y": np.zeros(3)}), 2),
        (Tensors({"a.x": np.zeros(2), "@rows": np.array([5])}), 5),
        (Tensors({"a.x": np.zeros(2), "@rows": np.array([-5])}), 0),
        (Tensors({"a.x": np.zeros(2), "@rows": np.zeros((2, 2))}), 0),
    ],
    ids=["nothing", "a scalar", "unlike rows", "a part of a graph", "rows below zero", "no rows at all"],
)
async def test_rows_are_counted_of_requests_that_nobody_has_checked(request_: Tensors, expected: int) -> None:
    counter = CallCounter()
    await counter.around(Graph())(request_, Context())
    assert counter.rows == expected
