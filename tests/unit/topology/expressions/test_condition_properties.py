from __future__ import annotations

import warnings

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mesh.context import Parameter
from mesh.signature import TensorSpec
from mesh.tensors import Array
from mesh.topology.expressions import Condition, ExpressionError, parse, typed
from mesh.topology.expressions.sorts import ONE_A_ROW
from tests.unit.topology.expressions.given import TYPES, Unsure, batches, conditions, interpret, row_of, sent, truth


def _typed(text: str) -> Condition:
    try:
        return typed(parse(text), TYPES)
    except ExpressionError:
        assume(False)
        raise


@settings(max_examples=600, deadline=None)
@given(conditions(), batches(), sent())
def test_a_batch_gives_what_a_plain_interpreter_gives_row_by_row(
    text: str, batch: tuple[dict[str, Array], int], parameters: dict[str, Parameter]
) -> None:
    condition = _typed(text)
    tensors, rows = batch
    found = condition(tensors, parameters, rows)
    assert (found.dtype, found.shape) == (np.bool_, (rows,))
    for row in range(rows):
        values = {edge: row_of(edge, array, row) for edge, array in tensors.items()}
        try:
            expected = truth(interpret(condition.expression.tree, values, parameters, condition.parameters).value)
        except Unsure:
            continue
        assert found[row] == expected, (text, row, {edge: values[edge].value for edge in condition.edges})


@settings(max_examples=200, deadline=None)
@given(conditions(), batches(), sent())
def test_each_row_alone_gives_what_it_gives_among_others_and_nothing_warns(
    text: str, batch: tuple[dict[str, Array], int], parameters: dict[str, Parameter]
) -> None:
    condition = _typed(text)
    tensors, rows = batch
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = condition(tensors, parameters, rows).tolist()
        alone = [
            condition({edge: array[row : row + 1] for edge, array in tensors.items()}, parameters, 1)[0]
            for row in range(rows)
        ]
        turned = {edge: np.asfortranarray(array) for edge, array in tensors.items()}
        assert condition(turned, parameters, rows).tolist() == together
    assert alone == together


@settings(max_examples=200, deadline=None)
@given(conditions())
def test_the_canonical_text_says_the_same_and_types_the_same(text: str) -> None:
    condition = _typed(text)
    again = typed(parse(str(condition)), TYPES)
    assert (again, hash(again), str(again)) == (condition, hash(condition), str(condition))
    whole = condition.sorts[condition.expression.tree]
    assert whole.datatype == "BOOL"
    assert whole.tail in (None, ONE_A_ROW, (1,))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_a_sum_has_the_same_last_bits_in_any_batch_and_layout(rows: int, columns: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, columns)) ** 9
    types = {"x": TensorSpec("FP64", ("rows", "?")), "d": TensorSpec("FP64", ("rows",))}
    condition = typed(parse("sum(x) == d and mean(x) == d / len(x)"), types)
    alone = np.array([np.add.reduce(row[np.newaxis], axis=1)[0] for row in values])
    for layout in (values, np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2]):
        assert condition({"x": layout, "d": alone}, {}, rows).all()
