"""Where everything stands: columns from left to right, wires that touch no box, names that touch no other name.

Every wire leaves its giver on a trunk, a level line as long as its label, which so stands beside its own box and can
meet no other; past the trunks of a column it bends, in a gap that holds nothing else; it passes further columns level,
at a place of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.topology.render.columns import Columns, Segment, Strand, columns_of
from mesh.topology.render.levels import Levels, levels_of

__all__ = ["Box", "Curve", "Layout", "Point", "Wire", "arrange"]

LEAST_TRUNK = 8.0
LEAST_GAP, MOST_GAP = 32.0, 140.0
"""Room for bends between columns; wires that climb far get more of it."""


@dataclass(frozen=True, slots=True)
class Box:
    """A place and a size; the place is the upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Point:
    """A place."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A line that begins and ends level; straight where both ends are of one height."""

    start: Point
    end: Point


@dataclass(frozen=True, slots=True)
class Wire:
    """How one strand runs."""

    trunk: Curve
    """Level, beside the giver's box; the label stands on it."""
    curves: tuple[Curve, ...]
    """All that follows, from left to right."""
    heads: tuple[Point, ...]
    """By taker, in the strand's order, the point at its box at which the wire ends."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes by vertex, wires by strand."""

    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    right: float
    bottom: float


def arrange(
    sizes: Sequence[tuple[float, float]],
    strands: Sequence[Strand],
    labels: Sequence[float],
    *,
    last: Sequence[int],
    origin: Point,
) -> Layout:
    """Lay a graph out.

    Args:
        sizes: By vertex its width and height, each vertex after those that feed it. Boxes grow: in height where many
            wires meet, in width to that of their column.
        strands: What is to be joined.
        labels: By strand, the room that its label takes, 0 for none.
        last: Vertices that stand in the last column.
        origin: The upper left corner of it all.
    """
    columns = columns_of(len(sizes), strands, last=last)
    waypoints = len(columns.before) - len(sizes)
    levels = levels_of(columns, [*(height for _, height in sizes), *[0.0] * waypoints])
    work = _Work(columns, levels, origin.y - min(map(levels.top, range(len(columns.before)))))
    work.set_columns([width for width, _ in sizes], labels, origin.x)
    boxes = tuple(map(work.box, range(columns.real)))
    return Layout(
        boxes=boxes,
        wires=tuple(work.wire(number, strand) for number, strand in enumerate(strands)),
        right=max(box.right for box in boxes),
        bottom=max(work.down + levels.bottom(vertex) for vertex in range(len(columns.before))),
    )


@dataclass(frozen=True, slots=True)
class _Column:
    """Where a column's boxes begin and end, and where its wires begin to bend."""

    left: float
    right: float
    bend: float


@dataclass(slots=True)
class _Work:
    """From levels to places."""

    columns: Columns
    levels: Levels
    down: float
    """From levels to heights of the picture."""
    column_of: dict[int, _Column] = field(default_factory=dict[int, _Column])

    def leaving(self, segment: Segment) -> float:
        return self.down + self.levels.middle[segment.giver] + self.levels.leaves[segment.giver, segment.strand]

    def entering(self, segment: Segment) -> float:
        return self.down + self.levels.middle[segment.taker] + self.levels.enters[segment.taker, segment.strand]

    def set_columns(self, widths: Sequence[float], labels: Sequence[float], x: float) -> None:
        """Columns are as wide as their widest box and label; gaps are wider where wires climb far."""
        for vertices in self.columns.order:
            right = x + max((widths[vertex] for vertex in vertices if vertex < self.columns.real), default=0.0)
            leaving = [segment for vertex in vertices for segment in self.columns.after[vertex]]
            room = max(
                (labels[segment.strand] for segment in leaving if segment.giver < self.columns.real), default=0.0
            )
            column = _Column(x, right, right + max(room, LEAST_TRUNK))
            self.column_of.update(dict.fromkeys(vertices, column))
            climb = max((abs(self.leaving(segment) - self.entering(segment)) for segment in leaving), default=0.0)
            x = column.bend + min(MOST_GAP, LEAST_GAP + climb / 4)

    def box(self, vertex: int) -> Box:
        column = self.column_of[vertex]
        top = self.down + self.levels.top(vertex)
        return Box(column.left, top, column.right - column.left, self.levels.heights[vertex])

    def wire(self, number: int, strand: Strand) -> Wire:
        columns = self.columns
        curves: list[Curve] = []
        heads: dict[int, Point] = {}
        for tip in (strand.giver, *columns.waypoints[number]):
            segments = [segment for segment in columns.after[tip] if segment.strand == number]
            column = self.column_of[tip]
            bend = Point(column.bend, self.leaving(segments[0]))
            curves.append(Curve(Point(column.right if tip == strand.giver else column.left, bend.y), bend))
            for segment in segments:
                end = Point(self.column_of[segment.taker].left, self.entering(segment))
                curves.append(Curve(bend, end))
                heads[segment.taker] = end
        return Wire(curves[0], tuple(curves[1:]), tuple(heads[taker] for taker in strand.takers))
