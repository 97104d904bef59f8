"""What became of the rows beside one that failed: made, cut, put together from pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, RequestError, Unavailable
from mesh.partial import Partial, failed_after, rows_failed, take_partial
from mesh.tensors import Tensors

ASKED = Context(request_id="r", partial=True)


def numbers(*given: int) -> Tensors:
    return Tensors({"x": np.array(given, np.int64)})


def test_the_error_is_that_of_the_first_row_that_failed_and_says_so() -> None:
    error = rows_failed({3: Unavailable("gone"), 1: InvalidInput("bad", tensor="x")}, [0, 2], numbers(0, 2), ASKED)
    assert error == InvalidInput("bad", tensor="x", row=1)
    error.locate(node="n", request_id="r")
    partial = take_partial(error)
    assert partial is not None
    assert (list(partial.rows), partial.answer) == ([0, 2], numbers(0, 2))
    assert partial.errors == {
        1: InvalidInput("bad", tensor="x", node="n", row=1, request_id="r"),
        3: Unavailable("gone", node="n", row=3, request_id="r"),
    }
    assert take_partial(error) is None, "it is beside the error no longer"


def test_nothing_is_beside_the_error_where_nobody_has_a_use_for_it() -> None:
    assert take_partial(rows_failed({0: InvalidInput("bad")}, [1], numbers(1), Context())) is None
    assert failed_after(InvalidInput("bad", row=0), 2, [numbers(0, 1)], Context()).partial is None


@pytest.mark.parametrize(
    ("rows", "answer", "failed"),
    [
        ([1, 0], numbers(1, 0), 2),
        ([0, 0], numbers(0, 0), 2),
        ([-1], numbers(1), 2),
        ([0, 1], numbers(0, 1), 1),
        ([0], numbers(0), -1),
        ([0, 1], numbers(0), 2),
        ([0], numbers(0, 1), 2),
        ([0], Tensors({"x": np.zeros(2)}, sources=[0, 1]), 2),
    ],
)
def test_rows_that_make_no_sense_are_the_nodes_failure(rows: Sequence[int], answer: Tensors, failed: int) -> None:
    with pytest.raises(NodeFailed, match="in part"):
        Partial(rows, answer, {failed: InvalidInput("bad")})


def test_rows_beyond_the_request_are_seen() -> None:
    partial = Partial([0], numbers(0), {3: InvalidInput("bad")})
    assert partial.within(4)
    assert not partial.within(3)


def test_rows_that_made_several_keep_them_when_they_are_cut_apart() -> None:
    answer = Tensors({"x": np.array([10, 11, 30])}, sources=[0, 0, 2])
    partial = Partial([0, 2, 3], answer, {1: InvalidInput("bad")})
    part = partial.part(1, 4)
    assert list(part.rows) == [1, 2]
    assert part.answer == Tensors({"x": np.array([30])}, sources=[1])
    assert part.errors == {0: InvalidInput("bad", row=0)}


# By row: answered, failed, left alone.
FATES = st.lists(st.sampled_from("afl"), min_size=1, max_size=12)


def partial_of(fates: Sequence[str], first: int = 0) -> Partial:
    rows = [row for row, fate in enumerate(fates) if fate == "a"]
    errors: dict[int, RequestError] = {
        row: InvalidInput(str(first + row), row=row) for row, fate in enumerate(fates) if fate == "f"
    }
    return Partial(rows, numbers(*(first + row for row in rows)), errors)


@given(FATES, st.data())
def test_parts_are_what_their_rows_would_have_become_alone(fates: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(fates)), max_size=4)) | {0, len(fates)})
    whole = partial_of(fates)
    for start, stop in pairwise(cuts):
        part, alone = whole.part(start, stop), partial_of(fates[start:stop], start)
        assert (list(part.rows), part.answer, part.errors) == (list(alone.rows), alone.answer, alone.errors)


@given(st.lists(st.integers(1, 3), max_size=3), FATES)
def test_pieces_before_one_that_failed_are_answered_rows_of_the_whole(sizes: list[int], fates: list[str]) -> None:
    fates[0] = "f"
    start = sum(sizes)
    ends = np.cumsum(sizes).tolist()
    before = [numbers(*range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    piece = partial_of(fates, start)
    error = rows_failed(piece.errors, piece.rows, piece.answer, ASKED)
    made = failed_after(error, start, before, ASKED)
    assert made == InvalidInput(str(start), row=start)
    whole, wanted = take_partial(made), partial_of(["a"] * start + fates)
    assert whole is not None
    assert (list(whole.rows), whole.answer, whole.errors) == (list(wanted.rows), wanted.answer, wanted.errors)


def test_pieces_that_do_not_fit_together_leave_but_the_error() -> None:
    wide = Tensors({"x": np.zeros((1, 2), np.int64)})
    made = failed_after(InvalidInput("bad", row=0), 2, [numbers(0), wide], ASKED)
    assert (made, made.partial) == (InvalidInput("bad", row=2), None)
