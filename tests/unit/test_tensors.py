from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput
from mesh.tensors import DATATYPES, Array, Tensors, concatenate, datatype_of, wire_size
from mesh.v1 import tensor_pb2
from tests.unit.transports.given import arrays


def test_enum_of_the_wire_has_the_same_names_and_numbers() -> None:
    wire = {name.removeprefix("DATATYPE_"): number for name, number in tensor_pb2.Datatype.items()}
    assert wire.pop("UNSPECIFIED") == 0
    assert {datatype.name: datatype.number for datatype in DATATYPES.values()} == wire


@pytest.mark.parametrize("name", DATATYPES)
def test_every_datatype_is_told_from_its_array(name: str) -> None:
    array = np.zeros((2, 3), DATATYPES[name].dtype) if name != "BYTES" else np.full((2, 3), b"", object)
    assert datatype_of(array).name == name
    assert repr(Tensors({"x": array})) == f"Tensors(x: {name}[2, 3])"


def test_arrays_inside_cannot_be_written_to_and_the_callers_own_still_can() -> None:
    own = np.zeros((2,), np.float32)
    inside = Tensors({"x": own})["x"]
    with pytest.raises(ValueError, match="read-only"):
        inside[0] = 1
    own[0] = 1
    assert np.shares_memory(own, inside)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (["a", "é"], [b"a", "é".encode()]),
        ([b"a\0", b"\0", b""], [b"a\0", b"\0", b""]),
        (["a\0"], [b"a\0"]),
        ([b"\xff\0", "é"], [b"\xff\0", "é".encode()]),
        (np.array(["a", "bc"]), [b"a", b"bc"]),
        (np.array(["é"], dtype=np.dtypes.StringDType()), ["é".encode()]),
        (np.array([bytearray(b"ab"), memoryview(b"c")], dtype=object), [b"ab", b"c"]),
    ],
    ids=repr,
)
def test_text_and_bytes_become_bytes_with_every_nul(given_value: Any, expected: list[bytes]) -> None:
    made = Tensors({"x": given_value})["x"]
    assert datatype_of(made).name == "BYTES"
    assert made.tolist() == expected


@pytest.mark.parametrize(
    "value",
    [
        1j,
        None,
        object(),
        [[1], [1, 2]],
        ["a", 1],
        2**70,
        "\ud800",
        np.datetime64("2020-01-01"),
        np.longdouble(1),
        np.zeros(1, [("a", "i4")]),
    ],
    ids=repr,
)
def test_what_no_datatype_stands_for_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidInput, match="tensor 'odd'") as caught:
        Tensors({"fine": [1], "odd": value})
    assert caught.value.tensor == "odd"


def test_foreign_byte_order_becomes_native() -> None:
    made = Tensors({"x": np.array([1, 256], ">u2")})["x"]
    assert made.dtype.isnative
    assert made.tolist() == [1, 256]


def test_subclasses_of_arrays_become_plain_arrays() -> None:
    made = Tensors({"x": np.ma.array([1.0, 2.0], mask=[True, False])})["x"]
    assert type(made) is np.ndarray


def test_rows_are_the_length_of_axis_0() -> None:
    assert Tensors({"x": np.zeros((3, 2)), "y": np.zeros((3,))}).rows == 3
    assert Tensors({"x": np.zeros((0, 2))}).rows == 0
    assert Tensors({}).rows == 0


@pytest.mark.parametrize("other", [np.zeros((2,)), np.float32(1)], ids=["other rows", "scalar"])
def test_tensors_that_do_not_share_their_rows_are_refused_by_name(other: Array) -> None:
    with pytest.raises(InvalidInput, match="'y'") as caught:
        _ = Tensors({"x": np.zeros((3,)), "y": other}).rows
    assert caught.value.tensor == "y"


