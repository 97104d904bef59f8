"""Names that lead nowhere, and what was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from mesh.topology.expressions.mistakes import Mistake
from mesh.topology.expressions.table import FUNCTIONS
from mesh.topology.expressions.tree import Edge
from mesh.topology.expressions.words import EDGES, PARAMETERS, is_plain

__all__ = ["Edges", "Near"]

Near = Callable[[str, Iterable[str]], str]
"""A name that is wrong, and those there are -> a hint."""


class Edges:
    """The edges that an expression may name.

    Args:
        text: The expression as it was given.
        known: The edges: `node.tensor`, or the name of an input of the graph.
        doubtful: Nodes and inputs that are wrong themselves: nothing is said of what names them.
        near: Makes the hints.
    """

    def __init__(self, text: str, known: Iterable[str], doubtful: Container[str], near: Near) -> None:
        self._text = text
        self._known = list(known)
        self._doubtful = doubtful
        self._near = near
        self._inputs = [edge for edge in self._known if "." not in edge]
        self._nodes = list(dict.fromkeys(edge.partition(".")[0] for edge in self._known if "." in edge))

    def unknown(self, edge: Edge) -> list[Mistake]:
        """What is wrong with an edge that is not among them; nothing where its node is in doubt."""
        node, dot, tensor = edge.name.partition(".")
        if node in self._doubtful:
            return []
        return [self._cut(edge) or Mistake(*edge.span, *(self._tensor(node, tensor) if dot else self._input(node)))]

    def _cut(self, edge: Edge) -> Mistake | None:
        """A name with a `-` or `/` in it, written without quotes, is read as arithmetic."""
        for name in self._known:
            if is_plain(name):
                continue
            at = self._text.find(name, max(0, edge.span[0] + 1 - len(name)))
            if 0 <= at <= edge.span[0] < at + len(name):
                told = f"{name!r} cannot be written as it is: it would be read as several words"
                return Mistake(at, at + len(name), told, f'write {EDGES}["{name}"]')
        return None

    def _tensor(self, node: str, tensor: str) -> tuple[str, str]:
        if node in self._inputs:
            return f"{node!r} is an input of the graph, and one tensor", f"write {node}"
        if node not in self._nodes:
            return f"no node before this one is called {node!r}", self._near(node, [*self._nodes, PARAMETERS])
        gives = [edge.partition(".")[2] for edge in self._known if edge.startswith(f"{node}.")]
        return f"node {node!r} gives no tensor {tensor!r}", self._near(tensor, gives)

    def _input(self, name: str) -> tuple[str, str]:
        told = f"{name!r} is no input of the graph"
        if name in self._nodes:
            first = next(edge for edge in self._known if edge.startswith(f"{name}."))
            return f"{name!r} is a node: say which of its tensors", f"as in {first}"
        if name in FUNCTIONS:
            return f"{name!r} is a function", f"write {name}(node.tensor)"
        tensors = [edge for edge in self._known if edge.partition(".")[2] == name]
        return told, f"did you mean {tensors[0]!r}?" if tensors else self._near(name, self._inputs)
