"""An attempt at a job gives what `Run` gives, and tells of what comes while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from mesh.context import Context
from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed, RequestError, Unavailable
from mesh.jobs.work.attempt import GraphRun
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.runtime.worker import limits_of
from mesh.tensors import Tensors
from mesh.testing import settle
from mesh.topology import compile_text
from mesh.transports.admission import Admission
from mesh.transports.contract import GRAPH, Endpoint, Event, GraphHandler
from tests.unit.runtime.given import HEAD, Flow, flow, numbers, topology, values
from tests.unit.runtime.random_graphs import RandomGraph, random_graphs

ONE = {"out": "Affine, with: {plus: 1}, inputs: {x: x}"}
BRANCHES = {
    "a": "Affine, inputs: {x: x}",
    "b": "Affine, inputs: {x: x}",
    "out": "Mean, inputs: [a, b]",
}
TWO_EXITS = {"a": "Affine, inputs: {x: x}", "b": "Affine, with: {plus: 1}, inputs: {x: x}"}
QUORUM = {**BRANCHES, "out": "Mean, inputs: [a, b], join: {quorum: 1}"}


class Told:
    """What was published."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    async def __call__(self, node: str, result: Tensors | RequestError) -> None:
        self.events.append((node, result if isinstance(result, RequestError) else values(result, next(iter(result)))))


def run_of(given: Flow, nodes: dict[str, str], outputs: str = "x: out.x") -> GraphRun:
    return GraphRun(topology(nodes, outputs).graph, given.executor)


async def outcome(graph: RandomGraph) -> tuple[Tensors | RequestError, Tensors | RequestError]:
    """How a graph ends as a call at its gateway, and as a job."""
    plan = compile_text(str(graph), LAYERS).plan("fused")
    request = Tensors({"x": np.array(graph.request, np.float32)})
    context = Context(request_id="r", parameters={"go": graph.go})
    found: list[Tensors | RequestError] = []
    async with LocalMesh(plan) as mesh:
        run = GraphRun(plan.graph, mesh.root)
        for asking in (mesh(request, context), run(request, context, Told())):
            try:
                found.append(await asking)
            except RequestError as error:
                found.append(error)
    return found[0], found[1]


@given(random_graphs())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_graph_gives_a_job_what_it_gives_a_call(graph: RandomGraph) -> None:
    called, run = asyncio.run(outcome(graph))
    assert called == run
    if isinstance(called, Tensors) and isinstance(run, Tensors):
        assert list(called) == list(run)


async def test_where_there_is_one_thing_to_tell_nothing_is_told_before_the_end() -> None:
    async with flow(ONE) as given:
        run, told = run_of(given, ONE), Told()
        assert not run.bit_by_bit
        assert await run(numbers(1, 2), given.context(), told) == numbers(2, 3)
        assert told.events == []


async def test_each_branch_is_told_when_it_is_ready() -> None:
    async with flow(BRANCHES, scripted="ab") as given:
        told = Told()
        running = asyncio.ensure_future(run_of(given, BRANCHES)(numbers(1, 2), given.context(), told))
        await given.reply("b", 3, 4)
        assert told.events == [("b", [3, 4])]
        await given.reply("a", 5, 6)
        assert await running == numbers(4, 5)
        assert told.events == [("b", [3, 4]), ("a", [5, 6]), ("out", [4, 5])]


async def test_outputs_have_the_order_of_the_graph_whichever_comes_first() -> None:
    outputs = "first: a.x, second: b.x"
    async with flow(TWO_EXITS, outputs, scripted="ab") as given:
        told = Told()
        running = asyncio.ensure_future(run_of(given, TWO_EXITS, outputs)(numbers(1), given.context(), told))
        await given.reply("b", 3)
        await given.reply("a", 5)
        answer = await running
    assert list(answer) == ["first", "second"]
    assert values(answer, "first") + values(answer, "second") == [5, 3]
    assert told.events == [("b", [3]), ("a", [5])]


