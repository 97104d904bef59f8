"""Steps: what an executor runs one by one. A node, a join of several, or a piece of the graph that runs elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mesh.context import Context
from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed, RequestError
from mesh.handler import Branches, Handler
from mesh.runtime.crossing import note, packed
from mesh.runtime.outcomes import Outcomes
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
    """Its answers have sources: which of the rows that it was given each of theirs came from."""
    cached: bool = False
    """It has a cache."""

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
                    given = rows.expanded(_NOTHING) if self.expands else rows
                    state.arrays.update(_nothing(self.gives, self.outputs))
                    state.note(self.name, rows, given)
                    return
            request = state.gather(self.inputs, rows)
            request.check_size(self.max_message_bytes, "takes")
            answer = await self.handler(request, context)
            answer.check_size(self.max_message_bytes, "gives")
            given = rows.expanded(self._sources(answer, rows)) if self.expands else rows
            state.arrays.update(_named(answer, self.outputs, given))
            if given.levels:
                state.note(self.name, rows, given)
        except BaseException as error:
            _explain(error, self.name, rows, context)
            raise

    def _rows(self, state: State) -> Rows:
        rows = state.common(self.reads)
        for one in self.thinning:
            if rows.count:
                rows = one(state, rows)
        return rows

    def _sources(self, answer: Tensors, rows: Rows) -> Array:
        sources = answer.sources
        if sources is None:
            raise NodeFailed("gave no sources, and its rows are not those that it was given")
        if len(sources) and sources[-1] >= rows.count:
            raise NodeFailed(f"gave a row of row {sources[-1]}, where {rows.count} were given")
        return sources


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinStep:
    """An aggregate node."""

    name: str
    handler: Handler[Branches]
    branches: Mapping[str, Mapping[str, str]]
    """Branch, which is the node that it ends in -> tensor -> edge."""
    outputs: Mapping[str, str]
    """Tensor that it gives -> edge."""
    gives: Mapping[str, TensorSpec]
    """By tensor."""
    max_message_bytes: int
    rows_of: Sequence[RowsOf] = ()
    """What tells the rows that it answers: those that are in all of these; every row of the request where empty."""
    every: bool = False
    """It answers the rows that every branch has."""
    gathers: bool = False
    """It answers rows that its branches were made of."""
    join: Join | None = None
    """How it waits for its branches, where it does not need them all."""
    outcomes: Outcomes = field(default_factory=Outcomes)
    """Told of who answered."""

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
            if not rows.count and rows.levels:
                state.arrays.update(_nothing(self.gives, self.outputs))
                state.note(self.name, rows, rows)
                return
            branches = self._gather(state, rows)
            self.outcomes.ran(self.name, state, branches)
            answer = await self.handler(branches, context)
            answer.check_size(self.max_message_bytes, "gives")
            state.arrays.update(_named(answer, self.outputs, rows))
            if rows.levels:
                state.note(self.name, rows, rows)
        except BaseException as error:
            _explain(error, self.name, rows, context)
            raise

    def covered(self, state: State, answered: Iterable[str], times: int) -> bool:
        """Whether each row that it answers is on so many of the branches that are there."""
        if not state.given or self.gathers:
            return True
        rows = self._rows(state)
        found = np.zeros(rows.count, np.int64)
        for branch in answered:
            where = positions(intersection(state.given_by(branch), rows), rows)
            found[slice(None) if where is None else where] += 1
        return bool((found >= times).all())

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
                continue
            try:
                branches[branch] = found = self._branch(state, branch, tensors, rows)
            except KeyError:
                branches[branch] = DeadlineExceeded("was not there in time", node=branch)
                continue
            found.check_size(self.max_message_bytes, "takes")
        return Branches.trusted(_alike(branches) if state.given else branches, rows.count)

    def _branch(self, state: State, branch: str, tensors: Mapping[str, str], rows: Rows) -> Tensors:
        """What a branch has for some rows. Raises KeyError where it is not there."""
        if not state.given:
            return state.gather(tensors, rows)
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
            try:
                note(answer, state)
            except InvalidInput as wrong:
                raise NodeFailed(f"its part of the graph answered what cannot be read: {wrong.text}") from None
            _named(answer, {edge: edge for edge in self.outputs}, state.given_by(self.name))
        except BaseException as error:
            # Its nodes named themselves, and the rows of the request.
            context.explain(error, node=self.name)
            raise


def _named(answer: Tensors, outputs: Mapping[str, str], rows: Rows) -> dict[str, Array]:
    """What was given, by edge, held against the rows that it is of: a link may lead to anybody."""
    found: dict[str, Array] = {}
    count = rows.count
    for name, edge in outputs.items():
        if name not in answer:
            raise NodeFailed(f"gave no tensor {name!r}", tensor=name)
        found[edge] = array = answer[name]
        shape = array.shape
        if not shape or shape[0] != count:
            raise NodeFailed(f"gave a tensor {name!r} of shape {list(shape)} for {count} rows", tensor=name)
    return found


def _nothing(gives: Mapping[str, TensorSpec], outputs: Mapping[str, str]) -> dict[str, Array]:
    """No rows of each tensor, by edge; sizes that are not known are zero."""
    found: dict[str, Array] = {}
    for name, edge in outputs.items():
        shape = (0, *(size if isinstance(size, int) else 0 for size in gives[name].shape[1:]))
        found[edge] = _frozen(np.empty(shape, DATATYPES[gives[name].datatype].dtype))
    return found


def _alike(branches: dict[str, Tensors | RequestError]) -> dict[str, Tensors | RequestError]:
    """The same; those without rows take the sizes of the others, where `_nothing` did not know them."""
    there = [branch for branch in branches.values() if isinstance(branch, Tensors)]
    for name, branch in branches.items():
        if not isinstance(branch, Tensors) or branch.sources is None or len(branch.sources):
            continue
        arrays = {tensor: _sized(array, [other.get(tensor) for other in there]) for tensor, array in branch.items()}
        branches[name] = Tensors.trusted(arrays, branch.sources)
    return branches


def _sized(array: Array, others: Sequence[Array | None]) -> Array:
    shapes = [other.shape[1:] for other in others if other is not None and other.ndim == array.ndim]
    sizes = tuple(map(max, zip(*shapes, strict=True)))
    return array if sizes == array.shape[1:] else _frozen(np.empty((0, *sizes), array.dtype))


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _explain(error: BaseException, node: str, rows: Rows, context: Context) -> None:
    """Make of what left a node what its caller may see: its rows are those of the request."""
    if isinstance(error, RequestError):
        error.row = _request_row(error, node, rows)
    context.explain(error, node=node)


def _request_row(error: RequestError, node: str, rows: Rows) -> int | None:
    row = error.row
    # A join may raise the error of a branch, whose row is the request's already.
    if row is None or error.node not in ("", node) or not rows.levels or row >= rows.count:
        return row
    return int(rows.levels[0][row])
