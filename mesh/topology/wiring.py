"""What feeds what: every reference of a topology leads somewhere, none in a circle, and nothing leads nowhere."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.errors import Problem
from mesh.topology.caches import nodes_named
from mesh.topology.expressions import Expression
from mesh.topology.flow_parts import PARAMETERS, expressions_of, shares_of
from mesh.topology.graph import Share, edge_node
from mesh.topology.order import find_cycles, in_order
from mesh.topology.source import Path, shown
from mesh.topology.spec import NodeFile, Topology

__all__ = ["Wiring", "check_unused", "wire"]


@dataclass(frozen=True, slots=True)
class Wiring:
    """The nodes of a topology as a graph."""

    feeds: dict[str, list[str]]
    """Node -> the nodes that feed it, once each, as far as they exist."""
    order: list[str]
    """Every node; each after those that feed it, and those on or behind a cycle last."""
    astray: set[str]
    """Nodes with an input that leads nowhere, and nodes on a cycle."""
    whole: bool
    """Whether all of it is as it was meant; else it tells nothing of what is needed."""
    conditions: dict[str, Expression]
    """Node -> its condition, where it can be read."""
    shares: dict[str, Share]
    """Node -> its share of the rows, where it is an arm of a split that is whole."""


def wire(topology: Topology, problems: list[Problem]) -> Wiring:
    """Follow every reference; what is wrong is added to `problems`."""
    references = _References(topology, problems)
    astray = {name for name, node in topology.nodes.items() if not references.of_node(name, node)}
    outputs = [references.of_output(name, edge) for name, edge in topology.outputs.items()]
    conditions = expressions_of(topology, problems)
    shares = shares_of(topology, problems)
    reads = {name: [*_read(shares.get(name)), *_condition(conditions.get(name))] for name in topology.nodes}
    feeds = {name: _feeds(node, reads[name], topology) for name, node in topology.nodes.items()}
    order = in_order(feeds)
    behind = set(feeds).difference(order)
    place = {name: index for index, name in enumerate(feeds)}
    for cycle in find_cycles(
        {name: [feed for feed in feeds[name] if feed in behind] for name in feeds if name in behind}
    ):
        astray.update(cycle)
        first = cycle.index(min(cycle, key=place.__getitem__))
        way = [*cycle[first:], *cycle[:first]]
        shown_way = [*way[:20], "...", way[-1]] if len(way) > 21 else way
        text = f"a cycle: {' -> '.join([*shown_way, way[0]])}"
        problems.append(topology.source.problem(("nodes", way[0]), text, at_key=True))
    return Wiring(
        feeds=feeds,
        order=[*order, *(name for name in feeds if name in behind)],
        astray=astray,
        whole=all(outputs) and not astray and not any(map(_is_wiring, topology.wrong)),
        conditions=conditions,
        shares=shares,
    )


def _read(share: Share | None) -> tuple[str, ...]:
    return () if share is None or share.by[0].startswith(PARAMETERS) else share.by


def _condition(expression: Expression | None) -> tuple[str, ...]:
    return () if expression is None else expression.edges


def _feeds(node: NodeFile, reads: list[str], topology: Topology) -> list[str]:
    edges = node.inputs
    names = [edge_node(edge) for edge in edges.values()] if isinstance(edges, dict) else list(edges)
    names += map(edge_node, reads)
    names += [node.shadow] if node.shadow else []
    # The empty text stands for an input of the graph, and may be what a wrong file calls a node.
    return [name for name in dict.fromkeys(names) if name and name in topology.nodes]


def _is_wiring(wrong: Path) -> bool:
    return wrong[0] in ("nodes", "outputs") and (len(wrong) <= 2 or wrong[2] in ("inputs", "when", "split", "shadow"))


class _References:
    """What the file's references may lead to."""

    def __init__(self, topology: Topology, problems: list[Problem]) -> None:
        self._topology = topology
        self._problems = problems
        # A part that is there but wrong is not said to be missing.
        self._nodes = dict.fromkeys(topology.written("nodes"))
        self._inputs = dict.fromkeys(topology.written("inputs"))
        self._stores = nodes_named(topology.source.value.get("caches"))

    def of_node(self, name: str, node: NodeFile) -> bool:
        """Whether every input of a node comes from a node or an input of the graph."""
        path = ("nodes", name, "inputs")
        if not node.inputs and name not in self._stores and not self._topology.doubts(*path):
            self._wrong(path, f"node {name!r} takes nothing", "name what feeds it", at_key=True)
            return False
        if isinstance(node.inputs, dict):
            found = [self._leads_somewhere(edge, (*path, tensor)) for tensor, edge in node.inputs.items()]
            return all(found)
        seen: set[str] = set()
        right = True
        for index, branch in enumerate(node.inputs):
            right &= self._is_branch(branch, seen, (*path, index))
            seen.add(branch)
        return right

    def of_output(self, name: str, edge: str) -> bool:
        """Whether an output of the graph comes from a node."""
        if edge in self._inputs:
            text = f"{shown(edge)} is an input of the graph: an output comes from a node"
            return self._wrong(("outputs", name), text)
        if not edge_node(edge) and edge not in self._nodes:
            return self._wrong(("outputs", name), f"{shown(edge)} has to be node.tensor", self._near(edge))
        return self._leads_somewhere(edge, ("outputs", name))

    def _is_branch(self, branch: str, seen: set[str], path: Path) -> bool:
        if branch in seen:
            return self._wrong(path, f"branch {shown(branch)} comes twice")
        if branch in self._nodes or self._topology.doubts("nodes"):
            return True
        if branch in self._inputs:
            text = f"{shown(branch)} is an input of the graph: a list names nodes, for an aggregate to join"
            return self._wrong(path, text)
        if edge_node(branch) in self._nodes:
            text = f"{shown(branch)} is one tensor: an aggregate joins whole nodes"
            return self._wrong(path, text, f"write {edge_node(branch)}")
        return self._wrong(path, f"no node is called {shown(branch)}", self._near(branch))

    def _leads_somewhere(self, edge: str, path: Path) -> bool:
        node = edge_node(edge)
        if not node:
            if edge in self._inputs or self._topology.doubts("inputs"):
                return True
            if edge in self._nodes:
                return self._wrong(path, f"{edge!r} is a node: say which of its tensors, as in {edge}.TENSOR")
            hint = self._topology.source.near(edge, self._inputs)
            return self._wrong(path, f"{shown(edge)} is no input of the graph", hint)
        if node in self._nodes or self._topology.doubts("nodes"):
            return True
        if node in self._inputs:
            text = f"{shown(edge)} does not exist: {node!r} is an input of the graph, and one tensor"
            return self._wrong(path, text, f"write {node}")
        return self._wrong(path, f"no node is called {shown(node)}", self._near(node))

    def _near(self, name: str) -> str:
        return self._topology.source.near(name, self._nodes)

    def _wrong(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> bool:
        self._problems.append(self._topology.source.problem(path, text, hint, at_key=at_key))
        return False


def check_unused(topology: Topology, wiring: Wiring, problems: list[Problem]) -> None:
    """Every node leads to an output, and every input to a node. Only for a wiring that is whole."""
    needed: set[str] = set()
    frontier = [edge_node(edge) for edge in topology.outputs.values()]
    frontier += [name for name, node in topology.nodes.items() if node.shadow]
    while frontier:
        name = frontier.pop()
        if name not in needed:
            needed.add(name)
            frontier.extend(wiring.feeds[name])
    stores = nodes_named(topology.source.value.get("caches"))
    for name in topology.nodes:
        if name not in needed and name not in stores:
            text = f"node {name!r} leads to no output"
            hint = "name a tensor of it under `outputs`, or as an input of another node, or take it out"
            problems.append(topology.source.problem(("nodes", name), text, hint, at_key=True))
    taken = {edge for node in topology.nodes.values() if isinstance(node.inputs, dict) for edge in node.inputs.values()}
    taken |= {edge for condition in wiring.conditions.values() for edge in condition.edges}
    taken |= {edge for share in wiring.shares.values() for edge in share.by}
    for name in topology.inputs:
        if name not in taken:
            text = f"input {name!r} feeds no node"
            problems.append(topology.source.problem(("inputs", name), text, at_key=True))
