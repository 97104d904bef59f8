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
from mesh.handler import Handler
from mesh.signature import InputCheck, TensorSpec
from mesh.tensors import Array, Tensors, wire_size

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
        outputs: Output of the graph -> edge.
        max_message_bytes: Most bytes of tensors that may enter or leave a step.
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
        self._given_by = [
            {name: edge for name, edge in self._outputs.items() if giver.get(edge) == index}
            for index in range(len(self._steps))
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
        return Tensors.trusted({name: edges[edge] for name, edge in self._outputs.items()})

    async def stream(
        self, request: Tensors, context: Context, /
    ) -> AsyncGenerator[tuple[str, Tensors | RequestError], None]:
        """Run the graph on one batch and yield each node's outputs of the graph as it ends.

        The first error is the last event: what still runs is cancelled, as in a call.
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
                elif given := self._given_by[event]:
                    outputs = Tensors.trusted({name: edges[edge] for name, edge in given.items()})
                    yield self._steps[event].name, outputs
            await running
        finally:
            running.cancel()

    def _enter(self, request: Tensors, context: Context) -> Edges:
        try:
            self._check(request)
        except InvalidInput as error:
            error.request_id = context.request_id
            raise
        return dict(request)

    async def _run(self, step: Step, edges: Edges, context: Context) -> None:
        try:
            context.check_deadline()
            request = self._gather(step, edges)
            answer = await step.handler(request, context)
            self._bound(answer, "gives")
            for name, edge in step.outputs.items():
                array = answer.get(name)
                if array is None:
                    raise NodeFailed(f"gave no tensor {name!r}", tensor=name)
                edges[edge] = array
        except RequestError as error:
            error.locate(node=step.node, request_id=context.request_id)
            raise

    def _gather(self, step: Step, edges: Edges) -> Tensors | dict[str, Tensors]:
        if step.branches:
            branches = {
                branch: Tensors.trusted({name: edges[edge] for name, edge in taken.items()})
                for branch, taken in step.branches.items()
            }
            for tensors in branches.values():
                self._bound(tensors, "takes")
            return branches
        request = Tensors.trusted({name: edges[edge] for name, edge in step.inputs.items()})
        self._bound(request, "takes")
        return request

    def _bound(self, tensors: Tensors, what: str) -> None:
        if tensors.nbytes > self._max_bytes:
            largest = max(tensors, key=lambda name: wire_size(tensors[name]))
            text = f"{what} {tensors.nbytes} bytes of tensors where an edge carries at most {self._max_bytes}"
            raise InvalidInput(f"{text}; the largest is {largest!r}", tensor=largest)

    async def _run_side_by_side(self, edges: Edges, context: Context, ended: Callable[[int], object]) -> None:
        missing = self._missing.copy()

        async def follow(index: int) -> None:
            """Run a step, then one that it made ready; give the others tasks of their own."""
            while True:
                await self._run(self._steps[index], edges, context)
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
        except* RequestError as failed:
            # A caller catches the plain error, as it would from a chain.
            raise _first_of(failed) from None


def _ignore(index: int) -> None:
    """Nobody listens to the single steps of a call."""


def _first_of(group: BaseExceptionGroup[RequestError]) -> RequestError:
    found = group.exceptions[0]
    return _first_of(found) if isinstance(found, BaseExceptionGroup) else found
