"""What aggregates say of branches before anything runs: the types that they give, and what they cannot join."""

from __future__ import annotations

from typing import Any

import pytest

from mesh import Aggregate, NodeContractError, Signature, TensorSpec
from nodes.aggregate import (
    Concat,
    FirstOf,
    Gather,
    MajorityVote,
    Max,
    Mean,
    RankFusion,
    Select,
    SoftVote,
    Stack,
    WeightedMean,
)

Specs = dict[str, TensorSpec]


def specs(text: str) -> Specs:
    return dict(Signature.parse(f"-> {text}").outputs)


def gives(node: Aggregate, *branches: str) -> Specs:
    return dict(node.join({name: specs(branch) for name, branch in zip("abcd", branches, strict=False)}))


BOTH = "label: INT64[rows], probabilities: FP32[rows, 10]"


@pytest.mark.parametrize(
    ("node", "branches", "given"),
    [
        (FirstOf(), [BOTH, BOTH], BOTH),
        (FirstOf(tensors=["label"]), [BOTH, "label: INT64[rows], p: FP32[rows]"], "label: INT64[rows]"),
        (FirstOf(), ["x: BYTES[rows, ?, 3]", "x: BYTES[rows, 4, ?]"], "x: BYTES[rows, 4, 3]"),
        (FirstOf(), ["x: FP32[rows, ...]", "x: FP32[rows, 4, ?]"], "x: FP32[rows, 4, ?]"),
        (FirstOf(), ["x: FP32[rows, 4, ...]", "x: FP32[rows, ...]"], "x: FP32[rows, 4, ...]"),
        (FirstOf(), ["x: FP32[rows, n]", "x: FP32[rows, n]"], "x: FP32[rows, n]"),
        (FirstOf(), ["x: FP32[rows, n]", "x: FP32[rows, m]"], "x: FP32[rows, ?]"),
        (Mean(tensors=["probabilities"]), [BOTH, BOTH], "probabilities: FP32[rows, 10]"),
        (WeightedMean(weights={"a": 1, "b": 2}), ["x: BF16[rows]", "x: BF16[rows]"], "x: BF16[rows]"),
        (Max(), ["x: UINT8[rows]", "x: UINT8[rows]"], "x: UINT8[rows]"),
        (MajorityVote(), [BOTH, BOTH], "label: INT64[rows], votes: INT64[rows], voters: INT64[rows]"),
        (SoftVote(), [BOTH, BOTH], "probabilities: FP32[rows, 10], label: INT64[rows]"),
        (SoftVote(tensor="p", classes=["x", "y"]), ["p: FP16[rows, ?]"], "p: FP16[rows, ?], label: BYTES[rows]"),
        (Concat(), ["x: BYTES[rows, 2, 3]", "x: BYTES[rows, 4, 3]"], "x: BYTES[rows, 6, 3]"),
        (Concat(), ["x: FP32[rows, 2, ?]", "x: FP32[rows, ?, 3]"], "x: FP32[rows, ?, 3]"),
        (Stack(), ["x: INT8[rows]", "x: INT8[rows]"], "x: INT8[rows, 2]"),
        (Stack(fill={"x": 0}, mask="m"), ["x: FP32[rows, 3]"] * 3, "x: FP32[rows, 3, 3], m: BOOL[rows, 3]"),
        (
            RankFusion(top=7),
            ["ids: INT64[rows, 20]", "ids: INT64[rows, ?]"],
            "ids: INT64[rows, 7], scores: FP32[rows, 7]",
        ),
        (Select(by="a.c"), ["c: BYTES[rows]", "x: FP32[rows]", "x: FP32[rows]"], "x: FP32[rows]"),
        (Select(branch="b"), ["x: FP32[rows]", "x: FP32[rows]"], "x: FP32[rows]"),
        (
            Gather(how={"t": "concat", "b": "list", "s": "mean", "n": "sum", "u": "sum"}, most=9, count="lines"),
            ["t: BYTES[rows], b: INT32[rows, 4], s: FP32[rows], n: INT8[rows], u: UINT8[rows], rest: FP32[rows]"],
            "t: BYTES[rows], b: INT32[rows, 9, 4], s: FP32[rows], n: INT64[rows], u: UINT64[rows], lines: INT64[rows]",
        ),
    ],
)
def test_an_aggregate_tells_what_it_gives(node: Aggregate, branches: list[str], given: str) -> None:
    assert gives(node, *branches) == specs(given)


