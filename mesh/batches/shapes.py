"""Shapes of rows: what lists in a column make of what a tensor takes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from mesh.batches.arrow import Type, pa
from mesh.batches.leaves import Misfit
from mesh.signature import REST, TensorSpec

__all__ = ["Sizes", "depth_of", "fixed_sizes", "is_list", "resolved", "shape_of", "uniform_shape"]

Sizes = tuple[int, ...]
"""Sizes past the rows."""


def fixed_sizes(spec: TensorSpec) -> Sizes | None:
    """The sizes past the rows, where all are known."""
    sizes = spec.shape[1:]
    known = tuple(size for size in sizes if isinstance(size, int))
    return known if len(known) == len(sizes) else None


def is_list(kind: Type) -> bool:
    """Whether a type is a list of any sort."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def depth_of(kind: Type) -> int:
    """How many levels of lists there are."""
    depth = 0
    while is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth


def uniform_shape(kind: Type) -> Sizes | None:
    """The shape that every row of a type has, where the type says so."""
    sizes: list[int] = []
    while pa.types.is_fixed_size_list(kind):
        sizes.append(kind.list_size)
        kind = kind.value_type
    return None if is_list(kind) else tuple(sizes)


def shape_of(value: object, depth: int) -> Sizes:
    """The sizes of lists in lists. Raises Misfit where they differ among themselves."""
    if depth == 0:
        return ()
    if not isinstance(value, list):
        raise Misfit("is null, or holds a null")
    inner: set[Sizes] = {shape_of(one, depth - 1) for one in value} if depth > 1 else set()
    if len(inner) > 1:
        raise Misfit("holds lists of several lengths side by side")
    return (len(value), *(inner.pop() if inner else (0,) * (depth - 1)))


def resolved(spec: TensorSpec, found: Sizes) -> Sizes:
    """The shape past the rows that is made of a row of some shape.

    As many levels of lists as there are dimensions are taken as they are. One list, or one value, is taken for all
    dimensions together, in C order, where at most one of them is not known.

    Raises:
        Misfit: They do not fit.
    """
    sizes = spec.shape[1:]
    if sizes[-1:] == (REST,):
        return _matching(spec, sizes[:-1], found[: len(sizes) - 1]) + found[len(sizes) - 1 :]
    if len(sizes) == len(found):
        return _matching(spec, sizes, found)
    count, unknown = prod(found), sum(not isinstance(size, int) for size in sizes)
    known = prod(size for size in sizes if isinstance(size, int))
    if (
        len(found) <= 1
        and (unknown <= 1 or count == 1)
        and (count == known or (unknown and known and not count % known))
    ):
        return tuple(size if isinstance(size, int) else count // known if unknown == 1 else 1 for size in sizes)
    raise Misfit(f"has shape {list(found)} where {spec} is needed")


def _matching(spec: TensorSpec, sizes: Sequence[int | str], found: Sizes) -> Sizes:
    same = len(sizes) == len(found) and all(
        size == one for size, one in zip(sizes, found, strict=True) if isinstance(size, int)
    )
    if not same:
        raise Misfit(f"has shape {list(found)} where {spec} is needed")
    return found
