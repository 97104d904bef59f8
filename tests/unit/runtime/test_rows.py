from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.runtime.rows import Rows, intersection, positions
from mesh.tensors import Array

masks = st.lists(st.booleans(), min_size=6, max_size=6)
counts = st.lists(st.integers(0, 3), min_size=6, max_size=6)


def numbered(rows: Rows) -> list[int]:
    return rows.numbers.tolist()


def where(inner: Rows, outer: Rows) -> list[int]:
    found = positions(inner, outer)
    return list(range(outer.count)) if found is None else found.tolist()


def mask(of: list[bool], count: int) -> Array:
    return np.resize(np.array(of, np.bool_), count)


@given(masks, masks)
@settings(max_examples=200)
def test_rows_are_the_sets_of_their_numbers(one: list[bool], other: list[bool]) -> None:
    every = Rows(6)
    first, second = every.where(np.array(one)), every.where(np.array(other))
    both = intersection(first, second)
    expected = [row for row in range(6) if one[row] and other[row]]
    assert numbered(both) == numbered(intersection(second, first)) == expected
    assert both.count == len(expected)
    for outer in (first, second, every):
        assert [numbered(outer)[place] for place in where(both, outer)] == expected


@given(masks, counts, masks, counts)
@settings(max_examples=200)
def test_expanded_rows_know_where_they_came_from(
    one: list[bool], made: list[int], other: list[bool], again: list[int]
) -> None:
    outer = Rows(6).where(np.array(one))
    inner = outer.expanded(np.repeat(np.arange(outer.count), made[: outer.count]))
    thinned = inner.where(mask(other, inner.count))
    deeper = thinned.expanded(np.repeat(np.arange(thinned.count), np.resize(again, thinned.count)))
    for rows, over in ((inner, outer), (thinned, outer), (deeper, thinned), (deeper, inner)):
        origins = rows.origins(over).tolist()
        assert [numbered(over)[place] for place in origins] == rows.levels[-2].tolist()
        assert origins == sorted(origins)
    assert numbered(inner) == list(range(inner.count))
    requested = numbered(outer)
    assert set(deeper.levels[0].tolist()) <= set(requested)


def test_all_rows_that_hold_are_the_same_rows() -> None:
    every = Rows(3)
    assert every.where(np.ones(3, np.bool_)) is every
    assert positions(every, every) is None
    assert numbered(Rows(0).where(np.zeros(0, np.bool_))) == []
