"""Plans that pictures are drawn of: graphs built by hand, as the compiler would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mesh.signature import TensorSpec
from mesh.topology.graph import Graph, GraphLimits, GraphNode, LayerSettings
from mesh.topology.placement import Partition, Plan, Worker

IMAGE = TensorSpec("FP32", ("rows", 64))
LABEL = TensorSpec("INT64", ("rows",))
SCORES = TensorSpec("FP32", ("rows", 10))


def node(
    name: str,
    kind: str,
    uses: str,
    *,
    inputs: Mapping[str, str] | None = None,
    branches: Mapping[str, Mapping[str, str]] | None = None,
    gives: Mapping[str, TensorSpec],
    layers: Sequence[LayerSettings] = (),
) -> GraphNode:
    return GraphNode(
        name=name,
        kind=kind,
        uses=uses,
        arguments={"secret": "hunter2"},
        inputs=dict(inputs or {}),
        branches={feed: dict(branch) for feed, branch in (branches or {}).items()},
        takes={},
        gives=dict(gives),
        layers=tuple(layers),
    )


def graph(name: str, inputs: Mapping[str, TensorSpec], nodes: Sequence[GraphNode], outputs: Mapping[str, str]) -> Graph:
    return Graph(
        name=name,
        file="topology.yaml",
        model_root="/nowhere",
        limits=GraphLimits(),
        inputs=dict(inputs),
        nodes=tuple(nodes),
        outputs=dict(outputs),
    )


def fused(graph: Graph) -> Plan:
    names = tuple(node.name for node in graph.nodes)
    gateway = Worker(name="gateway", nodes=names)
    partition = Partition(
        worker="gateway", nodes=names, inputs=tuple(graph.inputs), outputs=tuple(graph.outputs.values())
    )
    return Plan(graph=graph, placement="fused", workers=(gateway,), partitions=(partition,))


DIGITS = graph(
    "digits",
    {"image": IMAGE},
    [
        node("scale", "preprocess", "nodes.tabular:Scale", inputs={"x": "image"}, gives={"x": IMAGE}),
        node(
            "small",
            "predict",
            "nodes.onnx:OnnxPredict",
            inputs={"X": "scale.x"},
            gives={"label": LABEL, "p": SCORES},
            layers=[LayerSettings("queue", {"max_rows": 64}), LayerSettings("batch", {"max_rows": 8})],
        ),
        node(
            "large",
            "predict",
            "nodes.onnx:OnnxPredict",
            inputs={"X": "scale.x"},
            gives={"label": LABEL, "p": SCORES},
        ),
        node(
            "answer",
            "aggregate",
            "nodes.aggregate:FirstOf",
            branches={
                "small": {"label": "small.label", "p": "small.p"},
                "large": {"label": "large.label", "p": "large.p"},
            },
            gives={"label": LABEL},
        ),
    ],
    {"label": "answer.label", "scores": "small.p"},
)
TWO = Plan(
    graph=DIGITS,
    placement="two",
    workers=(
        Worker(name="front", nodes=("scale", "small", "answer")),
        Worker(name="heavy", nodes=("large",), address="grpc://10.0.0.2:7001", replicas=2),
    ),
    partitions=(
        Partition(worker="front", nodes=("scale",), inputs=("image",), outputs=("scale.x",)),
        Partition(worker="front", nodes=("small",), inputs=("scale.x",), outputs=("small.label", "small.p")),
        Partition(worker="heavy", nodes=("large",), inputs=("scale.x",), outputs=("large.label", "large.p")),
        Partition(
            worker="front",
            nodes=("answer",),
            inputs=("small.label", "small.p", "large.label", "large.p"),
            outputs=("answer.label",),
        ),
    ),
)


def strange(name: str) -> Plan:
    """A plan in which everything is called `name`."""
    spec = TensorSpec("FP32", ("rows", name))
    one = node(name, "predict", f"module:{name}", inputs={name: name}, gives={name: spec})
    two = node(f"{name}2", "other", "m:C", branches={name: {name: f"{name}.{name}"}}, gives={name: spec})
    return fused(graph(name, {name: spec}, [one, two], {name: f"{name}2.{name}"}))
