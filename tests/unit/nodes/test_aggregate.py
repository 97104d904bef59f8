"""Aggregates by example: what they give, and what they say where they cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mesh import (
    Aggregate,
    Array,
    Branches,
    Context,
    InvalidInput,
    NodeContractError,
    NodeFailed,
    RequestError,
    SetupError,
    Tensors,
    TensorSpec,
    Unavailable,
)
from nodes.aggregate import (
    BranchRows,
    Concat,
    FirstOf,
    Gather,
    MajorityVote,
    Max,
    Mean,
    RankFusion,
    RowAligned,
    Select,
    SoftVote,
    Stack,
    WeightedMean,
)
from tests.unit.nodes.joins import ask, failure, join, run

GONE = Unavailable("the worker is gone", node="large")


def x(*values: Any, dtype: Any = np.float32, sources: Any = None) -> Tensors:
    return Tensors({"x": np.array(values, dtype)}, sources=sources)


def two(one: Tensors, other: Tensors) -> Branches:
    return Branches({"one": one, "other": other})


async def test_a_cascade_ends_in_the_dear_answer_where_there_is_one() -> None:
    small = Tensors({"label": [3, 1, 4], "score": np.array([0.5, 0.9, 0.8], np.float32)})
    large = Tensors({"label": [7], "score": np.array([0.7], np.float32)}, sources=[0])
    answer = await ask(FirstOf(), Branches({"large": large, "small": small}))
    assert answer == Tensors({"label": [7, 1, 4], "score": np.array([0.7, 0.9, 0.8], np.float32)})


def test_the_first_branch_is_given_on_without_a_copy_where_it_has_every_row() -> None:
    first = x(1, 2)
    assert run(FirstOf(), two(first, x(3, 4)))["x"] is first["x"]


def test_a_branch_that_failed_is_as_one_that_ran_on_no_row() -> None:
    assert run(FirstOf(), Branches({"large": GONE, "small": x(1, 2)})) == x(1, 2)
    assert run(Mean(), Branches({"large": GONE, "small": x(1, 2), "third": x(3, 6)})) == x(2, 4)


def test_a_row_that_only_a_failed_branch_could_have_answered_ends_in_its_error() -> None:
    branches = Branches({"small": x(1, sources=[1]), "large": GONE, "third": Unavailable("too")}, 2)
    for node in (FirstOf(), Mean(), Max(), Concat(), Stack(), RankFusion(tensor="x")):
        assert failure(node, branches) == GONE


def test_a_row_that_no_condition_let_through_is_named() -> None:
    branches = Branches({"one": x(1, sources=[0]), "other": x(3, sources=[2])}, 3)
    error = failure(FirstOf(), branches)
    assert (error, error.row) == (InvalidInput("no branch answered", row=1), 1)
    error = failure(Concat(), branches)
    assert error == InvalidInput("branch 'other' did not answer, and every branch is needed", row=0)


async def test_a_default_answers_where_every_branch_failed() -> None:
    like = Tensors({"label": ["a"], "p": np.zeros((1, 2), np.float32)})
    node = FirstOf(default={"label": "none", "p": 0.5})
    answer = await ask(node, Branches({"one": GONE, "other": GONE}, 2), like)
    assert answer == Tensors({"label": ["none", "none"], "p": np.full((2, 2), 0.5, np.float32)})
    votes = await ask(
        MajorityVote(default={"label": "none", "votes": 0, "voters": 0}),
        Branches({"one": GONE}, 1),
        Tensors({"label": ["a"]}),
    )
    assert votes == Tensors({"label": ["none"], "votes": [0], "voters": [0]})
    chosen = Select(branch="one", default={"label": "none", "p": [1, 2]})
    answer = await ask(chosen, Branches({"one": GONE, "other": GONE}, 1), like)
    assert answer == Tensors({"label": ["none"], "p": np.array([[1, 2]], np.float32)})


def test_where_no_branch_answered_and_no_size_is_known_the_error_comes_out_all_the_same() -> None:
    node = FirstOf(default={"x": 0})
    node.join({"one": {"x": TensorSpec("FP32", ("rows", "?"))}})
    assert failure(node, Branches({"one": GONE}, 2)) == GONE
    sized = FirstOf(default={"x": [1, 2, 3]})
    sized.join({"one": {"x": TensorSpec("FP32", ("rows", "?"))}})
    assert run(sized, Branches({"one": GONE}, 1)) == x([1, 2, 3])


def test_a_default_of_another_size_than_the_rows_that_came_is_the_graphs_fault() -> None:
    node = FirstOf(default={"x": [1, 2, 3]})
    node.join({"one": {"x": TensorSpec("FP32", ("rows", "?"))}})
    error = failure(node, Branches({"one": x([1, 2], sources=[0])}, 2))
    assert isinstance(error, NodeFailed)
    assert "default of shape [3] for tensor 'x', whose rows are [2]" in error.text


def test_a_default_has_no_type_before_the_node_is_told_what_it_joins() -> None:
    with pytest.raises(NodeContractError, match="has not been told yet what it joins"):
        run(Mean(default={"x": 0}), Branches({"one": x(1, sources=[0])}, 2))


def test_nan_and_infinity_go_through_a_mean_and_short_floats_are_added_up_in_long_ones() -> None:
    answer = run(Mean(), two(x(np.nan, np.inf, np.inf, 1), x(1, 1, -np.inf, 2)))["x"]
    np.testing.assert_array_equal(answer, np.array([np.nan, np.inf, np.nan, 1.5], np.float32))
    for dtype in (np.float16, ml_dtypes.bfloat16):
        # 60,000 twice is more than FP16 holds; 257 is between two numbers of BF16.
        found = run(Mean(), two(x(60000, 256, dtype=dtype), x(60000, 258, dtype=dtype)))["x"]
        assert found.dtype == dtype
        assert found[0] == np.array(60000, dtype)
        assert found[1] == np.array(257, np.float32).astype(dtype)


def test_a_sum_that_is_too_large_becomes_infinite_without_a_warning() -> None:
    assert run(Mean(), two(x(3e38), x(3e38)))["x"].tolist() == [np.inf]


def test_weights_count_by_branch_and_are_shared_out_among_those_that_are_there() -> None:
    node = WeightedMean(weights={"other": 1e308, "one": 1.5e308})
    join(node, two(x(0.0), x(0.0)))
    branches = two(x(10, 10, 10), x(20, 30, sources=[1, 2]))
    np.testing.assert_allclose(run(node, branches)["x"], [10, 14, 18], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.float16, np.float64, ml_dtypes.bfloat16])
def test_the_largest_of_any_numbers_also_below_zero(dtype: Any) -> None:
    low = 0 if dtype is np.uint16 else -7
    branches = Branches({"one": x(low, dtype=dtype, sources=[0]), "other": x(low, low, dtype=dtype)})
    assert run(Max(), branches) == x(low, low, dtype=dtype)
    if np.dtype(dtype).kind not in "iu":
        assert np.isnan(run(Max(), two(x(np.nan, dtype=dtype), x(1, dtype=dtype)))["x"]).all()


def labels(*values: Any) -> Tensors:
    return Tensors({"label": list(values)})


async def test_the_most_votes_win_and_the_earliest_branch_between_equals() -> None:
    branches = Branches(
        {"a": labels("cat", "cat", "cat"), "b": labels("dog", "dog", "ox"), "c": labels("dog", "ox", "ox")}
    )
    answer = await ask(MajorityVote(), branches)
    assert answer == Tensors({"label": ["dog", "cat", "ox"], "votes": [2, 1, 2], "voters": [3, 3, 3]})


async def test_each_element_of_wider_labels_is_voted_on_for_itself() -> None:
    branches = Branches({"a": labels([1, 2]), "b": labels([1, 3]), "c": labels([4, 3])})
    answer = await ask(MajorityVote(), branches)
    assert answer == Tensors({"label": [[1, 3]], "votes": [[2, 2]], "voters": [[3, 3]]})


def probabilities(*rows: list[float]) -> Tensors:
    return Tensors({"probabilities": np.array(rows, np.float32), "label": [9] * len(rows)})


async def test_one_branch_that_is_sure_of_a_class_not_being_it_counts_more_in_a_geometric_mean() -> None:
    branches = Branches(
        {"a": probabilities([0.9, 0.1]), "b": probabilities([0.9, 0.1]), "c": probabilities([0.0, 1.0])}
    )
    assert (await ask(SoftVote(), branches))["label"].tolist() == [0]
    answer = await ask(SoftVote(mean="geometric", classes=[30, 40]), branches)
    assert answer["label"].tolist() == [40]
    assert answer["probabilities"].sum() == pytest.approx(1)


async def test_classes_that_every_branch_rules_out_together_still_have_an_answer() -> None:
    branches = Branches({"a": probabilities([1, 0, 0]), "b": probabilities([0, 1, 0])})
    answer = await ask(SoftVote(mean="geometric", classes=["x", "y", "z"]), branches)
    np.testing.assert_allclose(answer["probabilities"], [[0.5, 0.5, 0]], atol=1e-6)
    assert answer["label"].tolist() == [b"x"]


def test_probabilities_of_another_number_of_classes_than_named_are_refused() -> None:
    error = failure(SoftVote(classes=["x", "y"]), Branches({"a": probabilities([1, 0, 0])}))
    assert (error.code, error.tensor) == ("INVALID_ARGUMENT", "probabilities")


async def test_concat_puts_branches_of_other_widths_side_by_side() -> None:
    branches = Branches({"a": Tensors({"x": [["p"], ["q"]]}), "b": Tensors({"x": [["r", "s"], ["t", "u"]]})})
    assert await ask(Concat(), branches) == Tensors({"x": [["p", "r", "s"], ["q", "t", "u"]]})
    told = Branches({"a": branches["a"], "b": Tensors({"x": [["r"], ["s"]]}, sources=[0, 1])})
    assert await ask(Concat(), told) == Tensors({"x": [["p", "r"], ["q", "s"]]})


async def test_stack_makes_an_axis_of_the_branches_and_says_which_it_filled_in() -> None:
    branches = Branches({"a": GONE, "b": x(1, 2), "c": x(3, sources=[1])})
    answer = await ask(Stack(fill={"x": -1}, mask="there"), branches, x(0))
    assert answer["x"].tolist() == [[-1, 1, -1], [-1, 2, 3]]
    assert answer["there"].tolist() == [[False, True, False], [False, True, True]]


async def test_reciprocal_rank_fusion_is_that_of_the_paper() -> None:
    words = Branches(
        {"words": Tensors({"ids": [["a", "b", "c", ""]]}), "vectors": Tensors({"ids": [["c", "d", "a", "a"]]})}
    )
    answer = await ask(RankFusion(top=5), words)
    # a and c stand first and third each, so a, of the earlier branch, comes first.
    assert answer["ids"].tolist() == [[b"a", b"c", b"b", b"d", b""]]
    both, second = 1 / 61 + 1 / 63, 1 / 62
    np.testing.assert_array_equal(answer["scores"], np.array([[both, both, second, second, 0]], np.float32))


async def test_lists_of_other_lengths_fuse_and_rows_that_one_branch_lacks_keep_the_others() -> None:
    some = Tensors({"ids": [[5, -1, 6]]}, sources=[1])
    answer = await ask(RankFusion(top=2), Branches({"a": Tensors({"ids": [[7], [6]]}), "b": some}))
    assert answer["ids"].tolist() == [[7, -1], [6, 5]]


async def test_a_selector_may_be_a_truth_or_a_column() -> None:
    branches = Branches({"if": Tensors({"c": [[True], [False]]}), "no": x(1, 2), "yes": x(3, 4)})
    assert await ask(Select(by="if.c"), branches) == x(3, 2)
    assert await ask(Select(branch="yes"), Branches({"no": x(1, 2), "yes": x(3, 4)})) == x(3, 4)


@pytest.mark.parametrize(
    ("choice", "row", "told"), [([0, 2], 1, "is 2;"), ([-1, 0], 0, "is -1;"), (["one", "x"], 1, "is b'x';")]
)
def test_a_selector_that_chooses_no_branch_is_refused_whatever_the_default(choice: Any, row: int, told: str) -> None:
    branches = Branches({"s": Tensors({"c": choice}), "one": x(1, 2), "other": x(3, 4)})
    for node in (Select(by="s.c"), Select(by="s.c", default={"x": 0})):
        error = failure(node, branches)
        assert told in error.text
        assert (error.tensor, error.row) == ("c", row)


def test_rows_that_the_selector_does_not_have_end_in_its_error_or_the_default() -> None:
    branches = Branches({"s": GONE, "one": x(1, 2), "other": x(3, 4)})
    assert failure(Select(by="s.c"), branches) == GONE
    part = Branches({"s": Tensors({"c": [1]}, sources=[0]), "one": x(1, 2), "other": x(3, 4)})
    assert failure(Select(by="s.c"), part) == InvalidInput("branch 's' was chosen, and did not answer", row=1)


@pytest.mark.parametrize(
    ("node", "branches", "text"),
    [
        (Mean(), two(x([1, 2]), x([1, 2, 3])), "float32[1, 3] in branch 'other' and float32[1, 2] in 'one'"),
        (Mean(), two(x(1), x(1, dtype=np.float64)), "float64[1] in branch 'other' and float32[1] in 'one'"),
        (FirstOf(), two(x(1), Tensors({"y": [1]})), "branch 'other' has no tensor 'x'"),
        (Concat(), two(x([[1], [2]]), x([[1, 2]])), "in branch 'other'"),
        (Select(by="s.c"), two(x(1), x(1)), "there is no branch 's', which has the selector"),
        (Select(branch="s"), two(x(1), x(1)), "there is no branch 's'; there is: one, other"),
        (Select(by="one.c"), two(x(1), x(1)), "the selector 'c' is missing"),
        (Select(by="one.x"), two(x(1), x(1)), "the selector 'x' is float32"),
    ],
)
def test_branches_that_turn_out_to_differ_are_told_of_by_name(node: Aggregate, branches: Branches, text: str) -> None:
    error = failure(node, branches)
    assert error.code == "INVALID_ARGUMENT"
    assert text in error.text


def test_a_stranger_of_the_typed_service_is_held_against_what_is_joined() -> None:
    node = Mean()
    join(node, two(x([1, 2]), x([1, 2])))
    for wrong in (x([1, 2, 3]), x([1, 2], dtype=np.int64)):
        error = failure(node, Branches({"one": wrong}))
        assert (error.code, error.tensor) == ("INVALID_ARGUMENT", "x")


STRANGE: dict[str, Branches] = {
    "no branch": Branches({}, 2),
    "no branch, no row": Branches({}, 0),
    "other names": Branches({"stranger": x([1.0])}),
    "one of two": Branches({"a": x([1.0])}),
    "three of two": Branches(dict.fromkeys("abc", x([1.0]))),
    "no tensors": Branches({"a": Tensors({}), "b": Tensors({})}, 0),
    "other tensors": Branches(dict.fromkeys("ab", Tensors({"y": [[1]]}))),
    "other datatype": Branches(dict.fromkeys("ab", Tensors({"x": [["text"]]}))),
    "fewer dimensions": Branches(dict.fromkeys("ab", Tensors({"x": np.ones(3, np.float32)}))),
    "more dimensions": Branches(dict.fromkeys("ab", Tensors({"x": np.ones((3, 1, 1), np.float32)}))),
    "other sizes": Branches(dict.fromkeys("ab", x([1.0, 2.0]))),
    "no rows anywhere": Branches(dict.fromkeys("ab", x([1.0]).take(0, 0)), 0),
    "all failed": Branches(dict.fromkeys("ab", GONE), 2),
    "all failed, no row": Branches(dict.fromkeys("ab", GONE), 0),
    "many rows of one": Branches({"a": Tensors({"x": np.ones((2, 1), np.float32)}, sources=[0, 0])}, 1),
}
ANSWERING: dict[str, Any] = {
    "FirstOf": lambda: FirstOf(),
    "FirstOf, default": lambda: FirstOf(default={"x": 0}),
    "Mean": lambda: Mean(),
    "WeightedMean": lambda: WeightedMean(weights={"a": 1, "b": 2}),
    "Max, default": lambda: Max(default={"x": [0]}),
    "SoftVote": lambda: SoftVote(tensor="x"),
    "Concat": lambda: Concat(),
    "Stack": lambda: Stack(),
    "Stack, fill": lambda: Stack(fill={"x": 0}, mask="m"),
    "Select": lambda: Select(branch="a"),
    "Select, default": lambda: Select(branch="b", default={"x": 0}),
    "Gather": lambda: Gather(how={"x": "list"}, most=1),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("name", ANSWERING)
def test_whatever_the_typed_service_is_sent_is_answered_or_refused(name: str, strange: str) -> None:
    node = ANSWERING[name]()
    names = "a" if name == "Gather" else "ab"
    gives = node.join({branch: {"x": TensorSpec("FP32", ("rows", 1))} for branch in names})
    branches = STRANGE[strange]
    try:
        answer = run(node, branches)
    except RequestError:
        return
    assert answer.keys() == gives.keys()
    for tensor, array in answer.items():
        assert not gives[tensor].mismatch(array)
        assert len(array) == branches.rows


@pytest.mark.parametrize(("node", "many"), [(Mean(), 1 << 17), (MajorityVote(tensor="x"), 1 << 12)])
async def test_much_work_is_done_beside_the_event_loop_with_the_same_answer(node: Aggregate, many: int) -> None:
    values = np.arange(many) % 1000
    given = x(*values) if isinstance(node, Mean) else Tensors({"x": values.astype(str)})
    few = {name: branch.take(0, 100) for name, branch in two(given, given).answers.items()}
    answer = await node.aggregate(two(given, given), Context())
    assert answer.take(0, 100) == run(node, Branches(few))
    with pytest.raises(AssertionError, match="waits"):
        run(node, two(given, given))


class Spread(RowAligned):
    """How far the branches lie apart: the example of the documentation."""

    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        y, seen = rows.values["y"], rows.present[..., None]
        return {"y": np.where(seen, y, -np.inf).max(axis=0) - np.where(seen, y, np.inf).min(axis=0)}


async def test_ones_own_aggregate_is_one_function_over_full_rows() -> None:
    y = Tensors({"y": [[1.0], [2.0], [3.0]]})
    branches = Branches({"a": y, "b": Tensors({"y": [[5.0]]}, sources=[1])})
    assert await ask(Spread(), branches) == Tensors({"y": [[0.0], [3.0], [0.0]]})
    error = failure(Spread(), Branches({"b": Tensors({"y": [[5.0]]}, sources=[1])}, 2))
    assert error == InvalidInput("no branch answered", row=0)


class Passes(RowAligned):
    """Gives on what it was given, which cannot be written to."""

    given: Array

    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        self.given = rows.values["x"][0]
        self.given.flags.writeable = False
        return {"x": self.given}


async def test_a_default_is_never_written_into_what_a_combine_gives_on() -> None:
    node = Passes(default={"x": 9})
    assert await ask(node, Branches({"one": x(1, sources=[0])}, 2)) == x(1, 9)
    assert node.given.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Mean(tensors=[]), "has to name what to join"),
        (lambda: Mean(tensors=["x", "x"]), "has to name what to join"),
        (lambda: WeightedMean(weights={"a": 0}), "weight 0 of 'a'"),
        (lambda: WeightedMean(weights={"a": float("nan")}), "weight nan of 'a'"),
        (lambda: MajorityVote(tensor="votes"), "labels cannot be called 'votes'"),
        (lambda: SoftVote(tensor="label"), "probabilities cannot be called 'label'"),
        (lambda: SoftVote(classes=[]), "classes is empty"),
        (lambda: SoftVote(classes=[2**70]), "no INT64"),
        (lambda: Stack(mask="m"), "there is no fill"),
        (lambda: RankFusion(top=0), "top is 0"),
        (lambda: RankFusion(k=0), "k is 0"),
        (lambda: RankFusion(tensor="scores"), "ids cannot be called 'scores'"),
        (lambda: Select(), "either by: branch.tensor, or branch: name"),
        (lambda: Select(by="a.b", branch="a"), "either by: branch.tensor, or branch: name"),
        (lambda: Select(by="a"), "has to be written branch.tensor"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(make: Any, text: str) -> None:
    with pytest.raises(SetupError, match=text):
        make()
