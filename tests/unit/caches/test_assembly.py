"""Rows that were kept and rows that were computed make the answer that the node would have given."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mesh.caches import encode_rows, fits, put_together, read_rows
from mesh.tensors import Array, Tensors
from tests.unit.caches.given import answers

KEYS = [bytes([number]) * 16 for number in range(8)]


def rows_of(answer: Tensors, rows: list[int]) -> Tensors:
    """What the node would answer to these rows alone."""
    if answer.sources is None:
        return Tensors({name: array[rows] for name, array in answer.items()})
    places = [place for row in rows for place in np.flatnonzero(answer.sources == row).tolist()]
    sources: Array = np.array([rows.index(answer.sources[place]) for place in places], dtype=np.int64)
    return Tensors({name: array[places] for name, array in answer.items()}, sources=sources)


@given(st.data())
def test_any_split_into_kept_and_computed_rows_gives_the_whole_answer(data: st.DataObject) -> None:
    asked = data.draw(st.integers(1, 6))
    answer = data.draw(answers(asked))
    there = data.draw(st.lists(st.booleans(), min_size=asked, max_size=asked))
    values = [value if found else None for value, found in zip(encode_rows(KEYS[:asked], answer), there, strict=True)]
    hits = read_rows(KEYS[:asked], values)
    missing = [row for row in range(asked) if row not in hits.rows]
    parts: list[tuple[list[int], Tensors]] = [(missing, rows_of(answer, missing))] if missing else []
    if hits.tensors is not None:
        parts.append((hits.rows, hits.tensors))
    whole = put_together(parts, asked)
    assert whole == answer
    assert whole is not None
    assert not any(array.flags.writeable for array in whole.values())


def test_rows_of_other_shapes_are_not_put_together() -> None:
    one, two = Tensors({"x": np.zeros((1, 3))}), Tensors({"x": np.zeros((1, 2))})
    assert put_together([([0], one), ([1], two)], 2) is None
    assert fits(one, Tensors({"x": np.ones((5, 3))}))
    assert not fits(one, Tensors({"y": np.ones((1, 3))}))
    assert not fits(one, Tensors({"x": np.ones((1, 3), np.float32)}))
    assert not fits(one, Tensors(one, sources=[0]))
