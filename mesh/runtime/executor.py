"""`Executor`: a graph and its nodes' handlers to one handler.

It awaits a chain step by step, and runs anything else side by side (see `mesh.runtime.run`). It cannot tell a node from
a link. What must be the same in every placement is decided here and not by a wire: types and sizes of what enters a
step, the deadline before each step, which rows a node is run on, and which error comes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, RequestError
from mesh.runtime.crossing import arrived, packed
from mesh.runtime.program import Program
from mesh.runtime.rows import Rows
from mesh.runtime.run import Run
from mesh.runtime.shadowing import Shadow
from mesh.runtime.state import State
from mesh.runtime.steps import NodeStep, Step
from mesh.signature import InputCheck, TensorSpec
from mesh.tensors import Tensors
from mesh.topology.graph import edge_node

__all__ = ["Executor", "Piece"]


class Executor:
    """A handler that runs steps as their edges become known. Immutable, and safe for any number of requests at once.

    Args:
        steps: In an order in which each stands after those that feed it.
        inputs: What the graph takes; edges of these names are known from the start.
        outputs: Output of the graph -> the edge that gives it, which leads out of a step and is on every row.
        branches: Node -> tensor -> edge: what a stream tells of besides the outputs.
        shadows: Nodes that are given each request once it is answered.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, str],
        *,
        branches: Mapping[str, Mapping[str, str]] | None = None,
        shadows: Sequence[Shadow] = (),
    ) -> None:
        self._program = Program.of(steps, set(map(edge_node, outputs.values())))
        self._check = InputCheck(inputs, node="")
        self._outputs = dict(outputs)
        self.shadows = tuple(shadows)
        """Nodes that are given each request once it is answered."""
        self._given: dict[str, dict[str, str]] = {}
        for name, edge in outputs.items():
            self._given.setdefault(edge_node(edge), {})[name] = edge
        self._events = {**(branches or {}), **self._given}
        self._digests = _worth_remembering(steps)

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        """Run the graph on one batch.

        Raises:
            RequestError: The first thing that went wrong and that an output could not do without; what still ran was
                cancelled.
        """
        state = self._enter(request, context)
        await _run(self._program, state)
        answer = self._whole(state, self._outputs)
        for shadow in self.shadows:
            shadow.begin(state)
        return answer

    def _whole(self, state: State, outputs: Mapping[str, str]) -> Tensors:
        """Outputs of the graph, held against the rows of the request."""
        for name, edge in outputs.items() if state.given else ():
            node = edge_node(edge)
            rows = state.given_by(node)
            if rows.count != state.all.count or len(rows.levels) > 1:
                text = f"answers {rows.count} of {state.all.count} rows of {name!r}"
                raise NodeFailed(text, node=node, request_id=state.context.request_id)
        return state.gather(outputs, state.all)

    async def stream(
        self, request: Tensors, context: Context, /
    ) -> AsyncGenerator[tuple[str, Tensors | RequestError], None]:
        """Run the graph on one batch and yield what each branch and each output gives as it ends, or its error.

        A branch's tensors have the names that its node has for them, and sources where it ran on some rows only. A
        branch that is late for its join is told by its error as well; one that lost is not told at all. What no output
        can do without ends the stream with its error: the last event. Closing the stream cancels what runs, and waits
        for its end.
        """
        state = self._enter(request, context)
        # Every step ends at most once, and then the whole: put_nowait never meets a full queue.
        events: asyncio.Queue[tuple[str, RequestError | None] | None] = asyncio.Queue(len(self._program.steps) + 1)
        names = [step.name for step in self._program.steps]

        def ended(index: int, error: RequestError | None) -> None:
            if names[index] in self._events and (error is None or names[index] not in self._given):
                events.put_nowait((names[index], error))

        async def run() -> None:
            try:
                await Run(self._program, state, ended)()
            finally:
                events.put_nowait(None)

        running = asyncio.ensure_future(run())
        told: list[RequestError] = []
        try:
            while (event := await events.get()) is not None:
                node, error = event
                if error is not None:
                    told.append(error)
                yield node, error or self._told(state, node)
            await running
            for shadow in self.shadows:
                shadow.begin(state)
        except RequestError as error:
            # Where a branch that was required failed, it has been told already.
            if all(error is not one for one in told):
                yield error.node, error
        finally:
            running.cancel()
            await asyncio.wait((running,))

    def _told(self, state: State, node: str) -> Tensors:
        if node in self._given:
            return self._whole(state, self._given[node])
        rows = state.given_by(node)
        tensors = state.gather(self._events[node], rows)
        return Tensors.trusted(dict(tensors), rows.levels[0]) if rows.levels else tensors

    def _enter(self, request: Tensors, context: Context) -> State:
        _checked(self._check, request, context)
        context = replace(context, digests={}) if self._digests else context
        return State(context, Rows(request.rows), dict(request.items()))


class Piece:
    """A part of a graph as a handler of its own: takes and gives edges with their rows (see `mesh.runtime.crossing`).

    Args:
        steps: In an order in which each stands after those that feed it; the last gives what the piece gives.
        inputs: By edge, what it takes.
        outputs: The edges that the last step gives.
    """

    def __init__(self, steps: Sequence[Step], inputs: Mapping[str, TensorSpec], outputs: Collection[str]) -> None:
        self._program = Program.of(steps, {steps[-1].name})
        self._check = InputCheck(inputs, node="")
        self._digests = _worth_remembering(steps)
        self._exit = steps[-1].name
        self._outputs = tuple(outputs)

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        """Run it.

        Raises:
            RequestError: What went wrong.
        """
        state = arrived(request, replace(context, digests={}) if self._digests else context)
        _checked(self._check, Tensors.trusted(dict(state.arrays)), context)
        for edge, array in state.arrays.items():
            rows = state.given_by(edge_node(edge))
            if array.shape[0] != rows.count:
                text = f"edge {edge!r} has {array.shape[0]} rows where {rows.count} are told of"
                raise InvalidInput(text, tensor=edge, request_id=context.request_id)
        await _run(self._program, state)
        return packed(state, self._outputs, (self._exit,))

    def stream(self, request: Tensors, context: Context, /) -> AsyncGenerator[tuple[str, Tensors | RequestError], None]:
        """Not for parts of a graph. Raises InvalidInput."""
        raise InvalidInput("a part of a graph gives all that it gives at once", request_id=context.request_id)


def _worth_remembering(steps: Sequence[Step]) -> bool:
    """Whether what one cache has digested of a request may serve another."""
    return sum(isinstance(step, NodeStep) and step.cached for step in steps) > 1


def _run(program: Program, state: State) -> Coroutine[Any, Any, None]:
    if program.only is not None:
        return program.only.run(state)
    return _run_in_turn(program, state) if program.one_by_one else Run(program, state)()


async def _run_in_turn(program: Program, state: State) -> None:
    for step in program.steps:
        await step.run(state)
        if program.timed:
            state.ended[step.name] = state.context.clock.now()


def _checked(check: InputCheck, request: Tensors, context: Context) -> None:
    try:
        check(request)
    except InvalidInput as error:
        error.request_id = context.request_id
        raise
