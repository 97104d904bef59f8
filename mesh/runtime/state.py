"""`State`: one request on its way through a graph: which arrays there are so far, of which rows, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.context import Context
from mesh.errors import RequestError
from mesh.runtime.rows import Rows, intersection, positions
from mesh.tensors import Array, Tensors
from mesh.topology.graph import edge_node

__all__ = ["State"]


@dataclass(slots=True)
class State:
    """What is known of one request.

    A node that ran on every row of the request has no entry in `given` and `taken`: most graphs never have any.
    """

    context: Context
    all: Rows
    """Every row of the request."""
    arrays: dict[str, Array]
    """By edge."""
    given: dict[str, Rows] = field(default_factory=dict[str, Rows])
    """The rows of what a node gave, by node."""
    taken: dict[str, Rows] = field(default_factory=dict[str, Rows])
    """The rows that a node was run on, by node."""
    errors: dict[str, RequestError] = field(default_factory=dict[str, RequestError])
    """Why a node gave nothing, by node."""
    ended: dict[str, float] = field(default_factory=dict[str, float])
    """When a node had given what it gives, by node, on the context's clock; kept where there is a join."""

    def given_by(self, node: str) -> Rows:
        """The rows of what a node gave; of the request where it is the empty text."""
        return self.given.get(node, self.all)

    def taken_by(self, node: str) -> Rows:
        """The rows that a node was run on."""
        return self.taken.get(node, self.all)

    def common(self, edges: Iterable[str]) -> Rows:
        """The rows that are on all of some edges."""
        found = self.all
        if self.given:
            for node in dict.fromkeys(map(edge_node, edges)):
                rows = self.given.get(node)
                if rows is not None:
                    # The request's own rows say nothing of rows that were made of them.
                    found = intersection(found, rows) if found.levels else rows
        return found

    def take(self, edge: str, rows: Rows) -> Array:
        """Some rows of an edge, all of which are on it."""
        array = self.arrays[edge]
        if not rows.levels:
            return array
        where = positions(rows, self.given_by(edge_node(edge)))
        if where is None:
            return array
        array = array[where]
        array.flags.writeable = False
        return array

    def gather(self, named: Mapping[str, str], rows: Rows) -> Tensors:
        """Some rows of several edges, by the names that their taker has for them."""
        if not rows.levels:
            arrays = self.arrays
            return Tensors.trusted({name: arrays[edge] for name, edge in named.items()})
        return Tensors.trusted({name: self.take(edge, rows) for name, edge in named.items()})

    def give(self, node: str, arrays: Mapping[str, Array], taken: Rows, given: Rows) -> None:
        """Note what a node gave, by edge, and of which rows."""
        self.arrays.update(arrays)
        if taken.levels:
            self.taken[node] = taken
        if given.levels:
            self.given[node] = given
