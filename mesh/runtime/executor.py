"""`Executor`: a graph and its nodes' handlers to one handler.

It awaits a chain step by step and opens a task group only where there is something to run side by side. It cannot tell
a node from a link. What must be the same in every placement is decided here and not by a wire: types and sizes of what
enters a step, the deadline before each step, and which error comes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, RequestError
from mesh.handler import Branches, Handler
from mesh.signature import InputCheck, TensorSpec
from mesh.tensors import Array, Tensors
from mesh.topology.graph import edge_node

__all__ = ["Executor", "Step"]

Edges = dict[str, Array]
"""The arrays of one request so far, by edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One handler in a graph: a node, or a part of the graph that runs elsewhere."""

    name: str
    """The node's name, or the partition's."""
    handler: Handler[Any]
    inputs: Mapping[str, str]
    """Tensor that the handler takes -> edge."""
    branches: Mapping[str, Mapping[str, str]]
    """For an aggregate: branch -> tensor -> edge."""
    outputs: Mapping[str, str]
    """Tensor that the handler gives -> edge; what nobody needs is left out."""
    node: str = ""
    """The node to name in errors; empty for a part of several nodes, whose errors name their own."""

    @property
    def edges(self) -> set[str]:
        """Every edge that it waits for."""
        return {*self.inputs.values(), *(edge for branch in self.branches.values() for edge in branch.values())}


class Executor:
    """A handler that runs steps as their edges become known. Immutable, and safe for any number of requests at once.

    Args:
        steps: In an order in which each stands after those that feed it.
        inputs: What the graph takes; edges of these names are known from the start.
        outputs: Output of the graph -> the edge that gives it, which leads out of a step.
        max_message_bytes: Most bytes of tensors that a node may take and give. A part of the graph that runs elsewhere
            holds its own nodes to it: where the cuts are must not decide what is too large.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, str],
        *,
        max_message_bytes: int,
    ) -> None:
        self._steps = tuple(steps)
        self._check = InputCheck(inputs, node="")
        self._outputs = dict(outputs)
        self._max_bytes = max_message_bytes
        giver = {edge: index for index, step in enumerate(self._steps) for edge in step.outputs.values()}
        feeds = [{giver[edge] for edge in step.edges if edge in giver} for step in self._steps]
        self._missing = [len(before) for before in feeds]
        self._followers = [
            [index for index, before in enumerate(feeds) if feeder in before] for feeder in range(len(self._steps))
        ]
        self._first = [index for index, before in enumerate(feeds) if not before]
        self._chain = len(self._first) <= 1 and all(len(after) <= 1 for after in self._followers)
        self._events = [
            _events(step, {name: edge for name, edge in self._outputs.items() if giver.get(edge) == index})
            for index, step in enumerate(self._steps)
        ]

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        """Run the graph on one batch.

        Raises:
            RequestError: The first thing that went wrong; what still ran was cancelled.
        """
        edges = self._enter(request, context)
        if self._chain:
            for step in self._steps:
                await self._run(step, edges, context)
        else:
            await self._run_side_by_side(edges, context, _ignore)
        return _picked(edges, self._outputs)

    async def stream(
        self, request: Tensors, context: Context, /
    ) -> AsyncGenerator[tuple[str, Tensors | RequestError], None]:
        """Run the graph on one batch and yield each node's outputs of the graph as it ends.

        The first error is the last event: what still runs is cancelled, as in a call. Closing the stream cancels what
        runs, and waits for its end.
        """
        edges = self._enter(request, context)
        # Every step ends at most once, and then the whole: put_nowait never meets a full queue.
        ended: asyncio.Queue[int | RequestError | None] = asyncio.Queue(len(self._steps) + 2)

        async def run() -> None:
            try:
                await self._run_side_by_side(edges, context, ended.put_nowait)
            except RequestError as error:
                ended.put_nowait(error)
            finally:
                ended.put_nowait(None)

        running = asyncio.ensure_future(run())
        try:
            while (event := await ended.get()) is not None:
                if isinstance(event, RequestError):
                    yield event.node, event
                    continue
                for node, given in self._events[event]:
                    yield node, _picked(edges, given)
            await running
        finally:
            running.cancel()
            await asyncio.wait((running,))

    def _enter(self, request: Tensors, context: Context) -> Edges:
        try:
            self._check(request)
        except InvalidInput as error:
            error.request_id = context.request_id
            raise
        return dict(request.items())

    async def _run(self, step: Step, edges: Edges, context: Context) -> None:
        try:
            context.check_deadline()
            answer = await step.handler(self._gather(step, edges), context)
            if step.node:
                answer.check_size(self._max_bytes, "gives")
            for name, edge in step.outputs.items():
                array = answer.get(name)
                if array is None:
                    raise NodeFailed(f"gave no tensor {name!r}", tensor=name)
                edges[edge] = array
        except BaseException as error:
            context.explain(error, node=step.node)
            raise

    def _gather(self, step: Step, edges: Edges) -> Tensors | Branches:
        if step.branches:
            branches = {branch: _picked(edges, taken) for branch, taken in step.branches.items()}
            for tensors in branches.values():
                tensors.check_size(self._max_bytes, "takes")
            return Branches(branches)
        request = _picked(edges, step.inputs)
        if step.node:
            request.check_size(self._max_bytes, "takes")
        return request

    async def _run_side_by_side(self, edges: Edges, context: Context, ended: Callable[[int], object]) -> None:
        missing = self._missing.copy()
        failures: list[RequestError] = []

        async def follow(index: int) -> None:
            """Run a step, then one that it made ready; give the others tasks of their own."""
            while True:
                try:
                    await self._run(self._steps[index], edges, context)
                except RequestError as error:
                    failures.append(error)
                    raise
                ended(index)
                ready: list[int] = []
                for follower in self._followers[index]:
                    missing[follower] -= 1
                    if missing[follower] == 0:
                        ready.append(follower)
                if not ready:
                    return
                for other in ready[1:]:
                    tasks.create_task(follow(other))
                index = ready[0]

        try:
            async with asyncio.TaskGroup() as tasks:
                for index in self._first[1:]:
                    tasks.create_task(follow(index))
                if self._first:
                    await follow(self._first[0])
        except ExceptionGroup:
            if not failures:
                raise
        if failures:
            # A caller catches the plain error, as it would from a chain; and the first, which a group does not tell.
            raise failures[0]


def _ignore(index: int) -> None:
    """Nobody listens to the single steps of a call."""


def _picked(edges: Edges, named: Mapping[str, str]) -> Tensors:
    return Tensors.trusted({name: edges[edge] for name, edge in named.items()})


def _events(step: Step, given: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """The outputs of the graph that a step gives, by node: a part of the graph tells of its nodes, not of itself."""
    by_node: dict[str, dict[str, str]] = {}
    for name, edge in given.items():
        by_node.setdefault(step.node or edge_node(edge), {})[name] = edge
    return list(by_node.items())
