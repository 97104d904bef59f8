"""`Graph`: a checked topology. An immutable value: compare it, print it, send it to another process.

Edges are named as in the file: `node.tensor`, or the name of a graph input. Node names hold no dot, so the two cannot
be confused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mesh.signature import TensorSpec
from mesh.topology.graph_jobs import GraphJobs, GraphSchedule

__all__ = [
    "MESH",
    "Graph",
    "GraphCache",
    "GraphLimits",
    "GraphNode",
    "Join",
    "LayerSettings",
    "RowsOf",
    "Share",
    "edge_node",
]


MESH = "mesh://"
"""What the address of a cache node begins with; its name follows."""


@dataclass(frozen=True, slots=True)
class LayerSettings:
    """One layer around a node, as the file has it."""

    name: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """How an aggregate waits for its branches, where it does not need them all.

    It runs as soon as `quorum` branches and all of the `required` ones are there, unless it waits for the others as
    well. A branch that has no rows is not counted.
    """

    quorum: int
    """Branches that have to be there, from 1."""
    required: tuple[str, ...] = ()
    """Branches without which there is no answer."""
    waits: bool = False
    """Wait for the other branches too, though no longer than until the deadline."""
    deadline_s: float | None = None
    """Seconds after the request's arrival until which it waits; None where there is no end but the request's."""
    timeouts_s: dict[str, float] = field(default_factory=dict[str, float])
    """Branch -> seconds after the request's arrival by which it has to be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One arm of a split: the rows whose number, drawn from what `by` says, falls into its part of 0 to 1."""

    group: str
    """The split that it is an arm of."""
    begin: float
    end: float
    by: tuple[str, ...]
    """The edges whose content decides, or one request parameter, `parameters.name`."""


@dataclass(frozen=True, slots=True)
class RowsOf:
    """The rows that a node gave, or those that it was run on."""

    node: str
    given: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """One node, typed."""

    name: str
    kind: str
    uses: str
    arguments: dict[str, Any]
    """Its `with:` block, as the file has it."""
    inputs: dict[str, str]
    """Tensor it takes -> the edge that feeds it. Empty for an aggregate."""
    branches: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """For an aggregate: node that feeds it -> tensor -> edge."""
    takes: dict[str, TensorSpec]
    """What arrives, as far as it is known before anything runs: what is declared, and what feeds it. Empty for an
    aggregate."""
    gives: dict[str, TensorSpec]
    layers: tuple[LayerSettings, ...] = ()
    digest: str = ""
    """Of the model file, where there is one."""
    version: str = ""
    """Of the node's code, as its author declares it."""
    when: str = ""
    """The condition, in its canonical form, that a row has to meet to be run on; empty where there is none."""
    reads: tuple[str, ...] = ()
    """The edges that the condition looks at."""
    share: Share | None = None
    """Its share of the rows, where it is one arm of a split."""
    expands: bool = False
    join: Join | None = None
    """For an aggregate that does not need every branch: how it waits."""
    rows_of: tuple[RowsOf, ...] = ()
    """For an aggregate: it answers the rows that are in all of these; every row of the request where empty."""
    needs: str | tuple[str, ...] = "every"
    """For an aggregate: the branches that a row needs to be answered (see `mesh.node.Needs`)."""
    gathers: bool = False
    """For an aggregate: its branches were made of the rows that it answers."""
    shadows: str = ""
    """The node that it is compared with, where it gives nothing to anybody."""

    @property
    def cache(self) -> str:
        """The cache that it keeps its answers in; empty where it has none."""
        return next((str(layer.settings["in"]) for layer in self.layers if layer.name == "cache"), "")

    @property
    def release(self) -> str:
        """What its answers are those of: the version of its code, and some digits of its model's digest, if any."""
        return f"{self.version}-{self.digest[:12]}" if self.digest else self.version

    @property
    def edges(self) -> list[str]:
        """Every edge that feeds it or its condition, or that it is compared with, once each."""
        inside = [edge for branch in self.branches.values() for edge in branch.values()]
        return list(dict.fromkeys([*self.inputs.values(), *inside, *self.reads, *self.compared]))

    @property
    def compared(self) -> list[str]:
        """Of a shadow: the edges that it is compared with."""
        return [f"{self.shadows}.{tensor}" for tensor in self.gives] if self.shadows else []

    @property
    def after(self) -> list[str]:
        """The nodes that have to end before it, once each."""
        rows_of = [one.node for one in self.rows_of]
        return list(dict.fromkeys(node for node in [*map(edge_node, self.edges), *rows_of] if node))


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCache:
    """Where cache layers keep what their nodes answered."""

    name: str
    where: tuple[str, ...]
    """The address of its backend, or of each tier, the uppermost first."""
    max_bytes: int
    max_value_bytes: int
    timeout_s: float
    trust: str
    line: int
    """Where the file says so."""

    @property
    def nodes(self) -> list[str]:
        """The cache nodes that it is kept in."""
        return [one.removeprefix(MESH) for one in self.where if one.startswith(MESH)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphLimits:
    """Bounds that hold in every placement."""

    max_message_bytes: int = 64 << 20
    max_in_flight: int = 1024
    default_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A checked, typed, acyclic graph of nodes."""

    name: str
    description: str = ""
    file: str
    """The file it was read from, as the user named it."""
    model_root: str
    """Absolute path that model files lie under."""
    engine: str = "wire"
    """What speaks gRPC between its workers, and at its gateway."""
    limits: GraphLimits
    inputs: dict[str, TensorSpec]
    nodes: tuple[GraphNode, ...]
    """Each after those that feed it."""
    outputs: dict[str, str]
    """Output of the graph -> the edge that gives it."""
    caches: tuple[GraphCache, ...] = ()
    jobs: GraphJobs | None = None
    """None where the file has no `jobs:`: then it takes none."""
    schedules: tuple[GraphSchedule, ...] = ()

    def cache(self, name: str) -> GraphCache:
        """The cache of that name. Raises KeyError."""
        return {cache.name: cache for cache in self.caches}[name]

    def node(self, name: str) -> GraphNode:
        """The node of that name. Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def edge_specs(self) -> Mapping[str, TensorSpec]:
        """The type of every edge."""
        specs = dict(self.inputs)
        for node in self.nodes:
            specs.update({f"{node.name}.{name}": spec for name, spec in node.gives.items()})
        return specs

    @property
    def output_specs(self) -> dict[str, TensorSpec]:
        """What the graph gives."""
        specs = self.edge_specs
        return {name: specs[edge] for name, edge in self.outputs.items()}

    @property
    def digest(self) -> str:
        """Hex SHA-256 of everything that decides answers: not the file's place, nor its comments and formatting."""
        told = {
            "name": self.name,
            "inputs": {name: str(spec) for name, spec in self.inputs.items()},
            "outputs": self.outputs,
            "nodes": [
                {
                    "name": node.name,
                    "uses": node.uses,
                    "with": node.arguments,
                    "inputs": node.inputs,
                    # A list, because their order may decide, and the keys of a mapping are sorted.
                    "branches": list(node.branches.items()),
                    "layers": [[layer.name, layer.settings] for layer in node.layers],
                    "when": node.when,
                    "share": None if node.share is None else asdict(node.share),
                    "join": None if node.join is None else asdict(node.join),
                    "shadows": node.shadows,
                    "model": node.digest,
                    "version": node.version,
                }
                for node in self.nodes
            ],
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def edge_node(edge: str) -> str:
    """The node that gives an edge; empty for an input of the graph."""
    node, dot, _ = edge.partition(".")
    return node if dot else ""
