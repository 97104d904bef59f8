"""Tensors of answers as columns.

| datatype | column of |
|---|---|
| BOOL, INT8 … UINT64, FP16, FP32, FP64 | the same |
| BF16 | float32, which holds each of its values |
| BYTES | binary |

A tensor of one value a row is that value; other dimensions become lists, of fixed size where the graph knows it, one in
another, in C order. Where not even their number is known, there is one list, and a column `NAME.shape`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from mesh.batches.arrow import Column, Type, pa
from mesh.batches.leaves import WIDTHS
from mesh.batches.shapes import fixed_sizes, is_list
from mesh.errors import NodeFailed
from mesh.signature import REST, TensorSpec
from mesh.tensors import Array, Tensors, datatype_of

__all__ = ["encoded", "output_fields"]

_LEAVES = {**WIDTHS, "BF16": pa.float32(), "BYTES": pa.binary()}


def output_fields(outputs: Mapping[str, TensorSpec]) -> list[tuple[str, Type]]:
    """Names and types of the columns that outputs make."""
    fields: list[tuple[str, Type]] = []
    for name, spec in outputs.items():
        fields.append((name, _type(spec)))
        if _open_ended(spec):
            fields.append((f"{name}.shape", pa.list_(pa.int64())))
    return fields


def encoded(outputs: Mapping[str, TensorSpec], answer: Tensors) -> list[Column]:
    """The columns of `output_fields`, of one answer.

    Raises:
        NodeFailed: A tensor is not what the graph says that it gives.
    """
    columns: list[Column] = []
    for name, spec in outputs.items():
        array = answer[name]
        if wrong := spec.mismatch(array):
            raise NodeFailed(f"output {name!r} {wrong}", tensor=name)
        kind = _type(spec)
        values = _values(array)
        if _open_ended(spec):
            shape = np.array(array.shape[1:], np.int64)
            columns.append(_lists(values, len(array), prod(array.shape[1:]), kind))
            columns.append(_lists(pa.array(np.tile(shape, len(array))), len(array), len(shape), pa.list_(pa.int64())))
        else:
            columns.append(_nested(values, array.shape, kind))
    return columns


def _open_ended(spec: TensorSpec) -> bool:
    return spec.shape[-1:] == (REST,)


def _type(spec: TensorSpec) -> Type:
    kind: Type = _LEAVES[spec.datatype]
    if _open_ended(spec):
        return pa.list_(kind)
    sizes = fixed_sizes(spec)
    if sizes is not None and prod(sizes) == 1:
        return kind
    for size in reversed(spec.shape[1:]):
        kind = pa.list_(kind, size) if isinstance(size, int) and size else pa.list_(kind)
    return kind


def _values(array: Array) -> Column:
    if array.dtype.hasobject:
        return pa.array(array.ravel().tolist(), pa.binary())
    if datatype_of(array).name == "BF16":
        array = array.astype(np.float32)
    return pa.array(array.reshape(-1))


def _nested(values: Column, shape: tuple[int, ...], kind: Type) -> Column:
    kinds: list[Type] = []
    while is_list(kind):
        kinds.append(kind)
        kind = kind.value_type
    for level in reversed(range(len(kinds))):
        values = _lists(values, prod(shape[: level + 1]), shape[level + 1], kinds[level])
    return values


def _lists(values: Column, count: int, size: int, kind: Type) -> Column:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(values, size)
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * size, pa.int32()), values)
