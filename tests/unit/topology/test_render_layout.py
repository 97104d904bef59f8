"""The layout, on bare numbers: what may not overlap, what has to be level, what has to be straight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.topology.render.columns import Columns, Strand, columns_of
from mesh.topology.render.layout import Box, Curve, Layout, Point, Wire, arrange

SIZE = (120.0, 56.0)
LABEL = 50.0
LABEL_HEIGHT = 16.0


def lay_out(count: int, strands: Sequence[Strand], *, last: Sequence[int] = ()) -> Layout:
    return arrange([SIZE] * count, strands, [LABEL] * len(strands), last=last, origin=Point(0, 0))


def overlap(one: Box, two: Box) -> bool:
    return one.x < two.right and two.x < one.right and one.y < two.bottom and two.y < one.bottom


def touches(curve: Curve, box: Box) -> bool:
    """Whether a curve may touch a box: it stays within the heights of its ends."""
    low, high = sorted((curve.start.y, curve.end.y))
    return curve.start.x < box.right and box.x < curve.end.x and low < box.bottom and box.y < high


def label_of(wire: Wire) -> Box:
    return Box(wire.trunk.start.x, wire.trunk.start.y - LABEL_HEIGHT, LABEL, LABEL_HEIGHT)


def crossings(columns: Columns) -> int:
    """Counted the slow way."""
    places = columns.places
    depth = {vertex: number for number, column in enumerate(columns.order) for vertex in column}
    return sum(
        (places[one.giver] - places[two.giver]) * (places[one.taker] - places[two.taker]) < 0
        for one, two in combinations(columns.segments, 2)
        if depth[one.giver] == depth[two.giver]
    )


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[Strand], list[int]]:
    """Up to 30 vertices of many sizes, each fed by up to four of those before it, on up to two strands a giver."""
    count = draw(st.integers(1, 30))
    takers: dict[tuple[int, int], list[int]] = {}
    for taker in range(1, count):
        for giver in draw(st.sets(st.integers(0, taker - 1), max_size=4)):
            takers.setdefault((giver, draw(st.integers(0, 1))), []).append(taker)
    sides = st.tuples(st.integers(40, 300).map(float), st.integers(20, 120).map(float))
    sizes = draw(st.lists(sides, min_size=count, max_size=count))
    strands = [Strand(giver, tuple(found)) for (giver, _), found in takers.items()]
    givers = {strand.giver for strand in strands}
    return sizes, strands, [vertex for vertex in range(count) if vertex not in givers and draw(st.booleans())]


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_nothing_touches_what_it_is_no_part_of(
    graph: tuple[list[tuple[float, float]], list[Strand], list[int]],
) -> None:
    sizes, strands, last = graph
    layout = arrange(sizes, strands, [LABEL] * len(strands), last=last, origin=Point(7, 11))
    assert not any(overlap(one, two) for one, two in combinations(layout.boxes, 2))
    labels = [label_of(wire) for wire in layout.wires]
    assert not any(overlap(one, two) for one, two in combinations(labels, 2))
    assert not any(overlap(label, box) for label in labels for box in layout.boxes)
    for wire, label in zip(layout.wires, labels, strict=True):
        assert not any(touches(curve, box) for curve in wire.curves for box in layout.boxes)
        assert not any(touches(curve, label) for other in layout.wires for curve in other.curves if other is not wire)


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_wires_lead_from_giver_to_takers_and_boxes_hold_what_they_have_to(
    graph: tuple[list[tuple[float, float]], list[Strand], list[int]],
) -> None:
    sizes, strands, last = graph
    layout = arrange(sizes, strands, [LABEL] * len(strands), last=last, origin=Point(7, 11))
    for (width, height), box in zip(sizes, layout.boxes, strict=True):
        assert box.width >= width
        assert box.height >= height
        assert 7 <= box.x <= box.right <= layout.right
        assert 11 <= box.y <= box.bottom <= layout.bottom
    for strand, wire in zip(strands, layout.wires, strict=True):
        giver = layout.boxes[strand.giver]
        assert wire.trunk.start.x == giver.right
        assert giver.y < wire.trunk.start.y < giver.bottom
        assert wire.trunk.end.x - wire.trunk.start.x >= LABEL
        begun = {wire.trunk.end}
        for curve in wire.curves:
            assert curve.start in begun
            begun.add(curve.end)
        for taker, head in zip(strand.takers, wire.heads, strict=True):
            assert head in begun
            assert head.x == layout.boxes[taker].x
            assert layout.boxes[taker].y < head.y < layout.boxes[taker].bottom


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_the_order_crosses_no_more_than_the_one_that_was_given(
    graph: tuple[list[tuple[float, float]], list[Strand], list[int]],
) -> None:
    sizes, strands, last = graph
    columns = columns_of(len(sizes), strands, last=last)
    as_given = Columns(
        [sorted(column) for column in columns.order], columns.real, columns.segments, before=columns.before
    )
    assert crossings(columns) <= crossings(as_given)
    assert [sorted(column) for column in columns.order] == as_given.order


def middles(layout: Layout, vertices: Iterable[int]) -> list[float]:
    return [layout.boxes[vertex].y + layout.boxes[vertex].height / 2 for vertex in vertices]


def test_a_chain_is_one_straight_line_from_left_to_right() -> None:
    layout = lay_out(5, [Strand(vertex, (vertex + 1,)) for vertex in range(4)])
    assert len(set(middles(layout, range(5)))) == 1
    assert all(one.right < two.x for one, two in pairwise(layout.boxes))
    assert all(curve.start.y == curve.end.y for wire in layout.wires for curve in wire.curves)


def test_the_branches_of_a_diamond_stand_evenly_around_its_ends() -> None:
    layout = lay_out(4, [Strand(0, (1, 2)), Strand(1, (3,)), Strand(2, (3,))])
    first, one, two, end = middles(layout, range(4))
    assert first == end
    assert abs(two + one - 2 * first) <= 1
    assert layout.boxes[1].x == layout.boxes[2].x


def test_ten_branches_stand_in_the_order_of_the_file_without_a_crossing() -> None:
    branches = range(1, 11)
    strands = [Strand(0, tuple(branches)), *(Strand(branch, (11,)) for branch in branches)]
    layout = lay_out(12, strands)
    assert middles(layout, branches) == sorted(middles(layout, branches))
    entering = [wire.heads[0].y for wire in layout.wires[1:]]
    assert entering == sorted(entering)
    assert len(set(entering)) == 10


def test_a_chain_stays_straight_when_its_first_output_is_needed_at_its_end() -> None:
    layout = lay_out(4, [Strand(0, (1, 3)), Strand(1, (2,)), Strand(2, (3,))])
    assert len(set(middles(layout, range(4)))) == 1
    long = [curve for curve in layout.wires[0].curves if curve.start.x == layout.boxes[2].x]
    assert [curve.start.y == curve.end.y for curve in long] == [True]


def test_wires_that_pass_on_either_side_of_a_chain_neither_cross_nor_bend_it() -> None:
    # 0 -> 2 -> 3 -> 4 -> 5, with 1 needed at 5 and what 3 gives needed past it, at 7.
    strands = [Strand(0, (2,)), Strand(1, (5,)), Strand(2, (3,)), Strand(3, (4, 7)), Strand(4, (5,)), Strand(5, (6,))]
    assert crossings(columns_of(8, strands, last=[6, 7])) == 0
    curves = [curve for wire in lay_out(8, strands, last=[6, 7]).wires for curve in wire.curves]
    # One bend where the first comes in, one where the second leaves: all else is level.
    assert sum(curve.start.y != curve.end.y for curve in curves) == 2


def test_no_wire_makes_a_small_step() -> None:
    # Three inputs, each prepared; the first two and the last two joined; those joins and the first joined again.
    pairs: list[tuple[int, tuple[int, ...]]] = [(0, (3,)), (1, (4,)), (2, (5,)), (3, (6, 8)), (4, (6, 7))]
    pairs += [(5, (7,)), (6, (8,)), (6, (10,)), (7, (8,)), (8, (9,))]
    layout = lay_out(11, [Strand(giver, takers) for giver, takers in pairs], last=[9, 10])
    steps = [abs(curve.end.y - curve.start.y) for wire in layout.wires for curve in wire.curves]
    assert all(step == 0 or step >= 12 for step in steps)


def test_vertices_named_last_share_the_last_column() -> None:
    layout = lay_out(5, [Strand(0, (1, 4)), Strand(1, (2,)), Strand(2, (3,))], last=[3, 4])
    assert layout.boxes[4].x == layout.boxes[3].x > layout.boxes[2].x


def test_takers_of_one_strand_share_its_line_and_other_strands_have_their_own() -> None:
    shared = lay_out(3, [Strand(0, (1, 2))])
    assert len({wire.trunk.start for wire in shared.wires}) == 1
    apart = lay_out(3, [Strand(0, (1,)), Strand(0, (2,))])
    by_taker = sorted(apart.wires, key=lambda wire: wire.heads[0].y)
    heights = [wire.trunk.start.y for wire in by_taker]
    assert heights[1] - heights[0] > LABEL_HEIGHT, "the upper wire leads to the upper taker"


def test_three_hundred_branches_are_laid_out_as_well() -> None:
    strands = [Strand(0, tuple(range(1, 300))), *(Strand(vertex, (300,)) for vertex in range(1, 300))]
    layout = lay_out(301, strands)
    column = sorted(layout.boxes[1:300], key=lambda box: box.y)
    assert all(upper.bottom <= lower.y for upper, lower in pairwise(column))
