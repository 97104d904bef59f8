"""Which rows a node is run on: those that meet its condition, or those of its share of the traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import numpy as np

from mesh.errors import InvalidInput
from mesh.runtime.rows import Rows
from mesh.runtime.state import State
from mesh.signature import TensorSpec
from mesh.tensors import Array
from mesh.topology.expressions import Condition, parse, typed
from mesh.topology.graph import Share

__all__ = ["Drawn", "When"]

PARAMETERS = "parameters."


@dataclass(frozen=True, slots=True)
class When:
    """Rows that meet a condition."""

    condition: Condition
    reads: Sequence[str]

    @classmethod
    def of(cls, text: str, reads: Sequence[str], specs: Mapping[str, TensorSpec]) -> Self:
        """The condition that a checked graph has at a node."""
        return cls(typed(parse(text), specs), reads)

    def __call__(self, state: State, rows: Rows) -> Rows:
        """The rows for which it holds."""
        tensors = {edge: state.take(edge, rows) for edge in self.reads}
        return rows.where(self.condition(tensors, state.context.parameters, rows.count))


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows that fall into one arm of a split.

    Each row is given a number from 0 up to 1, by BLAKE2b over what decides: the same content falls into the same arm in
    every process and after every start, and nobody can tell another split's arms from this one's.
    """

    share: Share

    @property
    def reads(self) -> Sequence[str]:
        """The edges whose content decides."""
        return () if self._parameter else self.share.by

    @property
    def _parameter(self) -> str:
        first = self.share.by[0]
        return first.removeprefix(PARAMETERS) if first.startswith(PARAMETERS) else ""

    def __call__(self, state: State, rows: Rows) -> Rows:
        """The rows of the arm."""
        if self._parameter:
            return rows if self._in_arm(self._told(state)) else rows.where(np.zeros(rows.count, np.bool_))
        arrays = [state.take(edge, rows) for edge in self.share.by]
        arms = (self._in_arm(b"".join(_content(array[row]) for array in arrays)) for row in range(rows.count))
        return rows.where(np.fromiter(arms, np.bool_, rows.count))

    def _told(self, state: State) -> bytes:
        value = state.context.parameters.get(self._parameter)
        if value is None:
            text = (
                f"the split {self.share.group!r} goes by parameter {self._parameter!r}, which the request does not have"
            )
            raise InvalidInput(text)
        return str(value).encode()

    def _in_arm(self, content: bytes) -> bool:
        drawn = int.from_bytes(blake2b(content, digest_size=8, person=_person(self.share.group)).digest(), "little")
        return self.share.begin <= drawn / 2**64 < self.share.end


def _person(group: str) -> bytes:
    return blake2b(group.encode(), digest_size=16).digest()


def _content(cell: Array | bytes) -> bytes:
    """One row's elements; lengths before texts, so that no two rows look alike when put together."""
    if isinstance(cell, bytes):
        return len(cell).to_bytes(4, "little") + cell
    if cell.dtype.hasobject:
        return b"".join(len(item).to_bytes(4, "little") + item for item in cell.ravel().tolist())
    return np.ascontiguousarray(cell).tobytes()