@pytest.mark.parametrize(
    ("node", "branches", "text"),
    [
        (FirstOf(), [], "there is no branch to join"),
        (
            FirstOf(),
            [BOTH, "label: INT64[rows]"],
            "branch 'b' gives no tensor 'probabilities', which branch 'a' gives; "
            "name what to join, as in tensors: [label]",
        ),
        (
            FirstOf(),
            ["label: INT64[rows]", BOTH],
            "branch 'a' gives no tensor 'probabilities', which branch 'b' gives; "
            "name what to join, as in tensors: [label]",
        ),
        (FirstOf(), ["x: FP32[rows]", "y: FP32[rows]"], "branch 'b' gives no tensor 'x', which branch 'a' gives"),
        (
            FirstOf(tensors=["z"]),
            ["x: FP32[rows]"],
            "branch 'a' gives no tensor 'z'; it gives x: FP32[rows]",
        ),
        (
            FirstOf(),
            ["x: FP32[rows, 10]", "x: FP32[rows, ?]", "x: FP32[rows, 9]"],
            "tensor 'x' is FP32[rows, 9] in branch 'c' and FP32[rows, 10] in 'a'",
        ),
        (
            FirstOf(),
            ["x: FP32[rows, ?]", "x: FP32[rows, 10]", "x: FP32[rows, 9]"],
            "tensor 'x' is FP32[rows, 9] in branch 'c' and FP32[rows, 10] in 'b'",
        ),
        (FirstOf(), ["x: FP32[rows]", "x: FP64[rows]"], "tensor 'x' is FP64[rows] in branch 'b' and FP32[rows] in 'a'"),
        (FirstOf(), ["x: FP32[rows]", "x: FP32[rows, 2]"], "tensor 'x' is FP32[rows, 2] in branch 'b'"),
        (FirstOf(), ["x: FP32[rows, 1, 2, ...]", "x: FP32[rows, 1]"], "tensor 'x' is FP32[rows, 1] in branch 'b'"),
        (Mean(), [BOTH, BOTH], "Mean: tensor 'label' is INT64[rows], which has no mean; name the tensors to join"),
        (WeightedMean(weights={"a": 1}), ["x: FP32[rows]"] * 2, "WeightedMean: weights has none for branch 'b'"),
        (
            WeightedMean(weights={"a": 1, "z": 1}),
            ["x: FP32[rows]"],
            "weights names 'z', which is no branch; there is: a",
        ),
        (Max(), ["x: BYTES[rows]"], "Max: tensor 'x' is BYTES[rows], which has no largest"),
        (MajorityVote(), ["label: FP32[rows]"], "floats are no labels; vote by probabilities with SoftVote"),
        (MajorityVote(tensor="class"), [BOTH], "branch 'a' gives no tensor 'class'; it gives label"),
        (SoftVote(), ["probabilities: FP32[rows]"], "have to be floats of shape [rows, classes]"),
        (SoftVote(classes=[1, 2]), [BOTH], "is FP32[rows, 10], and classes names 2"),
        (Concat(), ["x: FP32[rows]"], "which has no axis 1; nodes.aggregate:Stack makes one"),
        (Concat(), ["x: FP32[rows, 2, 3]", "x: FP32[rows, 2, 4]"], "FP32[rows, 2, 4] in branch 'b'"),
        (Stack(fill={"x": "a"}), ["x: FP32[rows]"], "fill of tensor 'x' is 'a', which is no FP32"),
        (Stack(fill={"x": 0}, mask="x"), ["x: FP32[rows]"], "mask is 'x', and a tensor that is joined has that name"),
        (RankFusion(), ["ids: FP32[rows, 3]"], "have to be INT64 or BYTES of shape [rows, n]"),
        (RankFusion(), ["ids: INT64[rows]"], "have to be INT64 or BYTES of shape [rows, n]"),
        (Select(by="z.c"), ["x: FP32[rows]"], "by names 'z', which is no branch; there is: a"),
        (Select(branch="z"), ["x: FP32[rows]"], "branch names 'z', which is no branch; there is: a"),
        (Select(by="a.c"), ["x: FP32[rows]", "x: FP32[rows]"], "branch 'a' gives no tensor 'c'"),
        (Select(by="a.x"), ["x: FP32[rows]", "x: FP32[rows]"], "the selector a.x is FP32[rows]; it has to be BOOL"),
        (Select(by="a.c"), ["c: BOOL[rows]", "x: FP32[rows]"], "a BOOL chooses between two branches, and there are 1"),
        (Select(by="a.c"), ["c: INT8[rows]"], "there is no branch to join"),
        (Gather(how={}), ["x: FP32[rows]"] * 2, "Gather is fed by one branch, and not by a, b"),
        (Gather(how={"y": "first"}), ["x: FP32[rows]"], "branch 'a' gives no tensor 'y'"),
        (Gather(how={"x": "concat"}), ["x: FP32[rows]"], "which has no concat; concat takes BYTES"),
        (Gather(how={"x": "mean"}), ["x: INT8[rows]"], "tensor 'x' is INT8[rows], which has no mean"),
        (Gather(how={"x": "max"}), ["x: BYTES[rows]"], "which has no max"),
        (Gather(how={"x": "first"}, default={"y": 1}), ["x: FP32[rows]"], "default has a value for 'y'; there is: x"),
    ],
)
def test_what_cannot_be_joined_is_told_of_before_anything_runs(node: Aggregate, branches: list[str], text: str) -> None:
    with pytest.raises(NodeContractError) as caught:
        gives(node, *branches)
    assert text in str(caught.value)


