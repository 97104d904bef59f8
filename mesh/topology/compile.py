"""`Topology` to `Graph`: whatever can be wrong with a file is found here, all of it at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mesh.errors import Problem, TopologyError
from mesh.topology.caches import check_caches
from mesh.topology.flow import FlowTyping
from mesh.topology.graph import Graph, GraphLimits
from mesh.topology.jobs import check_jobs
from mesh.topology.load import LayerTypes, load, load_text
from mesh.topology.nodes import NodeTyping
from mesh.topology.placement import Plan, check_placements, plan_of
from mesh.topology.resolve import importable_from
from mesh.topology.schedules import check_schedules
from mesh.topology.source import shown
from mesh.topology.spec import Topology
from mesh.topology.wiring import check_unused, wire

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
    """Read and check a topology file. From then on, modules that lie beside it can be imported.

    Raises:
        TopologyError: The file has mistakes; holds all of them.
    """
    topology, problems = load(path, layers)
    return _compile(topology, problems, path.resolve().parent)


def compile_text(text: str, layers: LayerTypes, *, file: str = "<text>", folder: Path | None = None) -> Compiled:
    """The same for a text; `folder` is where it would lie, the working directory if not said.

    Raises:
        TopologyError: The text has mistakes; holds all of them.
    """
    topology, problems = load_text(text, file, layers)
    return _compile(topology, problems, (folder or Path.cwd()).resolve())


def _compile(topology: Topology, problems: list[Problem], folder: Path) -> Compiled:
    importable_from(folder)
    model_root = _model_root(topology, folder, problems)
    wiring = wire(topology, problems)
    typing = NodeTyping(topology, wiring, model_root, problems)
    typing.run()
    nodes = FlowTyping(topology, wiring, typing, problems).run()
    caches = check_caches(topology, nodes, problems)
    if wiring.whole and not typing.miswired:
        check_unused(topology, wiring, problems)
    check_placements(topology, problems)
    jobs = check_jobs(topology, folder, problems)
    schedules = check_schedules(topology, folder, problems)
    if problems or model_root is None:
        raise TopologyError(problems)
    header = topology.header
    graph = Graph(
        name=header.name,
        description=header.description,
        file=topology.source.file,
        model_root=str(model_root),
        engine=header.engine,
        limits=GraphLimits(
            max_message_bytes=header.limits.max_message,
            max_in_flight=header.limits.max_in_flight,
            default_timeout_s=header.limits.default_timeout,
        ),
        inputs=typing.inputs,
        nodes=tuple(nodes),
        outputs=dict(topology.outputs),
        caches=tuple(caches),
        jobs=jobs,
        schedules=tuple(schedules),
    )
    return Compiled(graph=graph, topology=topology)


def _model_root(topology: Topology, folder: Path, problems: list[Problem]) -> Path | None:
    """The folder that model files lie under; None where it is not known."""
    if topology.doubts("models"):
        return None
    models = topology.header.models
    try:
        root = (folder / models).resolve()
        if root.is_dir():
            return root
        why = "there is no such folder beside the topology file"
    except OSError as error:
        why = error.strerror or "it cannot be looked at"
    except (ValueError, RuntimeError):  # a NUL in its name, or links in a circle
        why = "it cannot be looked at"
    problems.append(topology.source.problem(("models",), f"the model root {shown(models)} cannot be used: {why}"))
    return None
