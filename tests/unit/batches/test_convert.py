from __future__ import annotations

from decimal import Decimal
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.batches.arrow import pa
from mesh.batches.columns import Feed
from mesh.batches.convert import Conversion, Converted
from mesh.batches.inputs import RowsRead
from mesh.errors import InvalidInput
from mesh.signature import Signature
from mesh.tensors import DATATYPES, Tensors
from tests.unit.batches.given import lists


def convert(takes: str, feeds: dict[str, str], **columns: Any) -> Converted:
    specs = Signature.parse(f"{takes} -> y: FP32[rows]").inputs
    conversion = Conversion(
        [Feed(tensor=name, spec=specs[name], columns=tuple(feed.split(","))) for name, feed in feeds.items()]
    )
    table = pa.RecordBatch.from_pydict(columns)
    found = conversion(RowsRead(0, table))
    told = sorted([*found.failed, *(place for places, _ in found.groups for place in places.tolist())])
    assert told == list(range(table.num_rows))
    return found


def whole(found: Converted) -> Tensors:
    assert not found.failed
    ((_, tensors),) = found.groups
    return tensors


def one(datatype: str, column: Any, shape: str = "") -> Converted:
    return convert(f"x: {datatype}[rows{shape}]", {"x": "c"}, c=column)


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in ("BYTES", "BF16", "BOOL")])
def test_numbers_of_every_width_feed_every_datatype_that_holds_them(datatype: str) -> None:
    dtype = DATATYPES[datatype].dtype
    for kind in (pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(5, 1)):
        source = [Decimal(value) for value in (0, 1, 100)] if pa.types.is_decimal(kind) else [0, 1, 100]
        if pa.types.is_float16(kind):
            source = [np.float16(value) for value in source]
        assert whole(one(datatype, pa.array(source, kind)))["x"].tolist() == np.array([0, 1, 100], dtype).tolist()


def test_what_has_the_bits_already_is_handed_over_and_not_copied() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.shares_memory(whole(one("FP32", lists(array), ", 4"))["x"], array)


def test_bf16_is_rounded_and_bool_and_bytes_are_what_they_are() -> None:
    assert whole(one("BF16", [1.0, 3.14159]))["x"].tolist() == [ml_dtypes.bfloat16(1), ml_dtypes.bfloat16(3.14159)]
    assert whole(one("BOOL", [True, False]))["x"].tolist() == [True, False]
    for column in (
        ["ä", ""],
        [b"\xc3\xa4", b""],
        pa.array(["ä", ""]).dictionary_encode(),
        pa.array(["ä", ""], pa.string_view()),
    ):
        assert whole(one("BYTES", column))["x"].tolist() == ["ä".encode(), b""]
    assert whole(one("BYTES", pa.array([b"ab", b"cd"], pa.binary(2)), ", 1"))["x"].tolist() == [[b"ab"], [b"cd"]]


@pytest.mark.parametrize(
    ("datatype", "column", "text"),
    [
        ("INT8", [1, 200, 3], "column 'c' holds 200 where INT8 is needed"),
        ("UINT8", [1, -1, 3], "column 'c' holds -1 where UINT8 is needed"),
        ("INT64", [1.0, 1.5, 3.0], "column 'c' holds 1.5 where INT64 is needed"),
        ("INT64", [1.0, float("nan"), 3.0], "column 'c' holds nan where INT64 is needed"),
        ("FP32", [1.0, 1e300, float("inf")], "column 'c' holds 1e+300, which is too large for FP32"),
        ("FP16", [1, 100_000, 3], "column 'c' holds 100000, which is too large for FP16"),
        ("BF16", [1.0, 1e300, float("nan")], "column 'c' holds 1e+300, which is too large for BF16"),
        ("FP32", [1.0, None, 3.0], "column 'c' is null"),
        ("BYTES", ["a", None, "c"], "column 'c' is null"),
        ("FP32", ["1", "one", " 3"], "column 'c' holds 'one' where FP32 is needed"),
        ("INT32", ["1", "1.5", "3 "], "column 'c' holds '1.5' where INT32 is needed"),
        ("BOOL", ["true", "maybe", "0"], "column 'c' holds 'maybe' where BOOL is needed"),
        ("FP32", ["1", "", "3"], "column 'c' holds '' where FP32 is needed"),
    ],
)
def test_a_value_that_does_not_fit_fails_its_row_alone(datatype: str, column: list[Any], text: str) -> None:
    found = one(datatype, column)
    assert found.failed == {1: InvalidInput(text, tensor="x")}
    ((places, tensors),) = found.groups
    assert places.tolist() == [0, 2]
    assert tensors.rows == 2


