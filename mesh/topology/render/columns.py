"""Which column each vertex stands in, and in what order: the first half of the layout.

Columns run from left to right, each vertex one past the last of those that feed it. A wire that is longer than one
column holds a place, a waypoint, in each column that it passes; then every segment leads from a column to the next.
A wire is a tree: takers further on share the waypoints of those that are nearer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["PATIENCE", "Columns", "Segment", "Strand", "columns_of"]

PATIENCE = 100_000
"""Most vertices looked at in passes of one sort: a graph of thousands is drawn with fewer passes, not for minutes."""
SWEEPS = 12
"""Passes over the columns, to and fro, that look for an order with fewer crossings."""
MOST_MOVED = 16
"""Long wires that are tried above and below everything, the longest first."""


@dataclass(frozen=True, slots=True)
class Strand:
    """What is to be joined: one giver and all that take from it. Vertices are numbers."""

    giver: int
    takers: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A piece of a wire between two neighbouring columns."""

    giver: int
    taker: int
    strand: int


@dataclass(slots=True)
class Columns:
    """Vertices from 0 are those that were given; the waypoints follow."""

    order: list[list[int]]
    """By column, from top to bottom."""
    real: int
    """How many vertices were given."""
    segments: list[Segment] = field(default_factory=list[Segment])
    waypoints: list[list[int]] = field(default_factory=list[list[int]])
    """By strand, from left to right."""
    before: list[list[Segment]] = field(default_factory=list[list[Segment]])
    """By vertex, the segments that come in."""
    after: list[list[Segment]] = field(default_factory=list[list[Segment]])
    """By vertex, the segments that go out."""

    @property
    def places(self) -> list[int]:
        """By vertex, its place in its column from the top."""
        places = [0] * len(self.before)
        for column in self.order:
            for place, vertex in enumerate(column):
                places[vertex] = place
        return places


def columns_of(count: int, strands: Sequence[Strand], *, last: Sequence[int]) -> Columns:
    """Columns of `count` vertices, at least one, each numbered after those that feed it.

    Vertices in `last` are put into the last column.
    """
    depth = [0] * count
    for strand in sorted(strands, key=lambda strand: strand.giver):
        for taker in strand.takers:
            depth[taker] = max(depth[taker], depth[strand.giver] + 1)
    end = max(depth, default=0)
    for vertex in last:
        depth[vertex] = end
    columns = Columns(order=[[] for _ in range(end + 1)], real=count)
    for vertex in range(count):
        columns.order[depth[vertex]].append(vertex)
    total = count
    for number, strand in enumerate(strands):
        columns.waypoints.append([])
        tip = strand.giver
        for column in range(depth[strand.giver] + 1, max(depth[taker] for taker in strand.takers) + 1):
            reached = [taker for taker in strand.takers if depth[taker] == column]
            columns.segments.extend(Segment(tip, taker, number) for taker in reached)
            if any(depth[taker] > column for taker in strand.takers):
                columns.segments.append(Segment(tip, total, number))
                columns.waypoints[-1].append(total)
                columns.order[column].append(total)
                tip = total
                total += 1
    columns.before = [[] for _ in range(total)]
    columns.after = [[] for _ in range(total)]
    for segment in columns.segments:
        columns.after[segment.giver].append(segment)
        columns.before[segment.taker].append(segment)
    _untangle(columns)
    return columns


def _untangle(columns: Columns) -> None:
    """Find an order with few crossings: sort by the mean place of the neighbours, to and fro, then move whole wires."""
    best = (_crossings(columns), _copied(columns.order))
    patience = PATIENCE // len(columns.before)
    for sweep in range(min(SWEEPS, 2 + patience)):
        forth = sweep % 2 == 0
        places = columns.places
        for column in columns.order if forth else reversed(columns.order):
            if forth:
                near = {vertex: [places[segment.giver] for segment in columns.before[vertex]] for vertex in column}
            else:
                near = {vertex: [places[segment.taker] for segment in columns.after[vertex]] for vertex in column}
            means = {vertex: sum(found) / len(found) if found else places[vertex] for vertex, found in near.items()}
            column.sort(key=means.__getitem__)
            for place, vertex in enumerate(column):
                places[vertex] = place
        best = _better(columns, best)
    # What no column finds by itself: that a long wire passes better on the other side of everything.
    long = sorted((wire for wire in columns.waypoints if wire), key=len, reverse=True)
    for wire in map(set, long[: min(MOST_MOVED, patience)]):
        for top in (True, False):
            columns.order = _copied(best[1])
            for column in columns.order:
                # False sorts before True, and what is equal stays in order.
                column.sort(key=lambda vertex: (vertex in wire) != top)
            best = _better(columns, best)
    columns.order = best[1]


def _copied(order: list[list[int]]) -> list[list[int]]:
    return [list(column) for column in order]


def _better(columns: Columns, best: tuple[int, list[list[int]]]) -> tuple[int, list[list[int]]]:
    """The present order, after a last touch, if it has fewer crossings than the best."""
    _swap(columns)
    crossings = _crossings(columns)
    return (crossings, _copied(columns.order)) if crossings < best[0] else best


def _swap(columns: Columns) -> None:
    """Exchange neighbours wherever that takes a crossing away."""
    places = columns.places
    for column in columns.order:
        for above in range(len(column) - 1):
            one, two = column[above], column[above + 1]
            kept = swapped = 0
            for sides in (columns.before, columns.after):
                ones = sorted(places[_other(segment, one)] for segment in sides[one])
                twos = sorted(places[_other(segment, two)] for segment in sides[two])
                kept += _inversions(ones, twos)
                swapped += _inversions(twos, ones)
            if swapped < kept:
                column[above], column[above + 1] = two, one
                places[one], places[two] = above + 1, above


def _other(segment: Segment, vertex: int) -> int:
    return segment.taker if segment.giver == vertex else segment.giver


def _inversions(upper: list[int], lower: list[int]) -> int:
    """Pairs that cross when those that lead to `upper` stand above those that lead to `lower`, both sorted."""
    return sum(len(upper) - bisect_right(upper, place) for place in lower)


def _crossings(columns: Columns) -> int:
    places = columns.places
    total = 0
    for column in columns.order:
        seen: list[int] = []
        for vertex in column:
            ends = sorted(places[segment.taker] for segment in columns.after[vertex])
            total += _inversions(seen, ends)
            seen = sorted([*seen, *ends])
    return total
