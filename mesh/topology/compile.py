"""`Topology` to `Graph`: names, arguments, cycles, types. Whatever can be wrong is found here, all of it at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.errors import NodeContractError, Problem, SetupError, TopologyError
from mesh.node import Aggregate, Node
from mesh.signature import TensorSpec
from mesh.topology.graph import Graph, GraphLimits, GraphNode, LayerSettings, edge_node
from mesh.topology.load import LayerTypes, load, load_text
from mesh.topology.order import find_cycle, in_order
from mesh.topology.placement import Plan, check_placements, plan_of
from mesh.topology.resolve import (
    arguments_of,
    construct,
    import_class,
    importable_from,
    signature_of,
)
from mesh.topology.source import did_you_mean
from mesh.topology.spec import NodeFile, Topology
from mesh.topology.types import ROWS, bind, outputs_of

__all__ = ["Compiled", "compile_file", "compile_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A topology without mistakes: its graph, and a plan for each of its placements."""

    graph: Graph
    topology: Topology

    @property
    def placements(self) -> list[str]:
        """The names that `plan` takes."""
        return ["fused", "processes", *self.topology.placements]

    def plan(self, placement: str) -> Plan:
        """Who runs what.

        Raises:
            PlacementError: There is no placement of that name.
        """
        return plan_of(self.graph, self.topology, placement)


def compile_file(path: Path, layers: LayerTypes) -> Compiled:
    """Read and check a topology file.

    Raises:
        TopologyError: The file has mistakes; holds all of them.
    """
    importable_from(path.resolve().parent)
    return _compile(*load(path, layers), path.resolve().parent)


def compile_text(text: str, layers: LayerTypes, *, file: str = "<text>", folder: Path | None = None) -> Compiled:
    """The same for a text; `folder` is where it would lie, the working directory if not said.

    Raises:
        TopologyError: The text has mistakes; holds all of them.
    """
    return _compile(*load_text(text, file, layers), folder or Path.cwd())


def _compile(topology: Topology, problems: list[Problem], folder: Path) -> Compiled:
    work = _Compilation(topology, folder / topology.header.models, problems)
    work.check_references()
    order = work.order()
    work.type_nodes(order)
    work.check_outputs()
    work.check_unused()
    check_placements(topology, problems)
    if problems:
        raise TopologyError(problems)
    limits = topology.header.limits
    graph = Graph(
        name=topology.header.name,
        description=topology.header.description,
        file=topology.source.file,
        model_root=str(work.model_root.resolve()),
        limits=GraphLimits(
            max_message_bytes=limits.max_message,
            max_in_flight=limits.max_in_flight,
            default_timeout_s=limits.default_timeout,
        ),
        inputs=work.input_specs,
        nodes=tuple(work.typed[name] for name in order),
        outputs=dict(topology.outputs),
    )
    return Compiled(graph=graph, topology=topology)