async def test_a_branch_that_is_not_needed_fails_and_is_told() -> None:
    error = Unavailable("gone")
    async with flow(QUORUM, scripted="ab") as given:
        told = Told()
        running = asyncio.ensure_future(run_of(given, QUORUM)(numbers(1), given.context(), told))
        await given.fail("b", error)
        await given.reply("a", 5)
        assert await running == numbers(5)
    assert told.events == [("b", Unavailable("gone", node="b", request_id="r")), ("a", [5]), ("out", [5])]


async def test_a_branch_that_is_needed_fails_the_job_with_its_error() -> None:
    async with flow(BRANCHES, scripted="ab") as given:
        running = asyncio.ensure_future(run_of(given, BRANCHES)(numbers(1), given.context(), Told()))
        await given.fail("b", InvalidInput("no"))
        with pytest.raises(InvalidInput) as caught:
            await running
    assert caught.value == InvalidInput("no", node="b", request_id="r")


async def test_nobody_who_watches_can_break_it() -> None:
    async def broken(node: str, result: object) -> None:
        raise RuntimeError("nobody hears")

    async with flow(BRANCHES) as given:
        assert await run_of(given, BRANCHES)(numbers(1), given.context(), broken) == numbers(1)


@pytest.mark.parametrize("nodes", [ONE, BRANCHES], ids=["one", "branches"])
async def test_what_the_graph_does_not_take_is_refused_as_at_the_gateway(nodes: dict[str, str]) -> None:
    async with flow(nodes) as given:
        for wrong in (Tensors({}), Tensors({"y": [1.0]}), Tensors({"x": np.zeros((2, 2), np.float32)})):
            with pytest.raises(InvalidInput) as caught:
                await run_of(given, nodes)(wrong, given.context(), Told())
            with pytest.raises(InvalidInput) as asked:
                await as_called(given.executor, nodes, wrong, given.context())
            assert caught.value == asked.value


async def as_called(executor: GraphHandler, nodes: dict[str, str], request: Tensors, context: Context) -> Tensors:
    endpoint = Endpoint(kind=GRAPH, name="flow", handler=executor)
    return await Admission([endpoint], limits_of(topology(nodes, "x: out.x").graph)).run(endpoint, request, context)


async def test_a_request_larger_than_a_call_carries_is_refused() -> None:
    head = HEAD + "limits: {max_message: 8B}\n"
    async with flow(ONE, head=head) as given:
        run = GraphRun(topology(ONE, "x: out.x", head).graph, given.executor)
        with pytest.raises(InvalidInput, match="takes 80 bytes"):
            await run(numbers(*range(20)), given.context(), Told())


@pytest.mark.parametrize("nodes", [ONE, BRANCHES], ids=["one", "branches"])
async def test_the_deadline_ends_it_and_cancels_what_runs(nodes: dict[str, str]) -> None:
    first = "out" if nodes is ONE else "a"
    async with flow(nodes, scripted=(first,)) as given:
        run = run_of(given, nodes)
        running = asyncio.ensure_future(run(numbers(1), given.context().within(5), Told()))
        call = await given.called(first)
        await given.clock.advance(5)
        with pytest.raises(DeadlineExceeded):
            await running
        assert call.cancelled


async def test_a_job_that_is_cancelled_leaves_nothing_running() -> None:
    async with flow(BRANCHES, scripted="ab") as given:
        running = asyncio.ensure_future(run_of(given, BRANCHES)(numbers(1), given.context(), Told()))
        await settle()
        running.cancel()
        await asyncio.wait((running,))
        assert running.cancelled()
        assert given.scripts["a"].calls[0].cancelled


class Short:
    """A handler that forgets an output."""

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        return Tensors({})

    async def stream(self, request: Tensors, context: Context, /) -> AsyncGenerator[Event, None]:
        yield "a", numbers(1)


async def test_an_answer_with_an_output_too_few_is_a_failure() -> None:
    run = GraphRun(topology(BRANCHES, "x: out.x").graph, Short())
    with pytest.raises(NodeFailed, match="gave no 'x'"):
        await run(numbers(1), Context(request_id="r"), Told())
