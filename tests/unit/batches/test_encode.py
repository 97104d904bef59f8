from __future__ import annotations

import io
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.batches.arrow import pa
from mesh.batches.arrow import parquet as pq
from mesh.batches.encode import encoded, output_fields
from mesh.errors import NodeFailed
from mesh.signature import TensorSpec
from mesh.tensors import DATATYPES, Array, Tensors

ROWS = 3


def written(spec: TensorSpec, array: Array) -> Any:
    """What is read of a file that a tensor was written to."""
    columns = encoded({"y": spec}, Tensors({"y": array}))
    schema = pa.schema(output_fields({"y": spec}))
    file = io.BytesIO()
    pq.write_table(pa.Table.from_batches([pa.RecordBatch.from_arrays(columns, schema=schema)]), file)
    return pq.read_table(file)


def made(datatype: str, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    if datatype == "BYTES":
        array = np.empty(count, object)
        array[:] = [b"\xff%d" % number for number in range(count)]
        return array.reshape(shape)
    return (
        (np.arange(count) % 2 if datatype == "BOOL" else np.arange(count))
        .astype(DATATYPES[datatype].dtype)
        .reshape(shape)
    )


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(DATATYPES)),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=3),
    st.booleans(),
)
def test_every_datatype_in_every_shape_comes_back_as_it_was(
    datatype: str, sizes: list[tuple[int, bool]], rest: bool
) -> None:
    shape = (ROWS, *(size for size, _ in sizes))
    known: tuple[int | str, ...] = tuple(size if told else "?" for size, told in sizes)
    spec = TensorSpec(datatype, ("rows", *(("...",) if rest else known)))
    array = made(datatype, shape)
    table = written(spec, array)
    values: list[Any] = table.column("y").to_pylist()
    if rest:
        shapes = table.column("y.shape").to_pylist()
        again = [np.array(one, object).reshape(size).tolist() for one, size in zip(values, shapes, strict=True)]
        assert again == array.tolist()
    else:
        single = all(isinstance(size, int) for size in known) and np.prod(shape[1:]) == 1
        assert values == (array.reshape(ROWS).tolist() if single else array.tolist())


def test_what_is_of_one_value_a_row_is_that_value_and_the_others_are_lists_of_fixed_size() -> None:
    fields = dict(
        output_fields(
            {
                "a": TensorSpec("INT64", ("rows", 1)),
                "b": TensorSpec("FP32", ("rows", 10)),
                "c": TensorSpec("BF16", ("rows", "n", 2)),
                "d": TensorSpec("BYTES", ("rows",)),
            }
        )
    )
    assert fields == {
        "a": pa.int64(),
        "b": pa.list_(pa.float32(), 10),
        "c": pa.list_(pa.list_(pa.float32(), 2)),
        "d": pa.binary(),
    }


def test_bf16_is_written_as_it_is_and_nothing_is_lost() -> None:
    array = np.array([1.5, float("inf"), -0.0078125], ml_dtypes.bfloat16)
    assert written(TensorSpec("BF16", ("rows",)), array).column("y").to_pylist() == [1.5, float("inf"), -0.0078125]


@pytest.mark.parametrize("array", [np.zeros((3, 2), np.float32), np.zeros(3, np.int32)])
def test_a_tensor_that_is_not_what_the_graph_gives_is_its_nodes_failure(array: Array) -> None:
    with pytest.raises(NodeFailed, match="output 'y' has"):
        encoded({"y": TensorSpec("FP32", ("rows",))}, Tensors({"y": array}))
