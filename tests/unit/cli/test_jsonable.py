from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mesh.cli.jsonable import array_of_json, json_of_array, json_of_tensors
from mesh.tensors import DATATYPES, Array, Tensors

NUMBERS = sorted(DATATYPES.keys() - {"BYTES"})
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)


def same(left: Array, right: Array) -> bool:
    return Tensors({"x": left}) == Tensors({"x": right})


@given(st.sampled_from(NUMBERS), SHAPES, st.data())
def test_numbers_come_back_with_every_bit(datatype: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    dtype = DATATYPES[datatype].dtype
    if datatype == "BF16":
        finite = {"allow_nan": False, "allow_infinity": False}
        array: Array = data.draw(arrays.arrays(np.float16, shape, elements=finite)).astype(dtype)
    elif dtype.kind == "f":
        array = data.draw(arrays.arrays(dtype, shape, elements={"allow_nan": False, "allow_infinity": False}))
    else:
        array = data.draw(arrays.arrays(dtype, shape))
    assert same(array_of_json(json.loads(json.dumps(json_of_array(array))), datatype), array)


@given(SHAPES, st.data())
def test_bytes_come_back_whether_or_not_they_are_text(shape: tuple[int, ...], data: st.DataObject) -> None:
    items = data.draw(
        st.lists(st.binary() | st.text().map(str.encode), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    )
    array = np.empty(len(items), dtype=object)
    array[:] = items
    array = array.reshape(shape)
    assert same(array_of_json(json.loads(json.dumps(json_of_array(array))), "BYTES"), array)


def test_a_number_has_as_few_digits_as_tell_it_from_its_neighbours() -> None:
    assert json.dumps(json_of_array(np.array([0.1, 1 / 3], np.float32))) == "[0.1, 0.33333334]"


def test_tensors_tell_their_datatype_and_shape() -> None:
    assert json_of_tensors(Tensors({"x": np.zeros((0, 2), np.float32), "y": [b"\xff", "é"]})) == {
        "x": {"datatype": "FP32", "shape": [0, 2], "data": []},
        "y": {"datatype": "BYTES", "shape": [2], "data": [{"base64": "/w=="}, "é"]},
    }


def test_a_single_value_is_one_row() -> None:
    assert same(array_of_json(3, "INT8"), np.array([3], np.int8))
    assert same(array_of_json("three", "BYTES"), np.array([b"three"], object))


@pytest.mark.parametrize(
    ("value", "datatype", "told"),
    [
        ([1.5], "INT64", "is not INT64"),
        ([True], "FP32", "is not FP32"),
        ([0, 1], "BOOL", "is not BOOL"),
        (["1"], "FP32", "is not FP32"),
        ([{"a": 1}], "FP32", "is not FP32"),
        ([None], "FP32", "is not FP32"),
        ([300], "UINT8", "beyond what UINT8 holds"),
        ([-1], "UINT64", "beyond what UINT64 holds"),
        ([1e6], "FP16", "beyond what FP16 holds"),
        ([10**400], "FP64", "beyond what FP64 holds"),
        ([[1], [1, 2]], "FP32", "different lengths"),
        ([[1], 2], "FP32", "different lengths"),
        ([1], "BYTES", "1 is not BYTES"),
        ([{"base64": "?"}], "BYTES", "not base64"),
        ([{"base64": 1}], "BYTES", "is not BYTES"),
        ([["a"], ["b", "c"]], "BYTES", "different lengths"),
        ([["a"], "b"], "BYTES", "different lengths"),
        (["x" * 100], "FP32", "..."),
    ],
)
def test_what_a_datatype_cannot_hold_is_refused(value: Any, datatype: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace(".", r"\.")):
        array_of_json(value, datatype)
