"""What feeds what in a graph, one tensor at a time: what every picture is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from mesh.topology.graph import Graph, edge_node

__all__ = ["Flow", "LineNotes", "Vertex", "flows_of", "vertices_of"]


class Vertex(NamedTuple):
    """What a line of the picture begins or ends at."""

    role: Literal["input", "node", "output"]
    """An input of the graph, a node, or an output of the graph. Names are unique within a role only."""
    name: str


class Flow(NamedTuple):
    """One tensor that one vertex gives to another."""

    giver: Vertex
    taker: Vertex
    edge: str
    """As in the graph: `node.tensor`, or an input of the graph."""
    taken_as: str
    """What the taker calls it."""
    aside: bool = False
    """It is looked at and not taken: by a condition or split, or to compare a shadow with it."""

    @property
    def tensor(self) -> str:
        """What the giver calls it."""
        return self.edge.partition(".")[2] if self.giver.role == "node" else self.edge


LineNotes = Mapping[tuple[Vertex, Vertex], str]
"""By giver and taker, a few words that are shown on the line between the two."""


def vertices_of(graph: Graph) -> list[Vertex]:
    """Every vertex of the picture, each after those that feed it."""
    return [
        *(Vertex("input", name) for name in graph.inputs),
        *(Vertex("node", node.name) for node in graph.nodes),
        *(Vertex("output", name) for name in graph.outputs),
    ]


def flows_of(graph: Graph) -> list[Flow]:
    """Every tensor that goes from one vertex to another, or is looked at by it, in the order of those that take it."""
    found: list[Flow] = []
    for node in graph.nodes:
        taker = Vertex("node", node.name)
        taken = [*node.inputs.items(), *(tensor for branch in node.branches.values() for tensor in branch.items())]
        found.extend(Flow(_giver(edge), taker, edge, tensor) for tensor, edge in taken)
        seen = {edge for _, edge in taken}
        aside = [edge for edge in (*node.reads, *node.compared) if edge not in seen]
        found.extend(Flow(_giver(edge), taker, edge, edge.rpartition(".")[2], aside=True) for edge in aside)
    found.extend(Flow(_giver(edge), Vertex("output", name), edge, name) for name, edge in graph.outputs.items())
    return found


def _giver(edge: str) -> Vertex:
    node = edge_node(edge)
    return Vertex("node", node) if node else Vertex("input", edge)
