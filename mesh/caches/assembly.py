"""Rows that were kept and rows that were computed, put together in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mesh.tensors import Array, Tensors

__all__ = ["fits", "put_together"]


def fits(one: Tensors, other: Tensors) -> bool:
    """Whether rows of both can stand in one `Tensors`: names, datatypes, row shapes alike, sources in both or none."""
    if one.keys() != other.keys() or (one.sources is None) != (other.sources is None):
        return False
    return all(
        array.dtype == other[name].dtype and array.shape[1:] == other[name].shape[1:] for name, array in one.items()
    )


def put_together(parts: Sequence[tuple[Sequence[int], Tensors]], rows: int) -> Tensors | None:
    """One answer out of several that answer some of its rows each.

    Args:
        parts: Pairs of the rows that a part answers, rising, and the part: one row for each of them, or where a part
            has sources, counted among them, any number. Together they answer each row once.
        rows: How many rows were asked for.

    Returns:
        The answer, of read-only arrays; with sources where the parts have them. None where the parts do not fit
        together: then only a node that is asked for all rows can answer.
    """
    first = parts[0][1]
    if len(parts) == 1:
        return first
    if not all(fits(first, part) for _, part in parts[1:]):
        return None
    if first.sources is not None:
        return _by_source(parts)
    places = [np.asarray(numbers, dtype=np.intp) for numbers, _ in parts]
    arrays: dict[str, Array] = {}
    for name, array in first.items():
        whole = np.empty((rows, *array.shape[1:]), dtype=array.dtype)
        for numbers, (_, part) in zip(places, parts, strict=True):
            whole[numbers] = part[name]
        arrays[name] = _read_only(whole)
    return Tensors.trusted(arrays)


def _by_source(parts: Sequence[tuple[Sequence[int], Tensors]]) -> Tensors:
    sources = np.concatenate([np.asarray(numbers, dtype=np.int64)[part.sources] for numbers, part in parts])
    order = np.argsort(sources, kind="stable")
    arrays = {name: _read_only(np.concatenate([part[name] for _, part in parts])[order]) for name in parts[0][1]}
    return Tensors.trusted(arrays, _read_only(sources[order]))


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array
