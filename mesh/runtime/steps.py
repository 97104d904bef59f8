"""Steps: what an executor runs one by one. A node, a join of several, or a piece of the graph that runs elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mesh.context import Context
from mesh.errors import DeadlineExceeded, NodeFailed, RequestError
from mesh.handler import Branches, Handler
from mesh.runtime.crossing import note, packed
from mesh.runtime.rows import Rows, intersection, positions
from mesh.runtime.state import State
from mesh.signature import TensorSpec
from mesh.tensors import DATATYPES, Array, Tensors
from mesh.topology.graph import Join, RowsOf, edge_node

__all__ = ["JoinStep", "NodeStep", "PieceStep", "Step", "Thinning"]


_NOTHING: Array = np.empty(0, np.int64)


class Step(Protocol):
    """One handler in a graph."""

    @property
    def name(self) -> str:
        """The node whose outputs it gives."""
        ...

    @property
    def feeds(self) -> set[str]:
        """The nodes that it waits for. (Inputs of the graph are there from the start.)"""
        ...

    @property
    def join(self) -> Join | None:
        """How it waits for its branches, where it does not need them all."""
        ...

    @property
    def branch_names(self) -> tuple[str, ...]:
        """The branches that it joins, by the nodes that they end in."""
        ...

    async def run(self, state: State) -> None:
        """Take what it needs out of `state`, run, and put what it gives there.

        Raises:
            RequestError: Why it gives nothing.
        """
        ...


class Thinning(Protocol):
    """Which rows a node is run on: a condition, or a share of the traffic."""

    @property
    def reads(self) -> Sequence[str]:
        """The edges that it looks at."""
        ...

    def __call__(self, state: State, rows: Rows) -> Rows:
        """Those of `rows` that go through."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStep:
    """A preprocess or predict node."""

    name: str
    handler: Handler[Tensors]
    inputs: Mapping[str, str]
    """Tensor that it takes -> edge."""
    outputs: Mapping[str, str]
    """Tensor that it gives -> edge; what nobody needs is left out."""
    gives: Mapping[str, TensorSpec]
    """By tensor."""
    max_message_bytes: int
    """Most bytes of tensors that it may take, and give."""
    thinning: Sequence[Thinning] = ()
    expands: bool = False
    join: None = None
    branch_names: tuple[str, ...] = ()

    @property
    def reads(self) -> list[str]:
        """Its inputs, and what its conditions look at."""
        return [*self.inputs.values(), *(edge for one in self.thinning for edge in one.reads)]

    @property
    def feeds(self) -> set[str]:
        """The nodes that give what it reads."""
        return set(map(edge_node, self.reads)) - {""}

    async def run(self, state: State) -> None:
        """Run on the rows that are on every input and that every condition lets through; not at all without rows."""
        context = state.context
        rows = state.all
        try:
            context.check_deadline()
            if state.given or self.thinning:
                rows = self._rows(state)
                if not rows.count and rows.levels:
                    nothing = {edge: _empty(self.gives[name]) for name, edge in self.outputs.items()}
                    state.give(self.name, nothing, rows, rows.expanded(_NOTHING) if self.expands else rows)
                    return
            request = state.gather(self.inputs, rows)
            request.check_size(self.max_message_bytes, "takes")
            answer = await self.handler(request, context)
            answer.check_size(self.max_message_bytes, "gives")
            given = rows if answer.sources is None else rows.expanded(answer.sources)
            state.give(self.name, _named(answer, self.outputs), rows, given)
        except BaseException as error:
            _explain(error, self.name, rows, context)
            raise

    def _rows(self, state: State) -> Rows:
        rows = state.common(self.reads)
        for one in self.thinning:
            if rows.count:
                rows = one(state, rows)
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinStep:
    """An aggregate node."""

    name: str
    handler: Handler[Branches]
    branches: Mapping[str, Mapping[str, str]]
    """Branch, which is the node that it ends in -> tensor -> edge."""
    outputs: Mapping[str, str]
    """Tensor that it gives -> edge."""
    max_message_bytes: int
    rows_of: Sequence[RowsOf] = ()
    """What tells the rows that it answers: those that are in all of these; every row of the request where empty."""
    every: bool = False
    """It answers the rows that every branch has."""
    gathers: bool = False
    """It answers rows that its branches were made of."""
    join: Join | None = None

    @property
    def branch_names(self) -> tuple[str, ...]:
        """The branches, in the order of the file."""
        return tuple(self.branches)

    @property
    def feeds(self) -> set[str]:
        """Its branches, and the nodes whose rows it answers."""
        return {*self.branches, *(one.node for one in self.rows_of)}

    async def run(self, state: State) -> None:
        """Join the branches that are there; those that are not are told by why they are not."""
        context = state.context
        rows = state.all
        try:
            context.check_deadline()
            rows = self._rows(state)
            answer = await self.handler(self._gather(state, rows), context)
            answer.check_size(self.max_message_bytes, "gives")
            state.give(self.name, _named(answer, self.outputs), rows, rows)
        except BaseException as error:
            _explain(error, self.name, rows, context)
            raise

    def _rows(self, state: State) -> Rows:
        if not state.given:
            return state.all
        if self.every:
            return state.common(f"{branch}." for branch in self.branches if branch not in state.errors)
        found = state.all
        for one in self.rows_of:
            rows = state.given_by(one.node) if one.given else state.taken_by(one.node)
            found = intersection(found, rows) if found.levels else rows
        return found

    def _gather(self, state: State, rows: Rows) -> Branches:
        branches: dict[str, Tensors | RequestError] = {}
        for branch, tensors in self.branches.items():
            if (error := state.errors.get(branch)) is not None:
                branches[branch] = error
            elif any(edge not in state.arrays for edge in tensors.values()):
                branches[branch] = DeadlineExceeded("was not there in time", node=branch)
            else:
                branches[branch] = found = self._branch(state, branch, tensors, rows)
                found.check_size(self.max_message_bytes, "takes")
        return Branches.trusted(branches, rows.count)

    def _branch(self, state: State, branch: str, tensors: Mapping[str, str], rows: Rows) -> Tensors:
        given = state.given_by(branch)
        if self.gathers:
            arrays = {name: state.arrays[edge] for name, edge in tensors.items()}
            return Tensors.trusted(arrays, _frozen(given.origins(rows)))
        common = intersection(given, rows)
        where = positions(common, rows)
        return Tensors.trusted(dict(state.gather(tensors, common)), None if where is None else _frozen(where))


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceStep:
    """Several nodes that run elsewhere, called as one."""

    name: str
    """The node that gives what leaves the piece."""
    handler: Handler[Tensors]
    inputs: Sequence[str]
    """The edges that it takes."""
    outputs: Sequence[str]
    """The edges that it gives."""
    rows_of: Sequence[str] = ()
    """Nodes whose rows it needs, though perhaps no edge."""
    join: None = None
    branch_names: tuple[str, ...] = ()

    @property
    def feeds(self) -> set[str]:
        """The nodes that feed it."""
        return {*map(edge_node, self.inputs), *self.rows_of} - {""}

    async def run(self, state: State) -> None:
        """Send what it takes, with its rows, and note what comes back."""
        context = state.context
        try:
            context.check_deadline()
            answer = await self.handler(packed(state, self.inputs, self.feeds if state.given else ()), context)
            if missing := next((edge for edge in self.outputs if edge not in answer), ""):
                raise NodeFailed(f"its part of the graph gave no {missing!r}", node=self.name)
            note(answer, state)
        except BaseException as error:
            # Its nodes named themselves, and the rows of the request.
            context.explain(error)
            raise


def _named(answer: Tensors, outputs: Mapping[str, str]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name, edge in outputs.items():
        array = answer.get(name)
        if array is None:
            raise NodeFailed(f"gave no tensor {name!r}", tensor=name)
        found[edge] = array
    return found


def _empty(spec: TensorSpec) -> Array:
    """No rows of a tensor; sizes that are not known are zero."""
    shape = (0, *(size if isinstance(size, int) else 0 for size in spec.shape[1:]))
    return _frozen(np.empty(shape, DATATYPES[spec.datatype].dtype))


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _explain(error: BaseException, node: str, rows: Rows, context: Context) -> None:
    """Make of what left a node what its caller may see: its rows are those of the request."""
    if isinstance(error, RequestError) and error.row is not None and rows.levels and error.row < rows.count:
        error.row = int(rows.levels[0][error.row])
    context.explain(error, node=node)
