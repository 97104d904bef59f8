"""Each node against its class, its arguments and what feeds it; gives `GraphNode`s and the types of their edges."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from mesh.errors import Problem, SetupError
from mesh.node import Aggregate, Cache, Node
from mesh.signature import Signature, TensorSpec
from mesh.topology.declared import digest_of, joined, needs_of, signature_of, signature_of_class, version_of
from mesh.topology.graph import GraphNode, LayerSettings, edge_node
from mesh.topology.resolve import arguments_of, construct, import_class, model_files
from mesh.topology.source import Path, closest, did_you_mean, shown
from mesh.topology.spec import NodeFile, Topology
from mesh.topology.types import ROWS, Binding, bind, inputs_of, outputs_of
from mesh.topology.wiring import Wiring

__all__ = ["NodeTyping"]


class NodeTyping:
    """The nodes of a topology, typed in the order of the flow.

    A node that is wrong, or that is fed by one, is in doubt: what it gives is taken for what it may be, so that its
    own mistakes are found and nothing is told twice.

    Args:
        topology: What the file says.
        wiring: What feeds what.
        model_root: Where model files lie; None where that is not known.
        problems: Where mistakes are added.
    """

    def __init__(
        self, topology: Topology, wiring: Wiring, model_root: FilePath | None, problems: list[Problem]
    ) -> None:
        self._topology = topology
        self._wiring = wiring
        self._model_root = model_root
        self._problems = problems
        self._classes: dict[str, type[Node] | SetupError] = {}
        self._doubtful = set(wiring.astray)
        self.inputs = {
            name: TensorSpec(part.datatype, (ROWS, *("?" if size < 0 else size for size in part.shape[1:])))
            for name, part in topology.inputs.items()
        }
        """The type of each input of the graph."""
        self.typed: dict[str, GraphNode] = {}
        """The nodes of which it is known what they give, each after those that feed it."""
        self.doubtful = self._doubtful
        """The nodes that are wrong, or fed by one that is."""
        self.miswired = False
        """Whether a node takes other inputs than it is given; then it is not known what else is needed."""

    def run(self) -> None:
        """Build and type each node, and look at what the outputs name."""
        for name in self._wiring.order:
            before = len(self._problems)
            self._doubtful.update([name] if self._in_doubt(name) else [])
            part = self._topology.nodes[name]
            cls = self._class(name, part)
            typed = self._typed(name, part, cls) if cls is not None else None
            if typed is not None:
                self.typed[name] = typed
            if typed is None or len(self._problems) > before:
                self._doubtful.add(name)
        for output, edge in self._topology.outputs.items():
            self._edge(edge, ("outputs", output))

    def _wrong(self, path: Path, text: str, hint: str = "", *, at_key: bool = False) -> None:
        self._problems.append(self._topology.source.problem(path, text, hint, at_key=at_key))

    def _in_doubt(self, name: str) -> bool:
        inputs = self._topology.nodes[name].inputs
        sources = [edge_node(edge) or edge for edge in (inputs.values() if isinstance(inputs, dict) else inputs)]
        known = all(source in self._topology.inputs or source in self.typed for source in sources)
        doubted = self._topology.doubts("nodes", name, "inputs") or not self._doubtful.isdisjoint(sources)
        return doubted or not known

    # The class, and an instance of it.

    def _class(self, name: str, part: NodeFile) -> type[Node] | None:
        if self._topology.doubts("nodes", name, "uses"):
            return None
        # A module that fails is not imported again for every node that names it.
        if part.uses not in self._classes:
            try:
                self._classes[part.uses] = import_class(part.uses)
            except SetupError as error:
                self._classes[part.uses] = error
        found = self._classes[part.uses]
        if isinstance(found, SetupError):
            self._wrong(("nodes", name, "uses"), str(found))
            return None
        return found

    def _made(self, name: str, part: NodeFile, cls: type[Node]) -> Node | None:
        path: Path = ("nodes", name, "with")
        if self._topology.doubts(*path):
            return None
        arguments, wrong = arguments_of(cls, part.arguments, self._model_root)
        for one in wrong:
            inside = (one.name, *one.inside) if one.name else ()
            self._wrong((*path, *inside), one.text, one.hint, at_key=one.at_key or not one.name)
        if wrong or (self._model_root is None and model_files(cls).intersection(arguments)):
            return None
        try:
            return construct(cls, arguments)
        except SetupError as error:
            self._wrong(path, str(error), at_key=True)
            return None

    # What it takes and gives.

    def _typed(self, name: str, part: NodeFile, cls: type[Node]) -> GraphNode | None:
        path: Path = ("nodes", name)
        node, joins = self._made(name, part, cls), issubclass(cls, Aggregate)
        if joins and part.layers:
            self._wrong((*path, "layers"), "an aggregate takes no layers", at_key=True)
        if issubclass(cls, Cache):
            return self._store(name, part, cls, node)
        is_list = isinstance(part.inputs, list)
        if is_list != joins and not self._topology.doubts(*path, "inputs"):
            told = "is an aggregate: write inputs as a list of nodes"
            told = told if joins else "takes tensors: write inputs as {tensor: node.tensor}"
            if part.inputs:  # else it has been told of
                self._wrong((*path, "inputs"), f"node {name!r} {told}", at_key=True)
            self.miswired = True
            return None
        try:
            if isinstance(node, Aggregate):
                return self._joined(name, part, node)
            # A signature that stands in the class does not wait for an instance.
            signature = signature_of_class(cls) if node is None else signature_of(node)
            if joins or signature is None:
                return None
            return self._bound(name, part, cls, signature, node)
        except SetupError as error:
            self._wrong(self._blame(name, part, cls), str(error))
            return None

    def _store(self, name: str, part: NodeFile, cls: type[Node], node: Node | None) -> GraphNode:
        """A cache node: takes no part in the flow."""
        told = {"inputs": part.inputs, "when": part.when, "split": part.split, "shadow": part.shadow}
        told |= {"join": part.join != "all", "layers": part.layers}
        for key, given in told.items():
            if given:
                text = f"node {name!r} is a cache: it takes no {key}"
                self._wrong(("nodes", name, key), text, "no rows come to it; a cache names it as mesh://", at_key=True)
        try:
            return self._node(name, part, cls, node, gives={})
        except SetupError as error:
            self._wrong(("nodes", name, "uses"), str(error))
            return self._node(name, part, cls, None, gives={})

    def _blame(self, name: str, part: NodeFile, cls: type[Node]) -> Path:
        files = [argument for argument in part.arguments if argument in model_files(cls)]
        return ("nodes", name, "with", files[0]) if len(files) == 1 else ("nodes", name, "uses")

    def _bound(self, name: str, part: NodeFile, cls: type[Node], signature: Signature, node: Node | None) -> GraphNode:
        path: Path = ("nodes", name, "inputs")
        edges = part.inputs if isinstance(part.inputs, dict) else {}
        unknown = {tensor: closest(tensor, signature.inputs) for tensor in edges if tensor not in signature.inputs}
        for tensor in unknown:
            hint = did_you_mean(tensor, signature.inputs)
            self._wrong((*path, tensor), f"node {name!r} takes no tensor {shown(tensor)}", hint, at_key=True)
        missing = [tensor for tensor in signature.inputs if tensor not in edges and tensor not in unknown.values()]
        for tensor in missing if edges else ():
            hint = f"write inputs: {{{tensor}: node.tensor}}"
            text = f"node {name!r} needs tensor {tensor!r}, {signature.inputs[tensor]}"
            self._wrong(path, text, hint, at_key=True)
        self.miswired |= bool(unknown or missing)
        given: dict[str, TensorSpec] = {}
        for tensor, edge in edges.items():
            found = self._edge(edge, (*path, tensor))
            if found is not None:
                given[tensor] = found
        binding, mismatches = bind(signature, given)
        for tensor, why in mismatches:
            self._wrong((*path, tensor), f"{edges[tensor]!r} does not fit tensor {tensor!r} of node {name!r}: {why}")
        takes, gives = inputs_of(signature, binding, given), outputs_of(signature, binding)
        return self._node(name, part, cls, node, inputs=dict(edges), takes=takes, gives=gives)

    def _edge(self, edge: str, path: Path) -> TensorSpec | None:
        source, _, tensor = edge.partition(".")
        if not edge_node(edge):
            return self.inputs.get(edge)
        if source not in self.typed:
            return None
        gives = self.typed[source].gives
        if tensor not in gives:
            near = closest(tensor, gives)
            hint = f"did you mean '{source}.{near}'?" if near else did_you_mean(tensor, gives)
            self._wrong(path, f"node {source!r} gives no tensor {shown(tensor)}", hint)
        return gives.get(tensor)

    def _joined(self, name: str, part: NodeFile, node: Aggregate) -> GraphNode | None:
        if name in self._doubtful or not isinstance(part.inputs, list):
            return None
        branches = {branch: self.typed[branch].gives for branch in part.inputs}
        try:
            gives = joined(node, branches)
        except SetupError as error:
            self._wrong(("nodes", name, "inputs"), f"node {name!r} cannot join these branches: {error}", at_key=True)
            return None
        edges = {branch: {tensor: f"{branch}.{tensor}" for tensor in specs} for branch, specs in branches.items()}
        # A symbol that an aggregate names is known to nobody else.
        gives = outputs_of(Signature({}, gives), Binding())
        return self._node(name, part, type(node), node, branches=edges, gives=gives)

    def _node(self, name: str, part: NodeFile, cls: type[Node], node: Node | None, **found: Any) -> GraphNode:
        layers = [
            # Settings that are no mapping have been told of.
            LayerSettings(layer, dict(settings) if isinstance(settings, dict) else {})
            for entry in part.layers
            for layer, settings in entry.items()
        ]
        told: dict[str, Any] = {"expands": cls.expands}
        if node is not None:
            told |= {"digest": digest_of(node), "version": version_of(node)}
        if isinstance(node, Aggregate):
            told |= {"needs": needs_of(node, part.inputs), "gathers": node.gathers}
        common: dict[str, Any] = {"inputs": {}, "takes": {}, **told, **found}
        return GraphNode(
            name=name,
            kind=cls.kind,
            uses=part.uses,
            arguments=dict(part.arguments),
            layers=tuple(layers),
            **common,
        )
