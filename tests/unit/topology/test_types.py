"""Edges against signatures, by example and held against what arrays of those shapes do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput
from mesh.signature import ANY, REST, Dimension, InputCheck, Signature, TensorSpec
from mesh.tensors import Tensors
from mesh.topology.types import ROWS, bind, inputs_of, outputs_of

Shapes = dict[str, tuple[int, ...]]


def specs(text: str) -> Mapping[str, TensorSpec]:
    return Signature.parse(f"{text} ->").inputs


@pytest.mark.parametrize(
    ("signature", "edges", "takes", "gives"),
    [
        ("x: FP32[rows, n] -> y: FP32[rows, n]", "x: FP32[rows, 4]", "x: FP32[rows, 4]", "y: FP32[rows, 4]"),
        ("x: FP32[rows, n] -> y: FP32[rows, n]", "x: FP32[rows, ?]", "x: FP32[rows, n]", "y: FP32[rows, ?]"),
        ("x: FP32[rows, 4] -> y: FP32[rows, m]", "x: FP32[rows, ?]", "x: FP32[rows, 4]", "y: FP32[rows, ?]"),
        ("x: FP32[rows, ?] -> y: FP32[rows]", "x: FP32[rows, 4]", "x: FP32[rows, 4]", "y: FP32[rows]"),
        ("x: FP32[rows, ?] -> y: FP32[rows]", "x: FP32[rows, ...]", "x: FP32[rows, ?]", "y: FP32[rows]"),
        (
            "x: FP32[rows, ...] -> y: FP32[rows, 2, ...]",
            "x: FP32[rows, 3, ?]",
            "x: FP32[rows, 3, ?]",
            "y: FP32[rows, 2, 3, ?]",
        ),
        ("x: FP32[rows, ...] -> y: FP32[rows, ...]", "x: FP32[rows]", "x: FP32[rows]", "y: FP32[rows]"),
        ("x: FP32[rows, ...] -> y: FP32[rows, ...]", "x: FP32[rows, ...]", "x: FP32[rows, ...]", "y: FP32[rows, ...]"),
        (
            "x: FP32[rows, n, ...] -> y: FP32[rows, ..., ]".replace(", ]", "]"),
            "x: FP32[rows, 3, 4]",
            "x: FP32[rows, 3, 4]",
            "y: FP32[rows, 4]",
        ),
        (
            "a: FP32[rows, n], b: FP32[rows, n] -> y: FP32[rows, n]",
            "a: FP32[rows, ?], b: FP32[rows, 4]",
            "a: FP32[rows, 4], b: FP32[rows, 4]",
            "y: FP32[rows, 4]",
        ),
        (
            "a: FP32[rows, n], b: FP32[rows, n] -> y: FP32[rows, n]",
            "a: FP32[rows, ?], b: FP32[rows, ?]",
            "a: FP32[rows, n], b: FP32[rows, n]",
            "y: FP32[rows, ?]",
        ),
        (
            "a: FP32[rows, ...], b: FP32[rows, ...] -> y: FP32[rows, ...]",
            "a: FP32[rows, ?, 5], b: FP32[rows, ...]",
            "a: FP32[rows, axis1, 5], b: FP32[rows, axis1, 5]",
            "y: FP32[rows, ?, 5]",
        ),
        (
            "a: FP32[rows, axis1, ...], b: FP32[rows, ...] -> y: FP32[rows, axis1]",
            "a: FP32[rows, ?, ?], b: FP32[rows, ?]",
            "a: FP32[rows, axis1, axis_1], b: FP32[rows, axis_1]",
            "y: FP32[rows, ?]",
        ),
        (
            "a: FP32[rows, ...], b: FP32[rows, ...] -> y: FP32[rows, ...]",
            "a: FP32[rows, 3, ...], b: FP32[rows, ...]",
            "a: FP32[rows, 3, ...], b: FP32[rows, 3, ...]",
            "y: FP32[rows, 3, ...]",
        ),
    ],
)
def test_what_arrives_and_leaves_is_what_is_declared_and_what_the_edges_tell(
    signature: str, edges: str, takes: str, gives: str
) -> None:
    parsed = Signature.parse(signature)
    binding, wrong = bind(parsed, specs(edges))
    assert wrong == []
    assert inputs_of(parsed, binding, specs(edges)) == specs(takes)
    assert outputs_of(parsed, binding) == specs(gives)


@pytest.mark.parametrize(
    ("signature", "edges", "wrong"),
    [
        ("x: FP32[rows]", "x: FP64[rows]", {"x": "it is FP64[rows] where FP32[rows] is needed"}),
        ("x: FP32[rows]", "x: FP32[rows, 1]", {"x": "it is FP32[rows, 1] where FP32[rows] is needed"}),
        ("x: FP32[rows, 1]", "x: FP32[rows]", {"x": "it is FP32[rows] where FP32[rows, 1] is needed"}),
        ("x: FP32[rows, 1, ...]", "x: FP32[rows]", {"x": "it is FP32[rows] where FP32[rows, 1, ...] is needed"}),
        ("x: FP32[rows, 1]", "x: FP32[rows, 2, ...]", {"x": "it is FP32[rows, 2, ...] where FP32[rows, 1] is needed"}),
        (
            "x: FP32[rows, n, n]",
            "x: FP32[rows, 2, 3]",
            {"x": "it is FP32[rows, 2, 3] where FP32[rows, n, n] is needed and n is 2"},
        ),
        (
            "a: FP32[rows, n], b: FP32[rows, n], c: FP32[rows, n]",
            "a: FP32[rows, 2], b: FP32[rows, 3], c: FP32[rows, 2]",
            {"b": "it is FP32[rows, 3] where FP32[rows, n] is needed and n is 2"},
        ),
        (
            "a: FP32[rows, ...], b: FP32[rows, ...]",
            "a: FP32[rows, 2, ?], b: FP32[rows, 2]",
            {"b": "it is FP32[rows, 2] where FP32[rows, ...] is needed and ... is [2, ?]"},
        ),
        (
            "a: FP32[rows, ...], b: FP32[rows, ...]",
            "a: FP32[rows, 2, ...], b: FP32[rows, 3, 4]",
            {"b": "it is FP32[rows, 3, 4] where FP32[rows, ...] is needed and ... is [2, ...]"},
        ),
    ],
)
def test_what_does_not_fit_is_told_by_tensor_and_binds_nothing(
    signature: str, edges: str, wrong: dict[str, str]
) -> None:
    assert dict(bind(Signature.parse(f"{signature} ->"), specs(edges))[1]) == wrong


def test_a_tensor_of_which_nothing_is_known_is_left_out() -> None:
    signature = Signature.parse("a: FP32[rows, n], b: FP32[rows, n] -> y: FP32[rows, n]")
    binding, wrong = bind(signature, {})
    assert wrong == []
    assert inputs_of(signature, binding, {}) == {}
    assert outputs_of(signature, binding) == specs("y: FP32[rows, ?]")


# By property: shapes are drawn first, then a signature and edges that tell of them no more than is true.


@dataclass(frozen=True)
class Drawn:
    signature: Signature
    edges: dict[str, TensorSpec]
    shapes: Shapes
    """Of arrays that fit both."""
    given: Shapes
    """What the node gives then."""


sizes = st.integers(1, 3)
symbols = st.sampled_from("nm")


def _abstracted(draw: st.DrawFn, shape: tuple[int, ...]) -> TensorSpec:
    """An edge of which is known no more than that `shape` fits."""
    kept = draw(st.integers(1, len(shape)))
    tail: list[Dimension] = [REST] if kept < len(shape) or draw(st.booleans()) else []
    known: list[Dimension] = [size if draw(st.booleans()) else ANY for size in shape[1:kept]]
    return TensorSpec("FP32", (ROWS, *known, *tail))


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    values = {"n": draw(sizes), "m": draw(sizes), ANY: 0}
    rest = tuple(draw(st.lists(sizes, max_size=2)))
    rows = draw(sizes)
    sides: list[tuple[dict[str, TensorSpec], Shapes]] = []
    for names in ("abc"[: draw(st.integers(1, 3))], "xy"):
        declared: dict[str, TensorSpec] = {}
        shapes: Shapes = {}
        for name in names:
            words: list[Dimension] = list(draw(st.lists(st.one_of(sizes, symbols, st.just(ANY)), max_size=2)))
            found = [draw(sizes) if word == ANY else values[word] if isinstance(word, str) else word for word in words]
            takes_more = draw(st.booleans())
            declared[name] = TensorSpec("FP32", (ROWS, *words, *([REST] if takes_more else [])))
            shapes[name] = (rows, *found, *(rest if takes_more else ()))
        sides.append((declared, shapes))
    (inputs, shapes), (outputs, answers) = sides
    edges = {name: _abstracted(draw, shape) for name, shape in shapes.items()}
    return Drawn(Signature(inputs, outputs), edges, shapes, answers)


def fits(declared: Mapping[str, TensorSpec], shapes: Shapes) -> bool:
    try:
        InputCheck(declared, node="it")(Tensors({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}))
    except InvalidInput:
        return False
    return True


def brings(edges: Mapping[str, TensorSpec], shapes: Shapes) -> bool:
    # Edge by edge: what two edges do not tell need not be the same.
    return all(edge.mismatch(np.zeros(shapes[name], np.float32)) == "" for name, edge in edges.items())


@given(drawn())
def test_edges_that_can_fit_do_and_what_then_flows_is_what_was_told(case: Drawn) -> None:
    binding, wrong = bind(case.signature, case.edges)
    assert wrong == []
    assert fits(inputs_of(case.signature, binding, case.edges), case.shapes)
    gives = outputs_of(case.signature, binding)
    for name, shape in case.given.items():
        assert gives[name].mismatch(np.zeros(shape, np.float32)) == ""


@given(drawn(), st.data())
def test_a_node_takes_just_what_it_declares_and_its_edges_bring(case: Drawn, data: st.DataObject) -> None:
    binding, _ = bind(case.signature, case.edges)
    takes = inputs_of(case.signature, binding, case.edges)
    other: Shapes = {
        name: data.draw(st.one_of(st.just(shape), st.lists(sizes, min_size=1, max_size=4).map(tuple)), label=name)
        for name, shape in case.shapes.items()
    }
    assert fits(takes, other) == (fits(case.signature.inputs, other) and brings(case.edges, other))


words = st.lists(st.one_of(st.integers(1, 2), st.just(ANY)), max_size=2)
SMALL = [(1, *rest) for length in range(5) for rest in product((1, 2), repeat=length)]
"""Every shape of up to five axes that are no longer than two: as many as the specs below can ask for."""


@st.composite
def any_specs(draw: st.DrawFn, inside: st.SearchStrategy[list[Dimension]]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec("FP32", (ROWS, *draw(inside), *([REST] if draw(st.booleans()) else []))) for name in ("a", "b")
    }


@given(any_specs(st.lists(st.one_of(st.integers(1, 2), symbols, st.just(ANY)), max_size=2)), any_specs(words))
def test_edges_are_told_not_to_fit_just_where_no_arrays_do(
    inputs: dict[str, TensorSpec], edges: dict[str, TensorSpec]
) -> None:
    _, wrong = bind(Signature(inputs, {}), edges)
    brought = [[shape for shape in SMALL if brings({name: edge}, {name: shape})] for name, edge in edges.items()]
    every = (dict(zip(inputs, shapes, strict=True)) for shapes in product(*brought))
    assert (wrong == []) == any(fits(inputs, shapes) for shapes in every)