def test_rows_whose_lists_are_too_short_too_long_null_or_hold_nulls_fail_alone() -> None:
    column = [[1.0, 2.0], [1.0], [1.0, 2.0, 3.0], None, [1.0, None], [], [3.0, 4.0]]
    found = one("FP32", column, ", 2")
    assert {place: error.text for place, error in found.failed.items()} == {
        1: "column 'c' holds 1 values where 2 are needed",
        2: "column 'c' holds 3 values where 2 are needed",
        3: "column 'c' is null",
        4: "column 'c' is null, or holds a null",
        5: "column 'c' holds 0 values where 2 are needed",
    }
    ((places, tensors),) = found.groups
    assert (places.tolist(), tensors["x"].tolist()) == ([0, 6], [[1, 2], [3, 4]])


def test_lists_of_lists_are_taken_as_they_are_and_those_that_are_ragged_fail() -> None:
    column = [[[1, 2], [3, 4]], [[1, 2], [3]], [[1, 2, 3, 4]], [[5, 6], [7, 8]]]
    found = one("FP32", column, ", 2, 2")
    assert set(found.failed) == {1, 2}
    assert found.groups[0][1]["x"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


def test_rows_of_several_shapes_make_a_request_each_where_the_graph_takes_any() -> None:
    column = [[1.0], [1.0, 2.0], [3.0], [], None, [4.0, 5.0]]
    found = one("FP32", column, ", ?")
    assert {place: error.text for place, error in found.failed.items()} == {4: "column 'c' is null"}
    assert [(places.tolist(), tensors["x"].shape) for places, tensors in found.groups] == [
        ([0, 2], (2, 1)),
        ([1, 5], (2, 2)),
        ([3], (1, 0)),
    ]


def test_any_number_of_dimensions_is_taken_where_the_graph_leaves_it_open() -> None:
    assert whole(one("FP32", [1.0, 2.0], ", ..."))["x"].shape == (2,)
    assert whole(one("FP32", [[[1.0]], [[2.0]]], ", ..."))["x"].shape == (2, 1, 1)


def test_several_tensors_are_of_the_rows_that_fit_all_of_them() -> None:
    found = convert(
        "x: FP32[rows, 2], n: INT8[rows], t: BYTES[rows, ?]",
        {"x": "a,b", "n": "n", "t": "t"},
        a=[1.0, 2.0, 3.0, None, 5.0],
        b=[1, 2, 3, 4, 5],
        n=[1, 1000, 3, 4, 5],
        t=[["a"], ["b"], ["c", "d"], ["e"], ["f"]],
    )
    assert {place: error.text for place, error in found.failed.items()} == {
        1: "column 'n' holds 1000 where INT8 is needed",
        3: "column 'a' is null",
    }
    assert [places.tolist() for places, _ in found.groups] == [[0, 4], [2]]
    assert found.groups[0][1] == Tensors(
        {
            "x": np.array([[1, 1], [5, 5]], np.float32),
            "n": np.array([1, 5], np.int8),
            "t": np.array([[b"a"], [b"f"]], object),
        }
    )


def test_rows_that_could_not_be_read_are_not_looked_at() -> None:
    specs = Signature.parse("x: FP32[rows] -> y: FP32[rows]").inputs
    failed = {1: InvalidInput("broken")}
    table = pa.RecordBatch.from_pydict({"c": pa.array([1.0, None, 3.0])})
    found = Conversion([Feed(tensor="x", spec=specs["x"], columns=("c",))])(RowsRead(0, table, dict(failed)))
    assert found.failed == failed
    assert found.groups[0][0].tolist() == [0, 2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-200, 200), st.sampled_from([1e40, 0.5, float("nan")])), max_size=40))
def test_each_row_is_either_what_numpy_makes_of_it_or_fails(column: list[float | None]) -> None:
    if not column:
        return
    found = one("INT8", pa.array(column, pa.float64()))
    fit = {place: value for place, value in enumerate(column) if value is not None and value == value}
    fit = {place: value for place, value in fit.items() if float(value).is_integer() and -128 <= value <= 127}
    assert set(found.failed) == set(range(len(column))) - set(fit)
    for places, tensors in found.groups:
        assert dict(zip(places.tolist(), tensors["x"].tolist(), strict=True)) == fit
