"""A topology's text as an executor of this process, some of whose nodes do what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np

from mesh.context import Context, Parameter
from mesh.errors import RequestError
from mesh.handler import Handler
from mesh.layers import LAYERS
from mesh.runtime.build import build_node
from mesh.runtime.executor import Executor
from mesh.runtime.making import StepMaking
from mesh.runtime.shadowing import Shadow
from mesh.runtime.steps import Step
from mesh.tensors import Tensors
from mesh.testing import ManualClock, ScriptedCall, ScriptedHandler, settle
from mesh.topology import Compiled, compile_text

__all__ = ["HEAD", "Flow", "flow", "numbers", "spelled", "topology", "values"]

HEAD = "mesh: v1\nname: flow\ninputs: {x: {datatype: FP32, shape: [-1]}}\n"


def topology(nodes: Mapping[str, str], outputs: str, head: str = HEAD) -> Compiled:
    """A checked topology, from node -> what the file says of it. `Name` stands for the sample node of that name."""
    text = head + "nodes:\n" + "".join(f"  {name}: {{{spelled(what)}}}\n" for name, what in nodes.items())
    return compile_text(f"{text}outputs: {{{outputs}}}\n", LAYERS)


def spelled(what: str) -> str:
    """One node as the file has it, from `Name, rest`: a sample node or an aggregate of that name."""
    uses, _, rest = what.partition(",")
    module = "nodes.aggregate" if uses in _AGGREGATES else "tests.unit.runtime.sample_nodes"
    return f"uses: {module}:{uses},{rest}"


_AGGREGATES = {"Concat", "FirstOf", "Gather", "Mean", "Max", "Select", "Stack"}


def numbers(*given: float) -> Tensors:
    """One row for each number."""
    return Tensors({"x": np.array(given, np.float32)})


def values(tensors: Tensors | RequestError, name: str = "x") -> list[Any]:
    """The numbers again."""
    assert isinstance(tensors, Tensors), tensors
    return tensors[name].tolist()


class Flow:
    """An executor under test."""

    def __init__(self, executor: Executor, scripts: Mapping[str, ScriptedHandler]) -> None:
        self.executor = executor
        self.clock = ManualClock()
        self.scripts = scripts

    def context(self, **parameters: Parameter) -> Context:
        """Of a request on the manual clock."""
        return Context(request_id="r", clock=self.clock, parameters=parameters)

    async def answer(self, *given: float, **parameters: Parameter) -> Tensors:
        """Ask, and wait for the answer."""
        return await self.executor(numbers(*given), self.context(**parameters))

    async def error(self, *given: float, **parameters: Parameter) -> RequestError:
        """Ask, and wait for the error."""
        try:
            found = await self.answer(*given, **parameters)
        except RequestError as error:
            return error
        raise AssertionError(f"answered: {found}")

    async def ask(self, *given: float, **parameters: Parameter) -> asyncio.Task[Tensors]:
        """Ask, and go on as far as it gets by itself."""
        task = asyncio.create_task(self.answer(*given, **parameters))
        await settle()
        return task

    def stream(self, *given: float) -> AsyncGenerator[tuple[str, Tensors | RequestError]]:
        """Ask for what comes as it comes."""
        return self.executor.stream(numbers(*given), self.context())

    async def called(self, node: str) -> ScriptedCall:
        """The call that a scripted node has been given, which has to be there by now."""
        await settle()
        assert self.scripts[node].pending, f"node {node!r} was not called"
        return await self.scripts[node].request()

    async def reply(self, node: str, *given: float) -> None:
        """Let a scripted node answer its call, and go on as far as it gets."""
        (await self.called(node)).reply(numbers(*given))
        await settle()

    async def fail(self, node: str, error: BaseException) -> None:
        """Let it fail."""
        (await self.called(node)).fail(error)
        await settle()

    def calls(self, node: str) -> int:
        """How often it was called."""
        return len(self.scripts[node].calls)

    @property
    def shadow(self) -> Shadow:
        """The only one."""
        (shadow,) = self.executor.shadows
        return shadow


@asynccontextmanager
async def flow(
    nodes: Mapping[str, str],
    outputs: str = "x: out.x",
    *,
    scripted: Iterable[str] = (),
    handlers: Mapping[str, Handler[Any]] | None = None,
    head: str = HEAD,
) -> AsyncGenerator[Flow]:
    """A topology's executor. Whoever leaves has left no task and no timer behind."""
    graph = topology(nodes, outputs, head).graph
    scripts = {name: ScriptedHandler() for name in scripted}
    given: Mapping[str, Handler[Any]] = {**scripts, **(handlers or {})}
    before = asyncio.all_tasks()
    async with AsyncExitStack() as lifetime:
        making = StepMaking(graph)
        steps: list[Step] = []
        shadows: list[Shadow] = []
        for node in graph.nodes:
            handler: Handler[Any] = given.get(node.name) or await build_node(graph, node, "here", lifetime)
            if node.shadows:
                shadows.append(making.shadow(node, handler))
                lifetime.push_async_callback(shadows[-1].close)
            else:
                steps.append(making.of(node, handler))
        executor = Executor(steps, graph.inputs, graph.outputs, branches=making.branches, shadows=shadows)
        found = Flow(executor, scripts)
        yield found
    await settle()
    assert asyncio.all_tasks() == before
    assert found.clock.planned == 0
