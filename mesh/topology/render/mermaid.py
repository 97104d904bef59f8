"""A plan as a Mermaid flowchart, which GitHub and most Markdown viewers draw."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mesh.signature import TensorSpec
from mesh.topology.graph import GraphNode
from mesh.topology.placement import Plan, Worker
from mesh.topology.render.flow import Flow, LineNotes, Vertex, flows_of, vertices_of
from mesh.topology.render.later import later_of
from mesh.topology.render.rules import rules_of

__all__ = ["mermaid"]

_SHAPES: Mapping[str, tuple[str, str]] = {
    "preprocess": ("{{", "}}"),
    "predict": ("[", "]"),
    "aggregate": ("[/", "\\]"),
    "cache": ("[(", ")]"),
}
"""Kind -> brackets. A hexagon is a flowchart's sign for preparation; the trapezoid draws many lines into one; a
cylinder is what things are kept in."""


def mermaid(plan: Plan, notes: Mapping[str, str] | None = None, line_notes: LineNotes | None = None) -> str:
    """A flowchart from left to right.

    Inputs and outputs of the graph are stadiums. A node shows its name, class, rules and layers, and its kind by its
    shape. A line shows the tensors that travel on it and their types; a dotted one those that are only looked at.
    Workers are subgraphs where there is more than one. Jobs and schedules are a cylinder of their own.

    Args:
        plan: What to draw.
        notes: By node, a line of text that is shown on it.
        line_notes: What is shown on lines.
    """
    notes, line_notes = notes or {}, line_notes or {}
    graph = plan.graph
    specs = graph.edge_specs
    nodes = {node.name: _node(node, notes.get(node.name, "")) for node in graph.nodes}
    lines = ["flowchart LR"]
    lines += [f"  {_stadium(vertex)}" for vertex in vertices_of(graph) if vertex.role == "input"]
    if len(plan.workers) == 1:
        lines += [f"  {node}" for node in nodes.values()]
    else:
        for worker in plan.workers:
            lines.append(f"  subgraph {_id('worker', worker.name)}[{_quoted(_worker(worker))}]")
            lines += [f"    {nodes[name]}" for name in nodes if name in worker.nodes]
            lines.append("  end")
    lines += [f"  {_stadium(vertex)}" for vertex in vertices_of(graph) if vertex.role == "output"]
    between: dict[tuple[Vertex, Vertex, bool], list[str]] = {}
    for flow in flows_of(graph):
        between.setdefault((flow.giver, flow.taker, flow.aside), []).append(_tensor(flow, specs[flow.edge]))
    for (giver, taker, aside), tensors in between.items():
        arrow = "-.->" if aside else "-->"
        if not aside and (note := line_notes.get((giver, taker))):
            tensors.append(note)
        lines.append(f"  {_id(*giver)} {arrow}|{_quoted(*tensors)}| {_id(*taker)}")
    if later := later_of(graph):
        lines.append(f"  later[({_quoted(*later)})]")
    return "\n".join(lines) + "\n"


def _stadium(vertex: Vertex) -> str:
    return f"{_id(*vertex)}([{_quoted(vertex.name)}])"


def _node(node: GraphNode, note: str) -> str:
    left, right = _SHAPES.get(node.kind, _SHAPES["predict"])
    told = [node.name, node.uses, *rules_of(node)]
    if node.layers:
        told.append(" · ".join(layer.name for layer in node.layers))
    if note:
        told.append(note)
    return f"{_id('node', node.name)}{left}{_quoted(*told)}{right}"


def _worker(worker: Worker) -> str:
    replicas = f"{worker.replicas} replicas" if worker.replicas > 1 else ""
    return " · ".join(part for part in (worker.name, replicas, worker.address) if part)


def _tensor(flow: Flow, spec: TensorSpec) -> str:
    name = flow.tensor if flow.tensor == flow.taken_as else f"{flow.tensor} as {flow.taken_as}"
    return f"{name}: {spec}"


def _id(role: str, name: str) -> str:
    """An identifier that is no word of Mermaid's, different for different names."""
    # Names are lower case: what could be read otherwise is written as its code point between two capitals. Hyphens can
    # stay within a name; before another hyphen, or last, they would be the beginning of an arrow.
    return f"{role}_" + re.sub(r"[^a-z0-9_-]|-(?![a-z0-9_])", lambda found: f"X{ord(found[0]):x}X", name)


def _quoted(*lines: str) -> str:
    return '"' + "<br>".join(map(_escaped, lines)) + '"'


def _escaped(text: str) -> str:
    """Whatever could be markup, of Mermaid, Markdown or HTML, as Mermaid's entity for it."""
    return re.sub(r"[^\w :.,?/()\[\]·+-]", lambda found: f"#{ord(found[0])};", text)
