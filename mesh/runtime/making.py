"""A checked graph's nodes to the steps that an executor runs."""

from __future__ import annotations

from typing import Any

from mesh.handler import Handler
from mesh.runtime.rows import Rows
from mesh.runtime.shadowing import Shadow
from mesh.runtime.state import State
from mesh.runtime.statistics import NodeCounter, WorkerCounters
from mesh.runtime.steps import JoinStep, NodeStep, PieceStep, Step, Thinning
from mesh.runtime.thinning import Drawn, When
from mesh.signature import TensorSpec
from mesh.tensors import Tensors
from mesh.topology.graph import Graph, GraphNode, Share, edge_node
from mesh.topology.placement import Partition

__all__ = ["StepMaking", "piece_step", "rows_named"]


class StepMaking:
    """Makes the steps of one graph's nodes.

    Args:
        graph: The graph.
        counters: What its steps add to; counters of their own where left out.
    """

    def __init__(self, graph: Graph, counters: WorkerCounters | None = None) -> None:
        self._counters = counters or WorkerCounters("")
        self._specs = graph.edge_specs
        self._max_bytes = graph.limits.max_message_bytes
        self._timeout_s = graph.limits.default_timeout_s
        self._needed = {*graph.outputs.values(), *(edge for node in graph.nodes for edge in node.edges)}
        given = set(map(edge_node, graph.outputs.values()))
        joins = [node for node in graph.nodes if node.name in given and node.branches]
        self.branches = {branch: dict(edges) for join in joins for branch, edges in join.branches.items()}
        """What a stream tells of besides the outputs: the branches of the joins that give them."""

    def of(self, node: GraphNode, handler: Handler[Any]) -> Step:
        """The step that runs a node by a handler, which may be a link."""
        edges = {name: f"{node.name}.{name}" for name in node.gives}
        outputs = {name: edge for name, edge in edges.items() if edge in self._needed or node.shadows}
        if node.branches:
            return JoinStep(
                name=node.name,
                handler=handler,
                branches=node.branches,
                outputs=outputs,
                gives=node.gives,
                max_message_bytes=self._max_bytes,
                rows_of=node.rows_of,
                every=node.needs == "every",
                gathers=node.gathers,
                join=node.join,
                outcomes=self._counters.joins(node.name, node.branches),
            )
        return NodeStep(
            name=node.name,
            handler=handler,
            inputs=node.inputs,
            outputs=outputs,
            gives=node.gives,
            max_message_bytes=self._max_bytes,
            thinning=self._thinning(node),
            expands=node.expands,
            cached=bool(node.cache),
        )

    def shadow(self, node: GraphNode, handler: Handler[Any]) -> Shadow:
        """A node that is compared with another, and the step that runs it."""
        step = self.of(node, handler)
        assert isinstance(step, NodeStep)
        beside = {f"{node.name}.{tensor}": f"{node.shadows}.{tensor}" for tensor in node.gives}
        return Shadow(step, beside, target=node.shadows, timeout_s=self._timeout_s)

    def _thinning(self, node: GraphNode) -> tuple[Thinning, ...]:
        found: list[Thinning] = []
        if node.share is not None:
            found.append(_CountedDrawn(node.share, node.name, self._counters))
        if node.when:
            found.append(_CountedWhen(When.of(node.when, node.reads, self._specs), self._counters.node(node.name)))
        return tuple(found)


class _CountedWhen:
    """A condition whose rows are counted."""

    def __init__(self, when: When, counter: NodeCounter) -> None:
        self._when = when
        self._counter = counter
        self.reads = when.reads

    def __call__(self, state: State, rows: Rows) -> Rows:
        kept = self._when(state, rows)
        self._counter.rows_skipped += rows.count - kept.count
        return kept


class _CountedDrawn:
    """One arm of a split whose rows are counted."""

    def __init__(self, share: Share, node: str, counters: WorkerCounters) -> None:
        self._drawn = Drawn(share)
        self._split = share.group
        self._node = node
        self._counters = counters
        self.reads = self._drawn.reads
        counters.drawn(self._split, node, 0)  # it is told of before it has any

    def __call__(self, state: State, rows: Rows) -> Rows:
        kept = self._drawn(state, rows)
        self._counters.drawn(self._split, self._node, kept.count)
        return kept


def piece_step(partition: Partition, handler: Handler[Tensors]) -> PieceStep:
    """The step that runs a whole partition elsewhere."""
    return PieceStep(
        name=partition.exit,
        handler=handler,
        inputs=partition.inputs,
        outputs=partition.outputs,
        rows_of=partition.rows_of,
    )


def rows_named(edge: str, spec: TensorSpec) -> TensorSpec:
    """An edge's type with its rows called after the node that gives it: two nodes may have run on different ones."""
    return TensorSpec(spec.datatype, (f"rows of {edge_node(edge) or 'the request'}", *spec.shape[1:]))
