from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.context import Parameter
from mesh.signature import Signature
from mesh.tensors import Array
from mesh.topology.expressions import Condition, common, parse, typed, uncovered
from tests.unit.topology.expressions.given import TYPES, batches, sent

SPECS = Signature.parse(
    "n: INT64[rows], u: UINT8[rows], flag: BOOL[rows], p: FP32[rows, 10], q: FP32[rows, 10], label: BYTES[rows] ->"
).inputs


def _conditions(*texts: str) -> list[Condition]:
    return [typed(parse(text), SPECS) for text in texts]


COVERED = [
    ["max(p) < 0.9", "not max(p) < 0.9"],
    ["n < 3", "n >= 3"],
    ["n < 3", "n > 2"],
    ["n < 2.5", "n > 2.5"],
    ["u < 255", "u == 255"],
    ["argmax(p) == 0", "argmax(p) >= 1"],
    ["label in ['a', 'b']", "label not in ['a', 'b']"],
    ["label == 'a'", "label != 'a'"],
    ["flag", "not flag"],
    ["flag == true", "false == flag"],
    ["flag and n < 3", "not flag or n >= 3"],
    ["parameters.t == 'a'", "parameters.t != 'a'"],
    ["max(p) < max(q)", "not max(p) < max(q)"],
    ["any(p > q)", "not any(p > q)"],
    ["0.2 < max(p) <= 0.8", "max(p) <= 0.2", "max(p) > 0.8 or not max(p) > 0"],
    ["flag or true"],
]

UNCOVERED: dict[tuple[str, ...], str] = {
    ("max(p) < 0.9", "max(p) >= 0.9"): "max(p) is NaN",
    ("max(p) < 0.9", "max(p) > 0.9"): "max(p) == 0.9",
    ("max(p) < 0.2", "max(p) >= 0.9"): "max(p) == 0.2",
    ("max(p) <= 0.2", "0.9 <= max(p)"): "0.2 < max(p) < 0.9",
    ("max(p) < 0.9",): "max(p) > 0.9",
    ("n < 3", "n > 3"): "n == 3",
    ("label == 'a'", "label == 'b'"): 'label not in ["a", "b"]',
    ("flag and n < 3", "n >= 3"): "not flag and n == 2",
    ("parameters.x < 1", "parameters.x >= 1"): "parameters.x is not sent as a number",
    ("max(p) < max(q)", "max(p) >= max(q)"): "not (max(p) < max(q)) and not (max(p) >= max(q))",
    ("parameters.x <= 9007199254740992", "parameters.x >= 9007199254740994"): (
        "9007199254740992 < parameters.x < 9007199254740994"
    ),
}


@pytest.mark.parametrize("texts", COVERED, ids=" | ".join)
def test_conditions_that_leave_no_row_out(texts: list[str]) -> None:
    assert uncovered(_conditions(*texts)) == ""


@pytest.mark.parametrize("texts", UNCOVERED, ids=" | ".join)
def test_a_row_that_no_condition_takes_is_described(texts: tuple[str, ...]) -> None:
    assert uncovered(_conditions(*texts)) == UNCOVERED[texts]


def test_two_conditions_that_no_row_meets_both() -> None:
    for one, other, case in [
        ("max(p) < 0.9", "max(p) >= 0.9", ""),
        ("n < 3", "n > 2", ""),
        ("label == 'a'", "label in ['b', 'c']", ""),
        ("flag and n > 1", "not flag", ""),
        ("max(p) < 0.9", "max(p) < 0.5", "max(p) < 0.5"),
        ("n < 3", "flag", "n == 2 and flag"),
    ]:
        assert common(*_conditions(one, other)) == case


def test_no_condition_covers_nothing() -> None:
    assert uncovered([]) == "any row"


def test_more_cases_than_are_tried_are_not_said_to_be_covered() -> None:
    many = " and ".join(f"p[{column}] < {value}" for column in range(8) for value in (0.1, 0.5, 0.9))
    assert uncovered(_conditions(many, f"not ({many})")) == "there are too many cases to tell"


_ATOMS = [
    *(f"{x} {sign} {value}" for x in ("max(f)", "d", "i", "u[0]") for sign in ("<", ">=", "==") for value in (1, 2)),
    *(f"parameters.k {sign} {value}" for sign in ("<", ">", "!=") for value in (1, 0.5)),
    *("y", "t == 'cat'", "t in ['a', '']", "parameters.a == 'cat'", "max(f) < d", "c[0] < 1", "i < 0.5", "f[0] > 0.9"),
]


@st.composite
def _unions(draw: st.DrawFn) -> list[str]:
    atoms = [draw(st.sampled_from(_ATOMS)) for _ in range(2)]
    one, other = atoms
    forms = [one, other, f"not {one}", f"not {other}", f"{one} and {other}", f"{one} or not {other}"]
    return draw(st.lists(st.sampled_from(forms), min_size=1, max_size=4))


@settings(max_examples=200, deadline=None)
@given(_unions(), batches(), sent())
def test_what_is_said_to_be_certain_is_so_for_any_values(
    texts: list[str], batch: tuple[dict[str, Array], int], parameters: dict[str, Parameter]
) -> None:
    conditions = [typed(parse(text), TYPES) for text in texts]
    tensors, rows = batch
    found = [condition(tensors, parameters, rows) for condition in conditions]
    if not uncovered(conditions):
        assert all(any(row) for row in zip(*found, strict=True))
    for (one, ones), (other, others) in itertools.combinations(zip(conditions, found, strict=True), 2):
        if not common(one, other):
            assert not (ones & others).any()
