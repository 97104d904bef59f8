"""What stands on a box of the picture, and how large that makes it. Places are relative to its upper left corner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.topology.graph import GraphNode, LayerSettings
from mesh.topology.placement import Worker
from mesh.topology.render.measure import shortened, width_of
from mesh.topology.render.rules import rules_of

__all__ = [
    "NAME",
    "PADDING",
    "PILL",
    "SMALL",
    "STADIUM",
    "TEXT",
    "TEXT_LEFT",
    "TILE",
    "Face",
    "Pill",
    "end_face",
    "node_face",
]

NAME, TEXT, SMALL = 14.0, 12.0, 11.0
"""Font sizes."""
PADDING = 12.0
TILE = 28.0
"""Side of the square with the sign of the kind."""
TEXT_LEFT = PADDING + TILE + 10.0
LINE = 18.0
"""From one line of text to the next."""
PILL = 18.0
"""Height of a pill."""
ROW_WIDTH = 230.0
"""Pills that would pass it begin a new row."""
STADIUM = 46.0
"""Height of an input or output of the graph."""
MOST_NAME, MOST_TEXT = 32, 40
"""Characters that are shown; the whole text is in the tooltip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pill:
    """A word or two in the lower rows of a node: who runs it, or a layer."""

    text: str
    told: str
    """The tooltip."""
    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """The face of a node, or of an input or output of the graph."""

    title: str
    subtitle: str
    told: str
    """The tooltip: everything, at full length."""
    width: float
    height: float
    kind: str = ""
    """Of a node."""
    note: str = ""
    worker: Pill | None = None
    rules: tuple[Pill, ...] = ()
    """Which rows it runs on, and what it waits for."""
    layers: tuple[Pill, ...] = ()


def end_face(name: str, type_: str, told: str) -> Face:
    """The face of an input or output of the graph."""
    title, subtitle = shortened(name, MOST_NAME), shortened(type_, MOST_TEXT)
    width = max(width_of(title, NAME, bold=True), width_of(subtitle, SMALL, mono=True)) + 30.0
    return Face(title=title, subtitle=subtitle, told=told, width=float(round(width)), height=STADIUM)


def node_face(node: GraphNode, worker: Worker | None, note: str) -> Face:
    """The face of a node.

    Args:
        node: Whose face.
        worker: Who runs it; None where that goes without saying.
        note: A line of text below its class; may be empty.
    """
    title = shortened(node.name, MOST_NAME)
    subtitle = shortened(f"{node.kind} · {node.uses.partition(':')[2]}", MOST_TEXT)
    note = shortened(note, MOST_TEXT)
    texts = max(width_of(title, NAME, bold=True), width_of(subtitle, TEXT), width_of(note, TEXT))
    rules = rules_of(node)
    words = [(shortened(layer.name, MOST_NAME), _settings(layer)) for layer in node.layers]
    told = [node.name, f"{node.kind} {node.uses}", *rules, *(f"{name}: {settings}" for name, settings in words), note]
    words[:0] = [(shortened(rule, MOST_TEXT), rule) for rule in rules]
    if worker:
        words.insert(0, (_worker_text(worker), f"worker {worker.name}"))
    head = PADDING + TILE + (LINE if note else 0.0)
    pills = list(_rows(words, top=head + 10.0))
    rest = pills[1:] if worker else pills
    bottom = max((pill.y + PILL for pill in pills), default=head)
    return Face(
        title=title,
        subtitle=subtitle,
        told="\n".join(line for line in told if line),
        width=float(round(max(TEXT_LEFT + texts, *(pill.x + pill.width for pill in pills), 0.0) + PADDING)),
        height=bottom + PADDING,
        kind=node.kind,
        note=note,
        worker=pills[0] if worker else None,
        rules=tuple(rest[: len(rules)]),
        layers=tuple(rest[len(rules) :]),
    )


def _worker_text(worker: Worker) -> str:
    name = shortened(worker.name, MOST_NAME)
    return f"{name} \N{MULTIPLICATION SIGN}{worker.replicas}" if worker.replicas > 1 else name


def _settings(layer: LayerSettings) -> str:
    return ", ".join(f"{name} {value}" for name, value in layer.settings.items())


def _rows(words: Iterable[tuple[str, str]], *, top: float) -> Iterable[Pill]:
    x, y = PADDING, top
    for text, told in words:
        width = float(round(width_of(text, SMALL) + 16))
        if x > PADDING and x + width > PADDING + ROW_WIDTH:
            x, y = PADDING, y + PILL + 5
        yield Pill(text=text, told=told, x=x, y=y, width=width)
        x += width + 5
