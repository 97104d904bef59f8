"""What the picture of a plan holds, and where: everything but how it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.signature import TensorSpec
from mesh.topology.graph import Graph
from mesh.topology.placement import Plan, Worker
from mesh.topology.render.columns import Strand
from mesh.topology.render.face import SMALL, TEXT, Face, end_face, node_face
from mesh.topology.render.flow import Flow, LineNotes, Vertex, flows_of, vertices_of
from mesh.topology.render.later import later_of, later_shortly
from mesh.topology.render.layout import Box, Point, Wire, arrange
from mesh.topology.render.measure import shortened, width_of
from mesh.topology.render.rules import rules_of

__all__ = ["TITLE", "Card", "Drawing", "Key", "Line", "draw"]

HUES = 8
"""Colours there are; workers take them in turn."""
TITLE = 20.0
"""Font size of the graph's name."""
MARGIN = 28.0
HEADER = 88.0
"""Height of what stands above the graph: its name, and its placement."""
LEGEND_ROW = 24.0
MOST_TITLE, MOST_LABEL = 48, 30
"""Characters that are shown; the whole text is in the tooltip."""
LEAST_WIDTH = 480.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A node, or an input or output of the graph, in its place."""

    vertex: Vertex
    face: Face
    box: Box
    """At least as large as the face, which stands in the middle of its height."""
    hue: int
    """Which colour: that of its worker; 0 for an input or output of the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The tensors that a giver gives to the same takers, on one wire."""

    giver: Vertex
    takers: tuple[Vertex, ...]
    label: str
    told: str
    """The tooltip: each tensor with its type, and who takes it."""
    wire: Wire
    aside: bool = False
    """They are looked at and not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A worker in the legend. The place is that of its dot."""

    hue: int
    worker: str
    """Its name at full length."""
    name: str
    detail: str
    detail_left: float
    """How far right of the dot the detail begins."""
    place: Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The whole picture, from (0, 0) to (width, height)."""

    title: str
    subtitle: str
    told: str
    """The picture in words."""
    cards: tuple[Card, ...]
    lines: tuple[Line, ...]
    legend: tuple[Key, ...]
    """Empty where there is one worker only."""
    left: float
    width: float
    height: float


Bundle = Sequence[Flow]
"""Tensors that share a wire: those of one giver that go to the same takers, once for each taker."""


def draw(plan: Plan, notes: Mapping[str, str] | None = None, line_notes: LineNotes | None = None) -> Drawing:
    """Lay a plan out.

    Args:
        plan: What to draw.
        notes: By node, a line of text that is shown on it.
        line_notes: What is shown on lines; on one that leads to several takers only where it is the same for all.
    """
    line_notes = line_notes or {}
    graph = plan.graph
    vertices = vertices_of(graph)
    number = {vertex: index for index, vertex in enumerate(vertices)}
    faces = _faces(plan, notes or {})
    bundles = _bundles(graph)
    labels = [_label(bundle, line_notes) for bundle in bundles]
    layout = arrange(
        [(face.width, face.height) for face in faces],
        [Strand(number[bundle[0].giver], tuple(number[taker] for taker in _takers(bundle))) for bundle in bundles],
        [width_of(label, SMALL, mono=True) + 14 if label else 0.0 for label in labels],
        last=[number[vertex] for vertex in vertices if vertex.role == "output"],
        origin=Point(MARGIN, HEADER),
    )
    hues = {node: index % HUES for index, worker in enumerate(plan.workers) for node in worker.nodes}
    specs = graph.edge_specs
    title, subtitle = shortened(graph.name, MOST_TITLE), _subtitle(plan)
    heading = 2 * MARGIN + max(width_of(title, TITLE, bold=True), width_of(subtitle, TEXT))
    width = max(LEAST_WIDTH, heading, layout.right + MARGIN)
    legend = _legend(plan.workers, top=layout.bottom + MARGIN + 10, right=width - MARGIN)
    return Drawing(
        title=title,
        subtitle=subtitle,
        told=_told(plan),
        cards=tuple(
            Card(vertex=vertex, face=face, box=box, hue=hues.get(vertex.name, 0) if vertex.role == "node" else 0)
            for vertex, face, box in zip(vertices, faces, layout.boxes, strict=True)
        ),
        lines=tuple(
            Line(
                giver=bundle[0].giver,
                takers=_takers(bundle),
                label=label,
                told=_told_of(bundle, specs, line_notes),
                wire=wire,
                aside=bundle[0].aside,
            )
            for bundle, label, wire in zip(bundles, labels, layout.wires, strict=True)
        ),
        legend=legend,
        left=MARGIN,
        width=width,
        height=(legend[-1].place.y if legend else layout.bottom) + MARGIN,
    )


