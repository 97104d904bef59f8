"""`State`: one request on its way through a graph: which arrays there are so far, of which rows, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mesh.context import Context
from mesh.errors import RequestError
from mesh.runtime.rows import Rows, intersection, positions
from mesh.tensors import Array, Tensors
from mesh.topology.graph import edge_node

__all__ = ["State"]


class State:
    """What is known of one request.

    A node that ran on every row of the request has no entry in `given` and `taken`: most graphs never have any.

    Args:
        context: The request's.
        rows: Every row of the request.
        arrays: What there is from the start, by edge; added to.
    """

    # Written out, because one is made for every request: a dataclass makes its dictionaries five times as slowly.
    __slots__ = ("all", "arrays", "context", "drawn", "ended", "errors", "given", "taken")

    def __init__(self, context: Context, rows: Rows, arrays: dict[str, Array]) -> None:
        self.context = context
        self.all = rows
        """Every row of the request."""
        self.arrays = arrays
        """By edge."""
        self.given: dict[str, Rows] = {}
        """The rows of what a node gave, by node."""
        self.taken: dict[str, Rows] = {}
        """The rows that a node was run on, by node."""
        self.errors: dict[str, RequestError] = {}
        """Why a node gave nothing, by node."""
        self.ended: dict[str, float] = {}
        """When a node had given what it gives, by node, on the context's clock; kept where there is a join."""
        self.drawn: dict[str, tuple[Rows, Array]] = {}
        """What the first arm of a split has drawn for which rows, by split; the other arms draw the same."""

    def mirrored(self, context: Context) -> State:
        """What is there by now, for whoever goes on with it alone."""
        made = State(context, self.all, dict(self.arrays))
        made.given = dict(self.given)
        made.taken = dict(self.taken)
        return made

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

    def note(self, node: str, taken: Rows, given: Rows) -> None:
        """Remember the rows of a node that ran on some of the request's, or made others of them."""
        if taken.levels:
            self.taken[node] = taken
        if given.levels:
            self.given[node] = given
