"""A plan as plain data, for whatever is not a pair of eyes."""

from __future__ import annotations

from typing import Any

from mesh.signature import TensorSpec
from mesh.topology.graph import GraphNode
from mesh.topology.placement import Plan
from mesh.topology.render.later import later_to_json
from mesh.topology.render.rules import rules_of

__all__ = ["to_json"]


def to_json(plan: Plan) -> dict[str, Any]:
    """What a plan says, as what `json.dumps` takes.

    Tensors are by name, in their order; nodes, workers and partitions are lists, each after what feeds it. A type is
    `{"datatype": "FP32", "shape": ["rows", 64]}`: a size is a number where it is known, else a name, `?` or `...`.
    What constructors are given is left out: it may hold what is nobody's business.
    """
    graph = plan.graph
    specs = graph.edge_specs
    homes = {node: worker.name for worker in plan.workers for node in worker.nodes}

    def fed(edges: dict[str, str]) -> dict[str, Any]:
        return {tensor: {"edge": edge, **_type(specs[edge])} for tensor, edge in edges.items()}

    return {
        "mesh": "v1",
        "graph": graph.name,
        "description": graph.description,
        "digest": graph.digest,
        "placement": plan.placement,
        "gateway": plan.gateway.name,
        "inputs": {name: _type(spec) for name, spec in graph.inputs.items()},
        "outputs": fed(graph.outputs),
        "nodes": [
            _node(node)
            | {
                "worker": homes[node.name],
                "inputs": fed(node.inputs),
                "branches": {feed: fed(branch) for feed, branch in node.branches.items()},
            }
            for node in graph.nodes
        ],
        "workers": [
            {
                "name": worker.name,
                "address": worker.address,
                "replicas": worker.replicas,
                "nodes": list(worker.nodes),
            }
            for worker in plan.workers
        ],
        "partitions": [
            {
                "name": partition.name,
                "worker": partition.worker,
                "exit": partition.exit,
                "nodes": list(partition.nodes),
                "inputs": list(partition.inputs),
                "outputs": list(partition.outputs),
            }
            for partition in plan.partitions
        ],
        **later_to_json(graph),
    }


def _node(node: GraphNode) -> dict[str, Any]:
    return {
        "name": node.name,
        "kind": node.kind,
        "uses": node.uses,
        "model_digest": node.digest,
        "layers": [{"name": layer.name, "settings": dict(layer.settings)} for layer in node.layers],
        "gives": {name: _type(spec) for name, spec in node.gives.items()},
        "rules": rules_of(node),
        "reads": [*node.reads, *node.compared],
    }


def _type(spec: TensorSpec) -> dict[str, Any]:
    return {"datatype": spec.datatype, "shape": list(spec.shape)}
