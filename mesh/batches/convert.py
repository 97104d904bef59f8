"""Columns to tensors, row by row where it has to be: a row that does not fit is told of, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from mesh.batches.arrow import Batch, Column, compute, pa
from mesh.batches.columns import Feed
from mesh.batches.inputs import RowsRead
from mesh.batches.leaves import Misfit, leaves
from mesh.batches.shapes import Sizes, depth_of, fixed_sizes, resolved, shape_of, uniform_shape
from mesh.errors import InvalidInput, RequestError
from mesh.tensors import Array, Tensors

__all__ = ["Conversion", "Converted"]


@dataclass(slots=True)
class Converted:
    """What became of some rows."""

    groups: list[tuple[Array, Tensors]]
    """Positions, INT64 and ascending, and the tensors that those rows make: one group for all rows, unless the shapes
    of rows differ. Rows that share a group can share a request."""
    failed: dict[int, RequestError]
    """Position -> why that row makes no tensors."""


class Conversion:
    """From columns to what a graph takes.

    Args:
        feeds: Which columns feed what.
    """

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = tuple(feeds)
        self.columns = tuple(dict.fromkeys(name for feed in feeds for name in feed.columns))
        """The columns that it reads."""

    def __call__(self, read: RowsRead) -> Converted:
        """The tensors of some rows."""
        made = Converted([], dict(read.failed))
        columns = {name: _plain(read.table.column(name)) for name in self.columns}
        for feed in self._feeds:
            for name in feed.columns:
                if columns[name].null_count:
                    _note(
                        made,
                        compute.is_null(columns[name]),
                        InvalidInput(f"column {name!r} is null", tensor=feed.tensor),
                    )
        table = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        alive = _alive(read.table.num_rows, made)
        for sizes, where in self._shapes(table, alive, made):
            self._add(table, where, sizes, made)
        made.groups.sort(key=lambda group: int(group[0][0]))
        return made

    def _shapes(self, table: Batch, alive: Array, made: Converted) -> Iterator[tuple[list[Sizes], Array]]:
        """Rows that have the same shapes, by feed, and which those are."""
        by_feed = [_row_shapes(feed, table, alive, made) for feed in self._feeds]
        alive = _alive(table.num_rows, made)
        uniform = [sizes for sizes in by_feed if isinstance(sizes, tuple)]
        if len(uniform) == len(by_feed):
            if len(alive):
                yield uniform, alive
            return
        groups: dict[tuple[Sizes, ...], list[int]] = {}
        for place in alive.tolist():
            key = tuple(sizes if isinstance(sizes, tuple) else sizes[place] for sizes in by_feed)
            groups.setdefault(key, []).append(place)
        for key, places in groups.items():
            yield list(key), np.array(places, np.int64)

    def _add(self, table: Batch, where: Array, sizes: list[Sizes], made: Converted) -> None:
        """One group, less the rows whose values do not fit."""
        part = table if len(where) == table.num_rows else table.take(pa.array(where))
        fitting: list[tuple[Array, Array]] = []
        for feed, one in zip(self._feeds, sizes, strict=True):
            found = list(_fit(feed, part, one, where, made))
            if not found:
                return
            places = found[0][0] if len(found) == 1 else np.concatenate([places for places, _ in found])
            arrays = found[0][1] if len(found) == 1 else np.concatenate([array for _, array in found])
            fitting.append((places, arrays))
        common = fitting[0][0]
        for places, _ in fitting[1:]:
            common = common if len(places) == len(common) == len(where) else np.intersect1d(common, places)
        if not len(common):
            return
        tensors = {
            feed.tensor: array if len(places) == len(common) else array[np.searchsorted(places, common)]
            for feed, (places, array) in zip(self._feeds, fitting, strict=True)
        }
        made.groups.append((common, Tensors(tensors)))


def _alive(count: int, made: Converted) -> Array:
    if not made.failed:
        return np.arange(count)
    return np.array([place for place in range(count) if place not in made.failed], np.int64)


def _note(made: Converted, wrong: Column, error: RequestError) -> None:
    for place in np.flatnonzero(wrong.to_numpy(zero_copy_only=False)).tolist():
        made.failed.setdefault(place, error)


def _plain(column: Column) -> Column:
    """The same without what only its storage knows of: extension types and dictionaries."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        column = compute.cast(column, pa.string())
    return column


# Shapes.


def _row_shapes(feed: Feed, table: Batch, alive: Array, made: Converted) -> Sizes | dict[int, Sizes]:
    """The shape past the rows: of all rows, or of each; rows that have none are noted as failed."""
    if len(feed.columns) > 1:
        return resolved(feed.spec, (len(feed.columns),))
    column = table.column(feed.first)
    known, uniform = fixed_sizes(feed.spec), uniform_shape(column.type)
    if uniform is not None:
        return known if known is not None else resolved(feed.spec, uniform)
    depth = depth_of(column.type)
    if known is not None and depth == 1:
        lengths: Array = compute.fill_null(compute.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        wanted = prod(known)
        for place in np.flatnonzero(lengths != wanted).tolist():
            text = f"column {feed.first!r} holds {int(lengths[place])} values where {wanted} are needed"
            made.failed.setdefault(place, InvalidInput(text, tensor=feed.tensor))
        return known
    if known is not None:
        return known
    shapes: dict[int, Sizes] = {}
    for place in alive.tolist():
        if place in made.failed:
            continue
        try:
            shapes[place] = resolved(feed.spec, shape_of(column[place].as_py(), depth))
        except Misfit as wrong:
            text = f"column {feed.first!r} {wrong}"
            made.failed.setdefault(place, InvalidInput(text, tensor=feed.tensor))
    return shapes


# Values.


def _fit(feed: Feed, table: Batch, sizes: Sizes, where: Array, made: Converted) -> Iterator[tuple[Array, Array]]:
    """Rows whose values fit, and their array; the others are noted as failed. Halves, until each is by itself."""
    try:
        yield where, _array(feed, table, sizes)
    except Misfit as wrong:
        if len(where) == 1:
            which = f"column {feed.first!r}" if len(feed.columns) == 1 else f"one of {feed.first!r} and its like"
            made.failed.setdefault(int(where[0]), InvalidInput(f"{which} {wrong}", tensor=feed.tensor))
            return
        half = len(where) // 2
        yield from _fit(feed, table.slice(0, half), sizes, where[:half], made)
        yield from _fit(feed, table.slice(half), sizes, where[half:], made)


def _array(feed: Feed, table: Batch, sizes: Sizes) -> Array:
    rows = table.num_rows
    if len(feed.columns) > 1:
        parts = [leaves(table.column(name), feed.spec.datatype) for name in feed.columns]
        return np.stack(parts, axis=1).reshape(rows, *sizes)
    column = table.column(feed.first)
    natural, level = depth_of(column.type) == len(sizes), 0
    while depth_of(column.type):
        if column.null_count:
            raise Misfit("is null, or holds a null")
        if not pa.types.is_fixed_size_list(column.type):
            wanted = sizes[level] if natural else prod(sizes)
            lengths = compute.list_value_length(column).to_numpy(zero_copy_only=False)
            if (lengths != wanted).any():
                raise Misfit(f"holds lists of {', '.join(map(str, np.unique(lengths)[:3]))} where {wanted} are needed")
        column, level = column.flatten(), level + 1
    array = leaves(column, feed.spec.datatype)
    if array.size != rows * prod(sizes):
        raise Misfit(f"holds {array.size // max(rows, 1)} values where {prod(sizes)} are needed")
    return array.reshape(rows, *sizes)