@dataclass(slots=True)
class _Compilation:
    """The passes share what is known so far. A node that is wrong is `broken`: what hangs on it is not blamed."""

    topology: Topology
    model_root: Path
    problems: list[Problem]
    typed: dict[str, GraphNode] = field(default_factory=dict[str, GraphNode])
    edges: dict[str, TensorSpec] = field(default_factory=dict[str, TensorSpec])
    input_specs: dict[str, TensorSpec] = field(default_factory=dict[str, TensorSpec])

    def __post_init__(self) -> None:
        for name, part in self.topology.inputs.items():
            sizes = tuple(ROWS if axis == 0 else "?" if size < 0 else size for axis, size in enumerate(part.shape))
            self.input_specs[name] = TensorSpec(part.datatype, sizes)
        self.edges.update(self.input_specs)
        models = self.topology.header.models
        if not self.model_root.is_dir():
            self._wrong(("models",), f"the model root {models!r} is no folder")

    def _wrong(self, path: tuple[str | int, ...], text: str, hint: str = "", *, at_key: bool = False) -> None:
        self.problems.append(self.topology.source.problem(path, text, hint, at_key=at_key))

    def _broken(self, name: str) -> None:
        self.topology.broken.add(name)

    # Names: every edge has to come from somewhere.

    def feeds(self, name: str) -> list[str]:
        """The nodes that feed a node, as the file has it; those that do not exist left out."""
        inputs = self.topology.nodes[name].inputs
        named = [edge_node(edge) for edge in inputs.values()] if isinstance(inputs, dict) else inputs
        return [node for node in dict.fromkeys(named) if node in self.topology.nodes]

    def check_references(self) -> None:
        """Every input of every node names a node or an input of the graph."""
        for name, node in self.topology.nodes.items():
            path = ("nodes", name, "inputs")
            if not node.inputs:
                self._wrong(path, f"node {name!r} takes nothing", at_key=True)
                self._broken(name)
            if isinstance(node.inputs, dict):
                for tensor, edge in node.inputs.items():
                    if not self._exists(edge, (*path, tensor)):
                        self._broken(name)
                continue
            for index, branch in enumerate(node.inputs):
                if branch in node.inputs[:index]:
                    self._wrong((*path, index), f"branch {branch!r} comes twice")
                    self._broken(name)
                elif branch not in self.topology.nodes and branch not in self.topology.broken:
                    self._wrong((*path, index), f"no node is called {branch!r}", self._near(branch))
                    self._broken(name)

    def _exists(self, edge: str, path: tuple[str | int, ...]) -> bool:
        source = edge_node(edge) or edge
        known = self.topology.nodes if edge_node(edge) else self.topology.inputs
        if source in known or source in self.topology.broken:
            return True
        if not edge_node(edge) and edge in self.topology.nodes:
            self._wrong(path, f"{edge!r} is a node: say which of its tensors, as in {edge}.TENSOR")
        elif edge_node(edge):
            self._wrong(path, f"no node is called {source!r}", self._near(source))
        else:
            self._wrong(path, f"{edge!r} is no input of the graph", did_you_mean(edge, self.topology.inputs))
        return False

    def _near(self, name: str) -> str:
        return did_you_mean(name, dict.fromkeys([*self.topology.nodes, *sorted(self.topology.broken)]))

    # Order: a node after those that feed it.

    def order(self) -> list[str]:
        """Names in an order in which each node stands after those that feed it; nodes of a cycle are broken."""
        feeds = {name: self.feeds(name) for name in self.topology.nodes}
        ordered = in_order(feeds)
        left = {name: feeds[name] for name in feeds if name not in set(ordered)}
        if left:
            cycle = find_cycle(left)
            self._wrong(("nodes", cycle[0]), f"a cycle: {' -> '.join([*cycle, cycle[0]])}", at_key=True)
            for name in left:
                self._broken(name)
        return ordered

    # Types: each node against its class, its arguments and what feeds it.

    def type_nodes(self, order: list[str]) -> None:
        """Resolve, build and type each node, in order."""
        for name in order:
            part = self.topology.nodes[name]
            node = self._make(name, part)
            if node is None or name in self.topology.broken:
                self._broken(name)
                continue
            blind = any(feed in self.topology.broken for feed in self.feeds(name)) or any(
                edge in self.topology.broken
                for edge in (part.inputs if isinstance(part.inputs, list) else part.inputs.values())
            )
            try:
                typed = (
                    self._join(name, part, node, blind)
                    if isinstance(node, Aggregate)
                    else self._tensors(name, part, node)
                )
            except SetupError as error:
                self._wrong(self._blame(name, part), str(error))
                typed = None
            if typed is None:
                self._broken(name)
                continue
            self.typed[name] = typed
            self.edges.update({f"{name}.{tensor}": spec for tensor, spec in typed.gives.items()})

    def _blame(self, name: str, part: NodeFile) -> tuple[str | int, ...]:
        return ("nodes", name, "with", "model") if "model" in part.arguments else ("nodes", name, "uses")

    def _make(self, name: str, part: NodeFile) -> Node | None:
        try:
            cls = import_class(part.uses)
        except SetupError as error:
            self._wrong(("nodes", name, "uses"), str(error))
            return None
        arguments, wrong = arguments_of(cls, part.arguments, self.model_root)
        for one in wrong:
            path = ("nodes", name, "with", one.name, *one.inside) if one.name else ("nodes", name, "with")
            unknown = bool(one.name) and not one.inside and bool(one.hint)
            self._wrong(path, one.text, one.hint, at_key=unknown or not one.name)
        if wrong:
            return None
        try:
            return construct(cls, arguments)
        except SetupError as error:
            self._wrong(("nodes", name, "with"), str(error), at_key=True)
            return None

    def _tensors(self, name: str, part: NodeFile, node: Node) -> GraphNode | None:
        path = ("nodes", name, "inputs")
        signature = signature_of(node)
        if not isinstance(part.inputs, dict):
            self._wrong(path, f"node {name!r} takes tensors: write inputs as {{tensor: node.tensor}}", at_key=True)
            return None
        before = len(self.problems)
        for tensor in part.inputs:
            if tensor not in signature.inputs:
                hint = did_you_mean(tensor, signature.inputs)
                self._wrong((*path, tensor), f"node {name!r} takes no tensor {tensor!r}", hint, at_key=True)
        for tensor, spec in signature.inputs.items():
            if tensor not in part.inputs:
                self._wrong(path, f"node {name!r} needs tensor {tensor!r}, {spec}", at_key=True)
        given: dict[str, TensorSpec] = {}
        for tensor, edge in part.inputs.items():
            found = self._edge(edge, (*path, tensor))
            if found is not None:
                given[tensor] = found
        binding, rest, mismatches = bind(signature, given)
        for tensor, text in mismatches:
            self._wrong((*path, tensor), f"tensor {tensor!r} of node {name!r} {text}")
        if len(self.problems) > before:
            return None
        takes = {tensor: signature.inputs[tensor] for tensor in part.inputs}
        return self._typed(
            name, part, node, inputs=dict(part.inputs), takes=takes, gives=outputs_of(signature, binding, rest)
        )

    def _edge(self, edge: str, path: tuple[str | int, ...]) -> TensorSpec | None:
        found = self.edges.get(edge)
        source = edge_node(edge)
        if found is None and source in self.typed:
            known = [f"{source}.{tensor}" for tensor in self.typed[source].gives]
            self._wrong(path, f"node {source!r} gives no tensor {edge.partition('.')[2]!r}", did_you_mean(edge, known))
        return found

    def _join(self, name: str, part: NodeFile, node: Aggregate, blind: bool) -> GraphNode | None:
        path = ("nodes", name, "inputs")
        if not isinstance(part.inputs, list):
            self._wrong(path, f"node {name!r} is an aggregate: write inputs as a list of nodes", at_key=True)
            return None
        if blind:
            return None
        if part.layers:
            self._wrong(("nodes", name, "layers"), "an aggregate takes no layers", at_key=True)
            return None
        branches = {branch: self.typed[branch].gives for branch in part.inputs}
        try:
            gives = dict(node.join(branches))
        except NodeContractError as error:
            self._wrong(path, str(error), at_key=True)
            return None
        edges = {branch: {tensor: f"{branch}.{tensor}" for tensor in specs} for branch, specs in branches.items()}
        return self._typed(name, part, node, branches=edges, gives=gives)

    def _typed(self, name: str, part: NodeFile, node: Node, **found: Any) -> GraphNode:
        layers = tuple(
            LayerSettings(layer, dict(settings or {})) for entry in part.layers for layer, settings in entry.items()
        )
        common: dict[str, Any] = {"inputs": {}, "takes": {}, **found}
        return GraphNode(
            name=name,
            kind=node.kind,
            uses=part.uses,
            arguments=dict(part.arguments),
            layers=layers,
            digest=node.digest(),
            **common,
        )

    # Outputs, and what leads to none of them.

    def check_outputs(self) -> None:
        """Every output of the graph names an edge."""
        for name, edge in self.topology.outputs.items():
            path = ("outputs", name)
            if not edge_node(edge) and edge in self.topology.inputs:
                self._wrong(path, f"{edge!r} is an input of the graph: an output comes from a node")
            elif self._exists(edge, path):
                self._edge(edge, path)

    def check_unused(self) -> None:
        """Every node leads to an output, and every input to a node."""
        if not self.topology.outputs:
            return
        needed: set[str] = set()
        frontier = [edge_node(edge) for edge in self.topology.outputs.values()]
        while frontier:
            name = frontier.pop()
            if name in self.topology.nodes and name not in needed:
                needed.add(name)
                frontier.extend(self.feeds(name))
        for name in self.topology.nodes:
            if name not in needed and name not in self.topology.broken:
                self._wrong(("nodes", name), f"node {name!r} leads to no output", at_key=True)
        used = {
            edge
            for node in self.topology.nodes.values()
            if isinstance(node.inputs, dict)
            for edge in node.inputs.values()
        }
        whole = not self.topology.broken.difference(self.topology.nodes)
        for name in self.topology.inputs:
            if name not in used and whole:
                self._wrong(("inputs", name), f"input {name!r} feeds no node", at_key=True)
