"""How far down each vertex stands: the second half of the layout.

Boxes and long wires that go on in a line form a thread, whose members all have their middles at one level, so that it
is drawn straight. Levels are found by turns: threads move to where their wires pull them, and are parted where they
would overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from mesh.topology.render.columns import PATIENCE, Columns, Segment

__all__ = ["Levels", "levels_of"]

BETWEEN_BOXES = 24.0
"""Least distance between two boxes of a column."""
BESIDE_WIRE = 16.0
"""Least distance of a wire that passes a column from a box or another wire."""
BETWEEN_LEAVING = 22.0
"""Distance between wires that leave one box: a line of text stands between them."""
BETWEEN_ENTERING = 14.0
"""Distance between arrow heads at one box."""
BESIDE_PORT = 14.0
"""Least distance of a wire's end from the corner of a box."""
NEARLY_LEVEL = 12.0
"""Steps smaller than this are made level."""
LEVELLINGS = 2
"""How often small steps are looked for."""
PULLS = 60
"""Passes in which each thread moves to where its wires pull it."""
STRAIGHTENINGS = 40
"""Passes in which threads are drawn straight and columns parted in turn."""
BOX_PULL, WIRE_PULL = 4.0, 1.0
"""How much a box, and a long wire, pull what they are joined with."""


def levels_of(columns: Columns, heights: list[float]) -> Levels:
    """Find the level of each vertex.

    Args:
        columns: Where each vertex stands in its column.
        heights: By vertex, the least it takes; 0 for waypoints.
    """
    levels = Levels(columns, heights, columns.places, [0.0] * len(heights))
    levels.tie_neighbours()
    levels.settle()
    for _ in range(LEVELLINGS):
        levels.tie_nearly_level()
        levels.settle()
    return levels