ROW = "x: FP32[rows, 2], n: INT8[rows], b: BOOL[rows], t: BYTES[rows], o: UINT8[rows, ...], h: FP16[rows]"
GOOD: dict[str, Any] = {"x": [1, float("nan")], "n": -128, "b": True, "t": "text", "o": [[1], [2]], "h": 0.1}


def test_a_default_may_be_one_row_or_one_value_for_every_element() -> None:
    assert gives(FirstOf(default=GOOD), ROW, ROW) == specs(ROW)
    assert gives(FirstOf(default={**GOOD, "x": 0, "o": 255}), ROW, ROW) == specs(ROW)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"x": [1, 2, 3]}, "default of tensor 'x' has shape [3], and a row of it is FP32[rows, 2]"),
        ({"x": "1"}, "default of tensor 'x' is '1', which is no FP32"),
        ({"x": 1e39}, "default of tensor 'x' is 1e+39, which is no FP32"),
        ({"x": True}, "default of tensor 'x' is True, which is no FP32"),
        ({"x": [1, [2]]}, "which is no FP32: tensor 'value' is no array"),
        ({"n": 128}, "default of tensor 'n' is 128, which is no INT8"),
        ({"n": 1.0}, "default of tensor 'n' is 1.0, which is no INT8"),
        ({"n": 2**70}, "which is no INT8"),
        ({"n": [1]}, "default of tensor 'n' has shape [1], and a row of it is INT8[rows]"),
        ({"b": 1}, "default of tensor 'b' is 1, which is no BOOL"),
        ({"t": 1}, "default of tensor 't' is 1, which is no BYTES"),
        ({"z": 1}, "default has a value for 'z'; there is: x, n, b, t, o, h"),
    ],
)
def test_a_default_that_fits_no_row_is_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(NodeContractError) as caught:
        gives(FirstOf(default={**GOOD, **wrong}), ROW)
    assert text in str(caught.value)


def test_a_default_has_to_name_every_tensor_of_the_answer() -> None:
    with pytest.raises(NodeContractError, match=r"default has no value for tensor 'votes', INT64\[rows\]"):
        gives(MajorityVote(default={"label": 1}), BOTH)


@pytest.mark.parametrize(
    ("node", "needs"),
    [
        (FirstOf(), "any"),
        (FirstOf(default={}), "none"),
        (Mean(), "any"),
        (Max(default={}), "none"),
        (Concat(), "every"),
        (Stack(), "every"),
        (Stack(fill={}), "none"),
        (RankFusion(), "any"),
        (Select(by="a.b"), "every"),
        (Select(branch="a"), ("a",)),
        (Select(branch="a", default={}), "none"),
        (Gather(how={}), "none"),
    ],
)
def test_an_aggregate_says_which_branches_a_row_needs(node: Aggregate, needs: Any) -> None:
    assert node.needs == needs