def test_equality_is_of_names_datatypes_shapes_and_bits() -> None:
    one = Tensors({"x": np.array([np.nan, 0.0])})
    assert one == Tensors({"x": np.array([np.nan, 0.0])})
    assert one != Tensors({"x": np.array([np.nan, -0.0])})
    assert one != Tensors({"x": np.array([[np.nan, 0.0]])})
    assert one != Tensors({"x": np.array([np.nan, 0.0], np.float32)})
    assert one != Tensors({"y": np.array([np.nan, 0.0])})
    assert one != {"x": np.array([np.nan, 0.0])}
    assert Tensors({"x": [b"a"]}) != Tensors({"x": [b"b"]})


def test_size_on_the_wire_counts_lengths_of_bytes() -> None:
    made = Tensors({"x": np.zeros((2, 3), ml_dtypes.bfloat16), "s": [[b"abc"], [b""]]})
    assert made.nbytes == 12 + 4 + 3 + 4
    assert wire_size(made["s"]) == 11


def test_a_size_over_the_bound_names_the_largest_tensor() -> None:
    made = Tensors({"small": np.zeros(3, np.uint8), "large": np.zeros(5, np.uint8)})
    made.check_size(8, "takes")
    with pytest.raises(InvalidInput, match=r"gives 8 bytes .* at most 7 .* largest is 'large'") as caught:
        made.check_size(7, "gives")
    assert caught.value.tensor == "large"


def test_mapping_views_keep_the_order_of_the_names() -> None:
    made = Tensors({"b": [1], "a": [2]})
    assert list(made) == list(made.keys()) == ["b", "a"]
    assert [array.tolist() for array in made.values()] == [[1], [2]]
    assert [name for name, _ in made.items()] == ["b", "a"]
    assert "a" in made
    assert made.get("c") is None


@given(arrays(), st.data())
def test_pieces_put_together_are_the_whole_again(array: Array, data: st.DataObject) -> None:
    if array.ndim == 0:
        array = array.reshape(1)
    whole = Tensors({"x": array})
    cuts = sorted(data.draw(st.lists(st.integers(0, whole.rows), max_size=3)))
    bounds = [0, *cuts, whole.rows]
    parts = [whole.take(start, stop) for start, stop in itertools.pairwise(bounds)]
    joined = concatenate(parts)
    assert joined == whole
    assert not joined["x"].flags.writeable
    assert not any(part["x"].flags.writeable for part in parts)


@given(arrays())
def test_size_on_the_wire_is_that_of_the_elements(array: Array) -> None:
    made = Tensors({"x": array})
    if datatype_of(made["x"]).name == "BYTES":
        assert made.nbytes == sum(4 + len(item) for item in made["x"].ravel())
    else:
        assert made.nbytes == math.prod(array.shape) * array.dtype.itemsize


def test_tensors_survive_a_pickle_and_stay_read_only() -> None:
    made = Tensors({"x": [1.5], "s": [b"\0"]})
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert not again["x"].flags.writeable


def test_rows_of_an_answer_that_expands_are_taken_by_the_rows_they_came_from() -> None:
    answer = Tensors({"x": [10, 11, 30, 50]}, sources=[1, 1, 3, 5])
    middle = answer.take(1, 4)
    assert middle == Tensors({"x": [10, 11, 30]}, sources=[0, 0, 2])
    assert answer.take(2, 3) == Tensors({"x": np.empty(0, np.int64)}, sources=[])
    assert answer != Tensors(answer)
    assert answer != Tensors(answer, sources=[1, 1, 3, 4])
    assert pickle.loads(pickle.dumps(answer)) == answer
    for found in (answer, middle):
        assert found.sources is not None
        assert not found.sources.flags.writeable


@pytest.mark.parametrize("sources", [[1, 0], [-1, 0], [0], [0, 1, 2], [0.0, 1.0], [[0, 1]], "ab", [0, None]])
def test_sources_that_are_no_rising_list_of_row_numbers_are_refused(sources: Any) -> None:
    with pytest.raises(InvalidInput, match="sources"):
        Tensors({"x": [1, 2]}, sources=sources)