@dataclass(slots=True)
class Levels:
    """Levels, on the way from 0 to where they are good; the highest may be anywhere."""

    columns: Columns
    heights: list[float]
    """By vertex; a box grows where many wires meet."""
    places: list[int]
    middle: list[float]
    """By vertex, how far down its middle is."""
    onward: dict[int, Segment] = field(default_factory=dict[int, Segment])
    """By vertex, the segment along which its thread goes on."""
    inward: dict[int, Segment] = field(default_factory=dict[int, Segment])
    """By vertex, the segment along which its thread comes."""
    thread_of: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    leaves: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])
    """(vertex, strand) -> how far below the vertex's middle the wire leaves it."""
    enters: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])

    def top(self, vertex: int) -> float:
        """How far down its upper edge is."""
        return self.middle[vertex] - self.heights[vertex] / 2

    def bottom(self, vertex: int) -> float:
        """How far down its lower edge is."""
        return self.middle[vertex] + self.heights[vertex] / 2

    def tie_neighbours(self) -> None:
        """Tie what should stand in one line: those that are each other's middle neighbour."""
        columns = self.columns
        for column in columns.order:
            found: list[Segment] = []
            for vertex in column:
                onward = self._central(columns.after[vertex], onward=True)
                if onward is not None and self._central(columns.before[onward.taker], onward=False) is onward:
                    found.append(onward)
            # Long wires first: a bend in them is seen most.
            found.sort(key=lambda segment: segment.giver < columns.real or segment.taker < columns.real)
            self._tie(column, [*found, *(segment for vertex in column for segment in self._leading_away(vertex))])

    def tie_nearly_level(self) -> None:
        """Tie what came out almost in one line: a small step looks like a mistake."""

        def step(segment: Segment) -> float:
            leaves = self.middle[segment.giver] + self.leaves[segment.giver, segment.strand]
            return abs(self.middle[segment.taker] + self.enters[segment.taker, segment.strand] - leaves)

        for column in self.columns.order:
            segments = sorted((segment for vertex in column for segment in self.columns.after[vertex]), key=step)
            self._tie(column, [segment for segment in segments if step(segment) < NEARLY_LEVEL])

    def _tie(self, column: list[int], wanted: list[Segment]) -> None:
        """Join the threads at both ends of each segment, unless one goes on elsewhere or crosses another."""
        places = self.places
        tied = [self.onward[vertex] for vertex in column if vertex in self.onward]
        for segment in wanted:
            if segment.giver in self.onward or segment.taker in self.inward:
                continue
            if all(
                (places[segment.giver] < places[other.giver]) == (places[segment.taker] < places[other.taker])
                for other in tied
            ):
                tied.append(segment)
                self.onward[segment.giver] = self.inward[segment.taker] = segment

    def _central(self, segments: list[Segment], *, onward: bool) -> Segment | None:
        """The middle one of the segments on one side of a vertex; of those that lead to boxes, if any do."""

        def end(segment: Segment) -> int:
            return segment.taker if onward else segment.giver

        if onward and segments and segments[0].giver >= self.columns.real:
            along = [segment for segment in segments if segment.taker >= self.columns.real]
        else:
            along = [segment for segment in segments if end(segment) < self.columns.real]
        found = sorted(along or segments, key=lambda segment: self.places[end(segment)])
        return found[len(found) // 2] if len(found) % 2 else None

    def _leading_away(self, vertex: int) -> list[Segment]:
        """The segment with which a wire begins that passes the next column and gives nothing to it, if there is one."""
        after = self.columns.after[vertex]
        shared = [segment.strand for segment in after]
        alone = [
            segment for segment in after if segment.taker >= self.columns.real and shared.count(segment.strand) == 1
        ]
        return alone if len(alone) == 1 and vertex < self.columns.real else []

    def _set_ports(self) -> None:
        """Spread the wires of each box over its sides, in the order of where they lead to and come from."""
        columns, places = self.columns, self.places
        self.leaves = {(segment.giver, segment.strand): 0.0 for segment in columns.segments}
        self.enters = {(segment.taker, segment.strand): 0.0 for segment in columns.segments}
        for vertex in range(columns.real):
            ends: dict[int, list[int]] = {}
            for segment in columns.after[vertex]:
                ends.setdefault(segment.strand, []).append(places[segment.taker])
            means = {strand: sum(found) / len(found) for strand, found in ends.items()}
            leaving = sorted(means, key=means.__getitem__)
            self._spread(vertex, leaving, self.onward.get(vertex), self.leaves, BETWEEN_LEAVING)
        for vertex in range(columns.real):
            coming = sorted(
                columns.before[vertex],
                key=lambda segment: (places[segment.giver], self.leaves[segment.giver, segment.strand]),
            )
            strands = [segment.strand for segment in coming]
            self._spread(vertex, strands, self.inward.get(vertex), self.enters, BETWEEN_ENTERING)

    def _spread(
        self,
        vertex: int,
        strands: list[int],
        tied: Segment | None,
        ports: dict[tuple[int, int], float],
        distance: float,
    ) -> None:
        """Place ports on one side; the one that the thread goes through is in the middle. The box grows as needed."""
        centre = (len(strands) - 1) / 2 if tied is None else strands.index(tied.strand)
        for index, strand in enumerate(strands):
            ports[vertex, strand] = (index - centre) * distance
        reach = max(centre, len(strands) - 1 - centre) * distance
        self.heights[vertex] = max(self.heights[vertex], 2 * (reach + BESIDE_PORT))

    def settle(self) -> None:
        """Find the middle of each vertex: near what it is joined with, apart from its neighbours, threads straight."""
        self._set_ports()
        threads = self._threads()
        patience = 2 + PATIENCE // len(self.middle)
        for _ in range(min(PULLS, patience)):
            for thread in threads:
                self._set(thread, (self._level(thread) + self._pull(thread)) / 2)
            self._part()
        for _ in range(min(STRAIGHTENINGS, patience)):
            for thread in threads:
                self._set(thread, self._level(thread))
            self._part()
        for thread in threads:
            self._set(thread, float(round(self._level(thread))))
        self._push_down(threads)

    def _push_down(self, threads: list[list[int]]) -> None:
        """Move threads down by the few pixels in which parting and straightening still disagreed."""
        # Threads do not cross, so none is above itself, and a pass each is enough.
        for _ in threads:
            moved = False
            for upper, lower in (pair for column in self.columns.order for pair in pairwise(column)):
                least = self.middle[upper] + self._distance(upper, lower)
                if self.middle[lower] < least:
                    self._set(self.thread_of[lower], least)
                    moved = True
            if not moved:
                return

    def _threads(self) -> list[list[int]]:
        threads: list[list[int]] = []
        for vertex in (vertex for column in self.columns.order for vertex in column if vertex not in self.inward):
            thread = [vertex]
            while segment := self.onward.get(thread[-1]):
                thread.append(segment.taker)
            threads.append(thread)
            self.thread_of.update(dict.fromkeys(thread, thread))
        return threads

    def _level(self, thread: list[int]) -> float:
        return sum(self.middle[vertex] for vertex in thread) / len(thread)

    def _set(self, thread: list[int], level: float) -> None:
        for vertex in thread:
            self.middle[vertex] = level

    def _pull(self, thread: list[int]) -> float:
        """Where a thread would stand if it only minded what it is joined with. Boxes pull more than passing wires."""
        total = weights = 0.0
        for vertex in thread:
            for segment in (*self.columns.before[vertex], *self.columns.after[vertex]):
                leaves = self.leaves[segment.giver, segment.strand]
                enters = self.enters[segment.taker, segment.strand]
                other, shift = segment.taker, enters - leaves
                if segment.taker == vertex:
                    other, shift = segment.giver, leaves - enters
                if self.thread_of[other] is not thread:
                    weight = BOX_PULL if max(vertex, other) < self.columns.real else WIRE_PULL
                    total += weight * (self.middle[other] + shift)
                    weights += weight
        return total / weights if weights else self._level(thread)

    def _part(self) -> None:
        """Move the vertices of each column apart where they overlap, as little as can be."""
        for column in self.columns.order:
            # Less its least distance from the first, none may be higher than the one above: those that are, meet.
            distances = [0.0]
            for upper, lower in pairwise(column):
                distances.append(distances[-1] + self._distance(upper, lower))
            runs: list[tuple[float, int]] = []
            for vertex, distance in zip(column, distances, strict=True):
                total, count = self.middle[vertex] - distance, 1
                while runs and runs[-1][0] / runs[-1][1] >= total / count:
                    total, count = total + runs[-1][0], count + runs[-1][1]
                    runs.pop()
                runs.append((total, count))
            levels = [total / count for total, count in runs for _ in range(count)]
            for vertex, distance, level in zip(column, distances, levels, strict=True):
                self.middle[vertex] = level + distance

    def _distance(self, upper: int, lower: int) -> float:
        real = self.columns.real
        gap = BETWEEN_BOXES if upper < real and lower < real else BESIDE_WIRE
        return (self.heights[upper] + self.heights[lower]) / 2 + gap
