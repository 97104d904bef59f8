"""Rows that came of one row, put together again."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import Branches, InvalidInput, SetupError, Tensors, Unavailable
from nodes.aggregate import Gather, How
from tests.unit.nodes.joins import array_of, ask, check_alone, failure, run

LINES = Tensors(
    {
        "text": ["a dull", "film", "", "fine"],
        "box": np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.int32),
        "score": np.array([0.5, 1.5, np.nan, 4.0], np.float32),
        "small": np.array([100, 100, -100, 7], np.int8),
        "sure": [True, True, False, False],
    },
    sources=[0, 0, 2, 2],
)
PAGES = Branches({"lines": LINES}, 4)


async def test_lines_become_the_text_of_their_page_and_a_page_without_lines_is_empty() -> None:
    answer = await ask(Gather(how={"text": "concat"}, count="lines"), PAGES)
    assert answer == Tensors({"text": ["a dull\nfilm", "", "\nfine", ""], "lines": [2, 0, 2, 0]})
    answer = await ask(Gather(how={"text": "concat"}, separator=" · "), PAGES)
    assert answer["text"][0].decode() == "a dull · film"


async def test_a_list_holds_as_many_rows_as_count_says_and_then_blanks() -> None:
    answer = await ask(Gather(how={"box": "list", "text": "list"}, most=3), PAGES)
    assert answer["box"].tolist() == [
        [[1, 2], [3, 4], [0, 0]],
        [[0, 0], [0, 0], [0, 0]],
        [[5, 6], [7, 8], [0, 0]],
        [[0, 0], [0, 0], [0, 0]],
    ]
    assert answer["text"].tolist()[0] == [b"a dull", b"film", b""]
    ragged = [row[:count].tolist() for row, count in zip(answer["box"], answer["count"], strict=True)]
    offsets = [0, *accumulate(answer["count"].tolist())]
    flat = [box for row in ragged for box in row]
    assert [flat[start:stop] for start, stop in pairwise(offsets)] == ragged


async def test_more_rows_than_a_list_has_places_for_are_refused_by_row() -> None:
    node = Gather(how={"text": "list"}, most=1)
    error = failure(node, PAGES)
    assert error == InvalidInput("2 rows came of it, and a list of 'text' has places for 1", tensor="text", row=0)


async def test_numbers_have_a_sum_a_mean_and_extremes() -> None:
    expectations: list[tuple[How, float]] = [("mean", 1.0), ("sum", 2.0), ("max", 1.5), ("min", 0.5), ("first", 0.5)]
    for how, expected in expectations:
        answer = await ask(Gather(how={"score": how}), PAGES)
        assert answer["score"].tolist()[:2] == [expected, 0]
        assert np.isnan(answer["score"][2])
        assert answer["score"].dtype == np.float32


async def test_a_sum_of_integers_has_room_to_grow_and_short_floats_are_added_up_in_long_ones() -> None:
    answer = await ask(Gather(how={"small": "sum", "sure": "sum"}), PAGES)
    assert answer["small"].tolist() == [200, 0, -93, 0]
    assert answer["sure"].tolist() == [2, 0, 0, 0]
    for dtype in (np.float16, ml_dtypes.bfloat16):
        rows = Tensors({"x": np.full(4096, 1.5, dtype)}, sources=[0] * 4096)
        answer = run(Gather(how={"x": "sum"}), Branches({"a": rows}, 1))
        assert answer["x"].tolist() == [6144]
        assert answer["x"].dtype == dtype


async def test_a_default_stands_for_rows_that_nothing_came_of() -> None:
    node = Gather(how={"score": "first", "text": "concat", "box": "first"}, default={"score": -1, "box": [8, 9]})
    answer = await ask(node, PAGES)
    assert answer["score"].tolist()[1] == -1
    assert answer["box"].tolist()[3] == [8, 9]
    assert answer["text"].tolist()[1] == b""


async def test_without_sources_each_row_is_of_the_row_of_its_number() -> None:
    whole = Branches({"lines": Tensors({"text": ["a", "b"]})})
    assert await ask(Gather(how={"text": "concat"}), whole) == Tensors({"text": ["a", "b"], "count": [1, 1]})


async def test_nothing_at_all_is_gathered_to_blanks() -> None:
    nothing = Branches({"lines": LINES.take(1, 1)}, 2)
    answer = await ask(Gather(how={"text": "concat", "score": "max", "small": "sum", "box": "list"}, most=1), nothing)
    assert answer["text"].tolist() == [b"", b""]
    assert answer["small"].tolist() == answer["count"].tolist() == answer["score"].tolist() == [0, 0]
    assert answer["box"].tolist() == [[[0, 0]], [[0, 0]]]


def test_a_branch_that_failed_fails_the_gathering() -> None:
    gone = Unavailable("gone")
    assert failure(Gather(how={}), Branches({"lines": gone}, 2)) == gone
    two = Branches({"a": LINES, "b": LINES}, 4)
    assert failure(Gather(how={}), two) == InvalidInput("one branch is gathered, and not 2")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"how": {"x": "list"}}, "x is gathered in a list, so most has to say"),
        ({"how": {}, "most": 0}, "most is 0"),
        ({"how": {}, "most": 1 << 21}, "most is 2097152"),
        ({"how": {"count": "sum"}}, "tensor 'count' has the name that the count is given under"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(arguments: Any, text: str) -> None:
    with pytest.raises(SetupError, match=text):
        Gather(**arguments)


@settings(max_examples=100)
@given(st.data())
def test_gathering_is_what_it_is_for_one_row(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), max_size=5))
    total = sum(counts)
    words = data.draw(st.lists(st.sampled_from([b"", b"a", b"bc"]), min_size=2 * total, max_size=2 * total))
    numbers = data.draw(st.lists(st.integers(-4, 4), min_size=total, max_size=total))
    floats = data.draw(st.lists(st.floats(-9, 9, width=32), min_size=total, max_size=total))
    rows = Tensors(
        {
            "w": array_of(words, (total, 2), object),
            "n": np.array(numbers, np.int32),
            "f": np.array(floats, np.float64),
            "m": np.array(numbers, np.int32),
            "g": np.array(floats, np.float64),
        },
        sources=np.repeat(np.arange(len(counts)), counts),
    )
    node = Gather(how={"w": "concat", "n": "sum", "f": "mean", "m": "max", "g": "list"}, separator="|", most=3)
    branches = Branches({"only": rows}, len(counts))
    answer = run(node, branches)
    start = 0
    for row, count in enumerate(counts):
        own = range(start, start + count)
        start += count
        assert answer["count"][row] == count
        assert answer["w"][row].tolist() == [b"|".join(words[2 * place + column] for place in own) for column in (0, 1)]
        assert answer["n"][row] == sum(numbers[place] for place in own)
        assert answer["f"][row] == pytest.approx(sum(floats[place] for place in own) / max(count, 1), abs=1e-9)
        assert answer["m"][row] == max((numbers[place] for place in own), default=0)
        assert answer["g"][row].tolist() == [*(floats[place] for place in own), *[0.0] * (3 - count)]
    check_alone(node, branches, answer)
