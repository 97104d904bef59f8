"""What stands in a row that nobody answered: a value that the file gives, or the zero of the datatype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mesh import DATATYPES, Array, InvalidInput, NodeContractError, NodeFailed, Tensors, TensorSpec
from nodes.aggregate.agreement import FLOATS

__all__ = ["blank", "fill", "fill_values", "known_sizes"]


def blank(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros, False, or empty BYTES."""
    return np.full(shape, b"", object) if dtype.hasobject else np.zeros(shape, dtype)


def fill_values(
    given: Mapping[str, Any], specs: Mapping[str, TensorSpec], option: str, *, every: bool = True
) -> dict[str, Array]:
    """The values of an option such as `default`, each for one row of its tensor.

    Args:
        given: Tensor -> a value for every element, or one row: a list of the row's shape. Texts become BYTES.
        specs: The tensors that there are.
        option: What to call the option in errors.
        every: Whether each of them needs a value.

    Raises:
        NodeContractError: A tensor has no value, a value has no tensor, or it fits neither datatype nor shape.
    """
    for name in given:
        if name not in specs:
            raise NodeContractError(f"{option} has a value for {name!r}; there is: {', '.join(specs)}")
    for name, spec in specs.items():
        if every and name not in given:
            raise NodeContractError(f"{option} has no value for tensor {name!r}, {spec}")
    return {name: _row(value, specs[name], f"{option} of tensor {name!r}") for name, value in given.items()}


def _row(value: Any, spec: TensorSpec, what: str) -> Array:
    try:
        found = Tensors({"value": value})["value"]
    except InvalidInput as error:
        raise NodeContractError(f"{what} is {value!r}, which is no {spec.datatype}: {error.text}") from None
    if not _holds(spec.datatype, found):
        raise NodeContractError(f"{what} is {value!r}, which is no {spec.datatype}")
    row = found.astype(DATATYPES[spec.datatype].dtype)
    sizes = spec.shape[1:-1] if spec.shape[-1] == "..." else spec.shape[1:]
    fits = len(row.shape) == len(sizes) or (spec.shape[-1] == "..." and len(row.shape) > len(sizes))
    fits = fits and all(not isinstance(size, int) or size == own for size, own in zip(sizes, row.shape, strict=False))
    if row.ndim and not fits:
        raise NodeContractError(f"{what} has shape {list(row.shape)}, and a row of it is {spec}")
    return row


def _holds(datatype: str, found: Array) -> bool:
    """Whether numbers or texts of a file are of a datatype, without a loss."""
    if datatype in ("BOOL", "BYTES"):
        return found.dtype == DATATYPES[datatype].dtype
    if found.dtype.kind not in "iuf":
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        converted = found.astype(DATATYPES[datatype].dtype)
    if datatype in FLOATS:
        return bool((np.isfinite(converted) == np.isfinite(found)).all())
    return found.dtype.kind in "iu" and converted.tolist() == found.tolist()


def fill(out: Array, where: Any, row: Array, name: str) -> None:
    """Write one row's values into the rows of `out` that an index or a mask tells.

    Raises:
        NodeFailed: They are of another shape than the rows that came.
    """
    if row.ndim and row.shape != out.shape[1:]:
        text = f"has a default of shape {list(row.shape)} for tensor {name!r}, whose rows are {list(out.shape[1:])}"
        raise NodeFailed(text, tensor=name)
    out[where] = row


def known_sizes(spec: TensorSpec, row: Array | None) -> tuple[int, ...] | None:
    """The shape of one row where a type, or else a default, tells all of it."""
    sizes = tuple(size for size in spec.shape[1:] if isinstance(size, int))
    if len(sizes) == len(spec.shape) - 1:
        return sizes
    return row.shape if row is not None and row.ndim else None