def _faces(plan: Plan, notes: Mapping[str, str]) -> list[Face]:
    graph = plan.graph
    # A worker is named on its nodes, but for one that is a node's own, of the same name.
    homes = {
        node: worker
        for worker in plan.workers
        for node in worker.nodes
        if len(plan.workers) > 1 and (worker.name != node or worker.replicas > 1)
    }
    return [
        *(end_face(name, str(spec), f"input {name}: {spec}") for name, spec in graph.inputs.items()),
        *(node_face(node, homes.get(node.name), notes.get(node.name, "")) for node in graph.nodes),
        *(
            end_face(name, str(spec), f"output {name}: {spec}, from {graph.outputs[name]}")
            for name, spec in graph.output_specs.items()
        ),
    ]


def _bundles(graph: Graph) -> list[Bundle]:
    pairs: dict[tuple[Vertex, Vertex, bool], list[Flow]] = {}
    for flow in flows_of(graph):
        pairs.setdefault((flow.giver, flow.taker, flow.aside), []).append(flow)
    bundles: dict[tuple[Vertex, bool, frozenset[str]], list[Flow]] = {}
    for (giver, _, aside), flows in pairs.items():
        bundles.setdefault((giver, aside, frozenset(flow.edge for flow in flows)), []).extend(flows)
    return list(bundles.values())


def _takers(bundle: Bundle) -> tuple[Vertex, ...]:
    return tuple(dict.fromkeys(flow.taker for flow in bundle))


def _label(bundle: Bundle, notes: LineNotes) -> str:
    found = {_note(flow, notes) for flow in bundle}
    note = found.pop() if len(found) == 1 else ""
    return " · ".join(part for part in (_names(bundle), note) if part)


def _names(bundle: Bundle) -> str:
    if bundle[0].giver.role == "input":
        return ""  # its box says it
    names = list(dict.fromkeys(flow.tensor for flow in bundle))
    whole = ", ".join(names)
    return whole if len(whole) <= MOST_LABEL else f"{shortened(names[0], MOST_LABEL - 5)}, +{len(names) - 1}"


def _told_of(bundle: Bundle, specs: Mapping[str, TensorSpec], notes: LineNotes) -> str:
    """Each tensor with its type, and who takes it."""
    tensors = dict.fromkeys(f"{flow.edge}: {specs[flow.edge]}" for flow in bundle)
    takers = dict.fromkeys(
        f"→ {flow.taker.name}" + (" (looked at)" if flow.aside else _as(flow)) + (note and f": {note}")
        for flow in bundle
        for note in (_note(flow, notes),)
    )
    return "\n".join([*tensors, *takers])


def _note(flow: Flow, notes: LineNotes) -> str:
    return "" if flow.aside else notes.get((flow.giver, flow.taker), "")


def _as(flow: Flow) -> str:
    return "" if flow.taken_as in (flow.tensor, flow.taker.name) else f" as {flow.taken_as}"


def _subtitle(plan: Plan) -> str:
    parts = [f"placement {plan.placement}"]
    for word, count in (("node", len(plan.graph.nodes)), ("worker", len(plan.workers))):
        parts.append(f"{count} {word}{'' if count == 1 else 's'}")
    return " · ".join([*parts, *later_shortly(plan.graph)])


def _told(plan: Plan) -> str:
    """The picture in words, for those who cannot see it."""
    graph = plan.graph
    homes = {node: worker.name for worker in plan.workers for node in worker.nodes}
    told = [f"Takes {', '.join(f'{name}: {spec}' for name, spec in graph.inputs.items())}."]
    for node in graph.nodes:
        takes = f"{node.name}: {node.kind}, in worker {homes[node.name]}, takes {', '.join(node.edges)}"
        told.append("; ".join((takes, *rules_of(node))) + ".")
    told.append(f"Gives {', '.join(f'{name} from {edge}' for name, edge in graph.outputs.items())}.")
    return " ".join([*told, *(f"{line}." for line in later_of(graph))])


def _legend(workers: Sequence[Worker], *, top: float, right: float) -> tuple[Key, ...]:
    """Rows of workers, as many to a row as fit; none for a single worker."""
    keys: list[Key] = []
    x, y = MARGIN, top
    for index, worker in enumerate(workers if len(workers) > 1 else ()):
        name = shortened(worker.name, MOST_LABEL)
        parts = [
            "gateway" if index == 0 and worker.name != "gateway" else "",
            f"{worker.replicas} replicas" if worker.replicas > 1 else "",
            worker.address or "",
        ]
        detail = shortened(" · ".join(part for part in parts if part), MOST_TITLE)
        begins = 14 + width_of(name, TEXT) + 6
        width = begins + width_of(detail, SMALL, mono=True) + 24
        if x > MARGIN and x + width - 24 > right:
            x, y = MARGIN, y + LEGEND_ROW
        place = Point(x, y)
        keys.append(
            Key(hue=index % HUES, worker=worker.name, name=name, detail=detail, detail_left=begins, place=place)
        )
        x += width
    return tuple(keys)
