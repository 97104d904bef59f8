"""A drawing as SVG: self-contained, without scripts, ids or links, so that a page can hold it, and hold two of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from string import Template

from mesh.topology.placement import Plan
from mesh.topology.render.drawing import TITLE, Card, Key, Line, draw
from mesh.topology.render.face import NAME, PADDING, PILL, SMALL, STADIUM, TEXT, TEXT_LEFT, TILE, Pill
from mesh.topology.render.flow import LineNotes, Vertex
from mesh.topology.render.layout import Curve, Point
from mesh.topology.render.measure import MONO, SANS

__all__ = ["svg"]

_SIGNS: Mapping[str, str] = {
    "preprocess": "M-8-7H8L2 .5V5L-2 8V.5Z",
    "predict": "M-5-5.5H5M-5 5.5H5M-5-5.5L5 5.5M-5 5.5L5-5.5"
    "M-9-5.5a2 2 0 1 0 4 0a2 2 0 1 0-4 0M-9 5.5a2 2 0 1 0 4 0a2 2 0 1 0-4 0"
    "M5-5.5a2 2 0 1 0 4 0a2 2 0 1 0-4 0M5 5.5a2 2 0 1 0 4 0a2 2 0 1 0-4 0",
    "cache": "M-7-5A7 2.5 0 1 0 7-5A7 2.5 0 1 0-7-5V5A7 2.5 0 0 0 7 5V-5M-7 0A7 2.5 0 0 0 7 0",
    "aggregate": "M-8-6H-6C-1-6-2 0 2 0H8M-8 6H-6C-1 6-2 0 2 0M4.5-3.5L8 0L4.5 3.5",
}
"""Kind -> a line drawing around (0, 0): a funnel, a small network, a cylinder, two lines that become one."""
_OTHER_SIGN = "M-6-6H6V6H-6Z"
_HEAD = 7.0
"""Length of an arrow head."""

_FORM = Template("""
.mesh-graph text { font-family: $sans; font-size: ${text}px }
.mesh-graph .title { font-size: ${title}px; font-weight: 600 }
.mesh-graph .name { font-size: ${name}px; font-weight: 600 }
.mesh-graph .type, .mesh-graph .label { font-family: $mono; font-size: ${small}px }
.mesh-graph .pill text { font-size: ${small}px }
.mesh-graph .middle { text-anchor: middle }
.mesh-graph .run { fill: none; stroke-width: 1.5 }
.mesh-graph .reach { fill: none; stroke: #000; stroke-opacity: 0; stroke-width: 12 }
.mesh-graph .sign { fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linejoin: round; stroke-linecap: round }
.mesh-graph .tile, .mesh-graph .worker rect { fill: currentColor; fill-opacity: .12 }
.mesh-graph .aside .run { stroke-dasharray: 4 4 }
.mesh-graph .dot { fill: currentColor }
""")
_THEME = Template("""
.mesh-graph .canvas { fill: $canvas }
.mesh-graph text { fill: $ink }
.mesh-graph .soft, .mesh-graph .type, .mesh-graph .label, .mesh-graph .layer text { fill: $soft }
.mesh-graph .card { fill: $card; stroke: $rim }
.mesh-graph .end { fill: $end; stroke: $rim }
.mesh-graph .layer rect { fill: none; stroke: $rim }
.mesh-graph .rule rect { fill: $end; stroke: $rim }
.mesh-graph .run { stroke: $wire }
.mesh-graph .head { fill: $wire }
.mesh-graph .worker text { fill: currentColor }
.mesh-graph .wire:hover .run { stroke: $ink }
.mesh-graph .wire:hover .head, .mesh-graph .wire:hover .label { fill: $ink }
""")
_COLOURS: Mapping[str, tuple[str, str]] = {
    "canvas": ("#ffffff", "#0d1117"),
    "card": ("#ffffff", "#151b23"),
    "end": ("#f6f8fa", "#212830"),
    "rim": ("#d0d7de", "#3d444d"),
    "wire": ("#8c959f", "#7d8590"),
    "soft": ("#59636e", "#9da7b1"),
    "ink": ("#1f2328", "#f0f6fc"),
}
"""Of each part, in light and in dark."""
_HUES = (
    ("#0860ca", "#4493f8"),
    ("#a34500", "#f0883e"),
    ("#176f2c", "#3fb950"),
    ("#7443c9", "#ab7df8"),
    ("#176b72", "#39c5cf"),
    ("#b02c7c", "#e275ad"),
    ("#7d4e00", "#d29922"),
    ("#be1f2a", "#fa6a63"),
)
"""Of workers, in light and in dark; each can be read on its own tint."""


def svg(plan: Plan, notes: Mapping[str, str] | None = None, line_notes: LineNotes | None = None) -> str:
    """A picture from left to right, in light or dark as the viewer prefers.

    Args:
        plan: What to draw.
        notes: By node, a line of text that is shown on it, such as what it is busy with.
        line_notes: What is shown on lines.
    """
    drawing = draw(plan, notes, line_notes)
    width, height = _number(drawing.width), _number(drawing.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mesh-graph" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="graphics-document" aria-roledescription="flow chart">',
        f"<title>{_escaped(f'{drawing.title}: {drawing.subtitle}')}</title>",
        f"<desc>{_escaped(drawing.told)}</desc>",
        f"<style>{_style()}</style>",
        f'<rect class="canvas" width="{width}" height="{height}" rx="12"/>',
        _words("title", drawing.left, 42, drawing.title),
        _words("soft", drawing.left, 62, drawing.subtitle),
        *(_line(line) for line in drawing.lines),
        *(_node(card) if card.vertex.role == "node" else _end(card) for card in drawing.cards),
        *(_key(key) for key in drawing.legend),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _style() -> str:
    sizes = {"text": TEXT, "title": TITLE, "name": NAME, "small": SMALL}
    form = _FORM.substitute({name: _number(size) for name, size in sizes.items()}, sans=SANS, mono=MONO)
    return f"{form}{_theme(0)}@media (prefers-color-scheme: dark) {{{_theme(1)}}}\n"


def _theme(mode: int) -> str:
    workers = "".join(f".mesh-graph .hue-{index} {{ color: {hue[mode]} }}\n" for index, hue in enumerate(_HUES))
    return _THEME.substitute({part: colours[mode] for part, colours in _COLOURS.items()}) + workers


def _line(line: Line) -> str:
    wire = line.wire
    ends = set(wire.heads)
    run = "".join(_run(curve, ends) for curve in (wire.trunk, *wire.curves))
    heads = "".join(
        f"M{_at(Point(head.x - _HEAD, head.y - 4))}L{_at(head)}L{_at(Point(head.x - _HEAD, head.y + 4))}Z"
        for head in wire.heads
    )
    trunk = wire.trunk
    label = _words("label", trunk.start.x + 7, trunk.start.y - 5, line.label) if line.label else ""
    takers = " ".join(map(_mark, line.takers))
    return (
        f'<g class="wire{" aside" if line.aside else ""}" data-from="{_mark(line.giver)}" data-to="{takers}">'
        f"<title>{_escaped(line.told)}</title>"
        f'<path class="reach" d="{run}"/><path class="run" d="{run}"/><path class="head" d="{heads}"/>{label}</g>'
    )


def _run(curve: Curve, ends: set[Point]) -> str:
    start, end = curve.start, curve.end
    if end in ends:
        end = Point(end.x - _HEAD + 1, end.y)
    if start.y == end.y:
        return f"M{_at(start)}H{_number(end.x)}"
    half = (end.x - start.x) / 2
    return f"M{_at(start)}C{_at(Point(start.x + half, start.y))} {_at(Point(end.x - half, end.y))} {_at(end)}"


def _node(card: Card) -> str:
    box, face = card.box, card.face
    top = box.y + (box.height - face.height) / 2
    sign = _SIGNS.get(face.kind, _OTHER_SIGN)
    left, middle = box.x + PADDING, top + PADDING + TILE / 2
    text = box.x + TEXT_LEFT
    parts = [
        f'<g class="node hue-{card.hue}" {_symbol(card)}',
        _rect("card", box.x, box.y, box.width, box.height, 10),
        _rect("tile", left, middle - TILE / 2, TILE, TILE, 8),
        f'<path class="sign" transform="translate({_at(Point(left + TILE / 2, middle))})" d="{sign}"/>',
        _words("name", text, middle - 3, face.title),
        _words("soft", text, middle + 13, face.subtitle),
        _words("soft note", text, middle + 30, face.note) if face.note else "",
        _pill(face.worker, box.x, top, "worker") if face.worker else "",
        *(_pill(pill, box.x, top, "rule") for pill in face.rules),
        *(_pill(pill, box.x, top, "layer") for pill in face.layers),
        "</g>",
    ]
    return "".join(parts)


def _pill(pill: Pill, left: float, top: float, role: str) -> str:
    x, y = left + pill.x, top + pill.y
    told = f"<title>{_escaped(pill.told)}</title>" if pill.told else ""
    text = _words("middle", x + pill.width / 2, y + PILL / 2 + 4, pill.text)
    return f'<g class="pill {role}">{told}{_rect("", x, y, pill.width, PILL, PILL / 2)}{text}</g>'


def _end(card: Card) -> str:
    box, face = card.box, card.face
    middle = box.x + box.width / 2
    top = box.y + (box.height - face.height) / 2
    return (
        f'<g class="{card.vertex.role}" {_symbol(card)}'
        + _rect("end", box.x, box.y, box.width, box.height, STADIUM / 2)
        + _words("name middle", middle, top + 20, face.title)
        + _words("type middle", middle, top + 35, face.subtitle)
        + "</g>"
    )


def _symbol(card: Card) -> str:
    return f'role="graphics-symbol" data-vertex="{_mark(card.vertex)}"><title>{_escaped(card.face.told)}</title>'


def _key(key: Key) -> str:
    x, y = key.place.x, key.place.y
    detail = _words("type", x + key.detail_left, y, key.detail) if key.detail else ""
    dot = f'<circle class="dot" cx="{_number(x + 5)}" cy="{_number(y - 4)}" r="5"/>'
    name = _words("", x + 16, y, key.name)
    return f'<g class="key hue-{key.hue}" data-worker="{_escaped(key.worker)}">{dot}{name}{detail}</g>'


def _mark(vertex: Vertex) -> str:
    """What scripts and style sheets of a page find a vertex by: `node:scale`."""
    return _escaped(f"{vertex.role}:{vertex.name}")


def _rect(role: str, x: float, y: float, width: float, height: float, radius: float) -> str:
    size = f'width="{_number(width)}" height="{_number(height)}"'
    named = f'class="{role}" ' if role else ""
    return f'<rect {named}x="{_number(x)}" y="{_number(y)}" {size} rx="{_number(radius)}"/>'


def _words(role: str, x: float, y: float, text: str) -> str:
    named = f'class="{role}" ' if role else ""
    return f'<text {named}x="{_number(x)}" y="{_number(y)}">{_escaped(text)}</text>'


def _at(point: Point) -> str:
    return f"{_number(point.x)},{_number(point.y)}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _escaped(text: str) -> str:
    """Text for a tag or an attribute; characters that XML cannot hold become the replacement character."""
    return escape(re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))
