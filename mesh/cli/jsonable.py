"""Tensors as JSON, and back: what `mesh call --json` prints can be given to `--input`."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from mesh.tensors import DATATYPES, Array, Tensors, datatype_of

__all__ = ["array_of_json", "json_of_array", "json_of_tensors"]


def json_of_array(array: Array) -> Any:
    """Nested lists; BYTES as text where they are UTF-8, else as `{"base64": ...}`.

    Numbers have as few digits as tell them from their neighbours in their own precision.
    """
    if array.dtype.hasobject:
        return _nested([_text(item) for item in array.ravel().tolist()], array.shape)
    if array.dtype.kind in "biu" or array.dtype == np.float64:
        return array.tolist()
    if array.dtype.kind != "f":
        array = array.astype(np.float32)  # BF16, whose digits numpy does not know
    return array.astype(str).astype(np.float64).tolist()


def json_of_tensors(tensors: Tensors) -> dict[str, Any]:
    """Datatype, shape and data of each."""
    return {
        name: {"datatype": datatype_of(array).name, "shape": list(array.shape), "data": json_of_array(array)}
        for name, array in tensors.items()
    }


def array_of_json(value: Any, datatype: str) -> Array:
    """The array that nested lists stand for; a single value is one row.

    Args:
        value: As `json_of_array` gives it; for BYTES also `bytes` in place of text.
        datatype: Its name in the Open Inference Protocol.

    Raises:
        ValueError: Some value is not of that datatype, or the lists are of different lengths.
    """
    if not isinstance(value, list):
        value = [value]
    if datatype == "BYTES":
        flat: list[bytes] = []
        shape = _flatten(value, flat)
        array = np.empty(len(flat), dtype=object)
        array[:] = flat
        return array.reshape(shape)
    kinds = {type(item) for item in np.array(value, dtype=object).ravel().tolist()}
    if list in kinds:
        raise ValueError("lists of different lengths")
    if kinds - _KINDS.get(datatype, {int, float}):
        raise ValueError(f"{_shortened(value)} is not {datatype}")
    try:
        with np.errstate(over="raise"):
            made: Array = np.asarray(value, dtype=DATATYPES[datatype].dtype)
    except (OverflowError, FloatingPointError):
        raise ValueError(f"some number is beyond what {datatype} holds") from None
    return made


_KINDS: dict[str, set[type]] = {"BOOL": {bool}, **{name: {int} for name in DATATYPES if "INT" in name}}
"""What JSON may have where a datatype is needed: no fraction is cut off in silence."""


def _text(item: bytes) -> Any:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(item).decode()}


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = len(flat) // shape[0] if shape[0] else 0
    return [_nested(flat[row * step : (row + 1) * step], shape[1:]) for row in range(shape[0])]


def _flatten(value: Any, into: list[bytes]) -> tuple[int, ...]:
    """Put the elements of nested lists into one; returns the shape."""
    if not isinstance(value, list):
        into.append(_bytes(value))
        return ()
    shapes = {_flatten(item, into) for item in value}
    if len(shapes) > 1:
        raise ValueError("lists of different lengths")
    return (len(value), *(shapes.pop() if shapes else ()))


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from None
    raise ValueError(f'{_shortened(value)} is not BYTES: write text, or {{"base64": "..."}}')


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
