"""`Rows`: which rows a node's tensors have, where a graph does not run every node on every row.

A condition thins rows and a node that expands makes more of them. Each row is known by numbers: its row in the request,
then, for each expansion that it came through, its number among the rows that the expansion made. The last number says
which row it is; the ones before it say where it came from. Rows always stand in the order of their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mesh.tensors import Array

__all__ = ["Rows", "intersection", "positions"]


@dataclass(slots=True, eq=False)
class Rows:
    """Some rows, or all of the request's. Never changed, and not frozen, which would make each three times as dear."""

    count: int
    levels: tuple[Array, ...] = ()
    """INT64[count] each: the rows' numbers, outermost first. Empty for every row of the request."""

    @property
    def numbers(self) -> Array:
        """What each row is known by among its like."""
        return self.levels[-1] if self.levels else np.arange(self.count)

    def where(self, holds: Array) -> Rows:
        """The rows for which `holds`, BOOL[count], is true."""
        if holds.all():
            return self
        levels = self.levels or (np.arange(self.count),)
        kept = tuple(level[holds] for level in levels)
        return Rows(len(kept[0]), kept)

    def expanded(self, sources: Array) -> Rows:
        """The rows that an expansion made of these: for each one the position here of the row it came from."""
        levels = self.levels or (np.arange(self.count),)
        return Rows(len(sources), (*(level[sources] for level in levels), np.arange(len(sources))))

    def origins(self, outer: Rows) -> Array:
        """For each row, the position in `outer` of the row that it was expanded from."""
        origins = self.levels[-2]
        return origins if not outer.levels else np.searchsorted(outer.levels[-1], origins)


def positions(inner: Rows, outer: Rows) -> Array | None:
    """Where the rows of `inner`, each of which is in `outer`, stand there; None where they are the same."""
    if inner is outer or inner.count == outer.count:
        return None
    return inner.levels[-1] if not outer.levels else np.searchsorted(outer.levels[-1], inner.levels[-1])


def intersection(one: Rows, other: Rows) -> Rows:
    """The rows that are in both."""
    if one is other or not other.levels:
        return one
    if not one.levels:
        return other
    return one.where(np.isin(one.levels[-1], other.levels[-1], assume_unique=True))
