"""Values of a column, without lists around them, as an array of a datatype.

| a column of | feeds |
|---|---|
| whole numbers, numbers with fractions, decimals | floats, rounded; whole numbers, where each value is one and fits |
| true and false | BOOL |
| text, binary | BYTES |
| text of a CSV file | anything, as far as it can be read as that |

Raises, everywhere: Misfit where some value is not what is needed.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from mesh.batches.arrow import Column, compute, pa
from mesh.tensors import DATATYPES, Array

__all__ = ["WIDTHS", "Misfit", "leaves", "shown"]

_SHOWN = 40
WIDTHS = {
    "BOOL": pa.bool_(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP16": pa.float16(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
}
"""Datatype -> what Arrow has for it, where it has it."""


class Misfit(Exception):
    """A value is not what a tensor takes; the text says how."""


def shown(value: object) -> str:
    """A value in a message: short, and in one line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def leaves(column: Column, datatype: str) -> Array:
    """All values, one after another."""
    if column.null_count:
        raise Misfit("is null, or holds a null")
    if datatype == "BYTES":
        return _bytes(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _from_text(column, datatype)
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        return _floats(column, datatype)
    wanted = WIDTHS[datatype]
    if column.type != wanted:
        column = _cast(column, wanted, datatype)
    return column.to_numpy(zero_copy_only=False)


def _bytes(column: Column) -> Array:
    if not pa.types.is_fixed_size_binary(column.type):
        column = compute.cast(column, pa.large_binary())
    found = np.empty(len(column), np.object_)
    found[:] = column.to_pylist()
    return found


def _from_text(column: Column, datatype: str) -> Array:
    # Whatever has no type of its own there is read as the next wider one that has.
    wider = pa.float32() if datatype in ("FP16", "BF16") else WIDTHS[datatype]
    try:
        read = compute.cast(column, wider)
    except ValueError:
        read = _cast(compute.utf8_trim_whitespace(column), wider, datatype)
    return leaves(read, datatype)


def _floats(column: Column, datatype: str) -> Array:
    if pa.types.is_decimal(column.type):
        column = compute.cast(column, pa.float64())
    given: Array = column.to_numpy(zero_copy_only=False)
    dtype: np.dtype[Any] = DATATYPES[datatype].dtype
    if given.dtype == dtype:
        return given
    with np.errstate(over="ignore"):
        made = given.astype(np.float32).astype(dtype) if dtype == ml_dtypes.bfloat16 else given.astype(dtype)
    infinite = np.isinf(made.astype(np.float32, copy=False) if dtype == ml_dtypes.bfloat16 else made)
    if infinite.any() and bool((infinite & ~np.isinf(given.astype(np.float64, copy=False))).any()):
        place = int(np.flatnonzero(infinite & ~np.isinf(given.astype(np.float64, copy=False)))[0])
        raise Misfit(f"holds {shown(given[place].item())}, which is too large for {datatype}")
    return made


def _cast(column: Column, wanted: Any, datatype: str) -> Column:
    try:
        return compute.cast(column, wanted)
    except (ValueError, NotImplementedError):
        example = column[0].as_py() if len(column) == 1 else ""
        raise Misfit(f"holds {shown(example)} where {datatype} is needed") from None
