"""Which rows are on which edge, before anything runs: conditions and splits thin them, nodes that expand make more.

The rows of an edge are known by two things. Its lineage: the nodes that expanded on the way, outermost first; two edges
go together only if theirs is the same. Its guards: the nodes on the way that run on some rows only. A row is on an edge
if every guard let it through. What an output of the graph gives has to be on every row of the request: it has neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mesh.errors import Problem
from mesh.node import Cache
from mesh.topology.expressions import Condition, ExpressionError, mistakes, typed, uncovered
from mesh.topology.flow_parts import PARAMETERS, join_of, tell
from mesh.topology.graph import GraphNode, Join, RowsOf, edge_node
from mesh.topology.nodes import NodeTyping
from mesh.topology.source import Path, did_you_mean, shown
from mesh.topology.spec import Topology
from mesh.topology.wiring import Wiring

__all__ = ["FlowTyping"]

MAX_EXPANSIONS = 7
"""Expansions of expansions; their rows cross links level by level (see `mesh.runtime.crossing`)."""
_FIRST_OF = "nodes.aggregate:FirstOf"


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of an edge."""

    lineage: tuple[str, ...] = ()
    guards: frozenset[str] = frozenset()


class FlowTyping:
    """The typed nodes of a topology, with which rows they take and give.

    Args:
        topology: What the file says.
        wiring: What feeds what, and what conditions and splits read.
        typing: The nodes, typed.
        problems: Where mistakes are added.
    """

    def __init__(self, topology: Topology, wiring: Wiring, typing: NodeTyping, problems: list[Problem]) -> None:
        self._topology = topology
        self._wiring = wiring
        self._typing = typing
        self._problems = problems
        self._given: dict[str, _Rows] = {}
        """By node, where it is known."""
        self._taken: dict[str, _Rows] = {}
        self._conditions: dict[str, Condition] = {}
        self._types = dict(typing.inputs)
        self._untyped = {name for name in topology.written("nodes") if name not in typing.typed}
        self._doubtful = typing.doubtful | self._untyped

    def run(self) -> list[GraphNode]:
        """The nodes; those that are wrong as far as they are right."""
        nodes: list[GraphNode] = []
        for name, node in self._typing.typed.items():
            if node.kind == Cache.kind:
                nodes.append(node)  # no rows come to it
                continue
            flowing = self._aggregate(node) if node.branches else self._plain(node)
            nodes.append(flowing)
            self._types |= {f"{name}.{tensor}": spec for tensor, spec in node.gives.items()}
        for name in self._topology.nodes:
            if name not in self._typing.typed and name in self._wiring.conditions:
                self._condition(name)
        for output, edge in self._topology.outputs.items():
            self._output(output, edge)
        return nodes

    def _wrong(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> None:
        self._problems.append(self._topology.source.problem(path, text, hint, at_key=at_key))

    def _rows(self, edge: str) -> _Rows | None:
        return self._given.get(edge_node(edge)) if edge_node(edge) else _Rows()

    # Nodes that take tensors.

    def _plain(self, node: GraphNode) -> GraphNode:
        part, path = self._topology.nodes[node.name], ("nodes", node.name)
        if part.join != "all":
            self._wrong((*path, "join"), f"node {node.name!r} is no aggregate: there is nothing to join", at_key=True)
        condition = self._condition(node.name)
        share = self._wiring.shares.get(node.name)
        by = () if share is None or share.by[0].startswith(PARAMETERS) else share.by
        if wrong := next((edge for edge in by if edge not in self._types), None):
            written = part.split is not None and part.split.by is not None
            if written and edge_node(wrong) not in self._untyped:  # else it is told where it is written, or by its node
                known = did_you_mean(wrong, self._types)
                self._wrong((*path, "split", "by"), f"{shown(wrong)} is no edge, and no parameters.NAME", known)
            share, by = None, ()
        reads = tuple(dict.fromkeys((*by, *(condition.edges if condition else ()))))
        taken = self._together(node, reads)
        node = replace(node, reads=reads, when=str(condition) if condition else "", share=share)
        if taken is not None:
            if part.when is not None or part.split is not None:
                taken = _Rows(taken.lineage, taken.guards | {node.name})
            self._taken[node.name] = taken
            self._given[node.name] = self._expanded(node, taken)
        return self._shadowing(node) if part.shadow is not None else node

    def _condition(self, name: str) -> Condition | None:
        expression = self._wiring.conditions.get(name)
        if expression is None:
            return None
        path = ("nodes", name, "when")
        near = self._topology.source.near
        wrong = mistakes(expression, self._types, self._doubtful, near)
        if wrong:
            tell(ExpressionError(expression.text, wrong), path, self._topology, self._problems)
            return None
        if any(edge not in self._types for edge in expression.edges):
            return None  # of a node that is in doubt
        self._conditions[name] = typed(expression, self._types, near)
        return self._conditions[name]

    def _together(self, node: GraphNode, reads: tuple[str, ...]) -> _Rows | None:
        """The rows on all that a node takes and reads; None where that is not known, or they do not go together."""
        places: list[tuple[str, Path]] = [
            (edge, ("nodes", node.name, "inputs", tensor)) for tensor, edge in node.inputs.items()
        ]
        places += [(edge, ("nodes", node.name, "when" if node.name in self._conditions else "split")) for edge in reads]
        first: tuple[str, _Rows] | None = None
        guards: frozenset[str] = frozenset()
        for edge, path in places:
            rows = self._rows(edge)
            if rows is None:
                return None
            if first is None:
                first = edge, rows
            elif rows.lineage != first[1].lineage:
                text = f"{edge!r} has {_one_a(rows)}, and {first[0]!r} {_one_a(first[1])}"
                self._wrong(path, text, "a node takes edges of the same rows: gather the one, or expand the other")
                return None
            guards |= rows.guards
        return _Rows(first[1].lineage if first else (), guards)

    def _expanded(self, node: GraphNode, taken: _Rows) -> _Rows:
        if not node.expands:
            return taken
        if len(taken.lineage) == MAX_EXPANSIONS:
            self._wrong(("nodes", node.name), f"expansions within expansions, more than {MAX_EXPANSIONS}", at_key=True)
        return _Rows((*taken.lineage, node.name), taken.guards)

    def _shadowing(self, node: GraphNode) -> GraphNode:
        """A node that is compared with another and feeds nobody."""
        part, path = self._topology.nodes[node.name], ("nodes", node.name, "shadow")
        target = part.shadow or ""
        beside = self._typing.typed.get(target)
        if beside is None:
            if target not in self._topology.written("nodes"):
                near = self._topology.source.near(target, self._topology.nodes)
                self._wrong(path, f"no node is called {shown(target)}", near)
            return node
        if target == node.name:
            return node  # told as a cycle
        if self._topology.nodes[target].shadow is not None:
            self._wrong(path, f"{shown(target)} is a shadow itself: it answers nobody")
        others = {name: part for name, part in self._topology.nodes.items() if part.shadow != node.name}
        users = [name for name in others if node.name in self._wiring.feeds[name]]
        users += [name for name, edge in self._topology.outputs.items() if edge_node(edge) == node.name]
        if users:
            self._wrong(path, f"node {node.name!r} is a shadow, and {users[0]!r} takes from it", at_key=True)
        differing = [name for name, spec in node.gives.items() if str(beside.gives.get(name)) != str(spec)]
        if differing and self._doubtful.isdisjoint((node.name, target)):
            has = beside.gives.get(differing[0], "no such tensor")
            text = f"{node.name!r} gives {differing[0]!r} as {node.gives[differing[0]]}, and {target!r} {has}"
            self._wrong(path, text, "a shadow is compared tensor by tensor")
        if node.expands:
            self._wrong(path, "a node that expands cannot be compared row by row")
            return node
        mine, theirs = self._given.get(node.name), self._given.get(target)
        if mine is not None and theirs is not None and mine.lineage != theirs.lineage:
            self._wrong(path, f"{node.name!r} has {_one_a(mine)}, and {target!r} {_one_a(theirs)}")
        return replace(node, shadows=target)

    # Aggregates.

    def _aggregate(self, node: GraphNode) -> GraphNode:
        part, path = self._topology.nodes[node.name], ("nodes", node.name)
        for key in ("when", "split", "shadow"):
            if getattr(part, key) is not None:
                text = "an aggregate joins what its branches give: put it on a branch"
                self._wrong((*path, key), text, at_key=True)
        before = len(self._problems)
        join = join_of(node.name, self._topology, self._problems)
        if join is not None and len(self._problems) == before:
            join = self._joinable(node, join)
        node = replace(node, join=join)
        rows = {branch: self._given.get(branch) for branch in node.branches}
        known = {branch: one for branch, one in rows.items() if one is not None}
        if len(known) < len(rows):
            return node
        first, *others = known.items()
        for branch, one in others:
            if one.lineage != first[1].lineage:
                text = f"branch {branch!r} has {_one_a(one)}, and {first[0]!r} {_one_a(first[1])}"
                self._wrong((*path, "inputs"), text, "gather the one before they are joined", at_key=True)
                return node
        found, rows_of = self._gathered(node, known) if node.gathers else self._joined(node, known)
        if found is None:
            return node
        self._taken[node.name] = self._given[node.name] = found
        return replace(node, rows_of=rows_of)

    def _joinable(self, node: GraphNode, join: Join) -> Join | None:
        """Whether an aggregate can do without the branches that its join would not wait for."""
        path = ("nodes", node.name, "join")
        if node.needs == "every" and set(join.required) != set(node.branches):
            text = f"{node.name!r} needs every branch: it cannot be joined from some of them"
            self._wrong(path, text, f"one that can do without is {_FIRST_OF}", at_key=True)
        missing = [name for name in node.needs if name not in join.required] if isinstance(node.needs, tuple) else []
        if missing:
            text = f"{node.name!r} needs branch {missing[0]!r}, which is not required"
            self._wrong(path, text, f"write required: [{', '.join((*join.required, *missing))}]", at_key=True)
        return join

    def _gathered(self, node: GraphNode, branches: dict[str, _Rows]) -> tuple[_Rows | None, tuple[RowsOf, ...]]:
        lineage = next(iter(branches.values())).lineage
        if not lineage:
            text = f"{node.name!r} gathers rows that a node made of others, and no node before it expands"
            self._wrong(("nodes", node.name, "inputs"), text, at_key=True)
            return None, ()
        return self._taken[lineage[-1]], (RowsOf(lineage[-1]),)

    def _joined(self, node: GraphNode, branches: dict[str, _Rows]) -> tuple[_Rows | None, tuple[RowsOf, ...]]:
        lineage = next(iter(branches.values())).lineage
        if node.needs == "every":
            return _Rows(lineage, frozenset[str]().union(*(one.guards for one in branches.values()))), ()
        common = frozenset.intersection(*(one.guards for one in branches.values()))
        if node.needs == "none":
            common -= frozenset(branches)  # it has something to say also of rows that none of its branches took on
        left = {branch: one.guards - common for branch, one in branches.items()}
        if isinstance(node.needs, tuple):
            for branch in node.needs:
                if left[branch]:
                    self._lacking(node, f"branch {branch!r}, which it needs, has them only where", [left[branch]])
        elif node.needs == "any" and all(left.values()):
            self._cover(node, list(left.values()))
        # Guards further out are met by all rows that an expansion made.
        rows_of = [RowsOf(guard) for guard in sorted(common) if self._taken[guard].lineage == lineage]
        if lineage:
            rows_of.insert(0, RowsOf(lineage[-1], given=True))
        return _Rows(lineage, common), tuple(rows_of)

    def _cover(self, node: GraphNode, left: list[frozenset[str]]) -> None:
        """Whether every row is on some branch, given the guards that are each branch's own."""
        single = [next(iter(guards)) for guards in left if len(guards) == 1]
        arms = [(guard, self._wiring.shares[guard].group) for guard in single if guard in self._wiring.shares]
        for group in {group for guard, group in arms if guard not in self._conditions}:
            arms_of = {name for name, share in self._wiring.shares.items() if share.group == group}
            if arms_of <= {guard for guard, _ in arms if guard not in self._conditions}:
                return
        conditions = [
            self._conditions[guard]
            for guard in single
            if guard in self._conditions and guard not in self._wiring.shares
        ]
        case = uncovered(conditions) if conditions else ""
        if conditions and not case:
            return
        if all(self._doubted(guard) for guards in left for guard in guards):
            return
        self._lacking(node, "no branch is sure to have them", left, case)

    def _doubted(self, guard: str) -> bool:
        return guard not in self._conditions and guard not in self._wiring.shares

    def _lacking(self, node: GraphNode, why: str, left: list[frozenset[str]], case: str = "") -> None:
        guards = sorted(frozenset[str]().union(*left))
        told = f", as where {case}" if case else f" ({', '.join(map(self._guard, guards))})"
        text = f"rows could end without an answer at {node.name!r}: {why}{told}"
        hint = "name a branch that every row reaches, or give the aggregate a default"
        self._wrong(("nodes", node.name, "inputs"), text, hint, at_key=True)

    def _guard(self, guard: str) -> str:
        if guard in self._conditions:
            return f"{guard!r} runs when {self._conditions[guard]}"
        return f"{guard!r} has a share of the rows"

    # Outputs.

    def _output(self, output: str, edge: str) -> None:
        rows = self._rows(edge)
        if rows is None or self._typing.miswired:
            return
        path = ("outputs", output)
        if rows.lineage:
            hint = "gather them by nodes.aggregate:Gather"
            self._wrong(path, f"{edge!r} has {_one_a(rows)}, where an output has one a row of the request", hint)
        elif rows.guards:
            told = ", ".join(map(self._guard, sorted(rows.guards)))
            text = f"rows could end without {output!r}: {told}"
            self._wrong(
                path, text, f"join it with a branch that every row reaches, as by {_FIRST_OF}, or with a default"
            )


def _one_a(rows: _Rows) -> str:
    return f"one row for each that {rows.lineage[-1]!r} makes" if rows.lineage else "one row for each of the request"
