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
_DRAWS = 1 << 64
"""As many numbers as can be drawn."""


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


class Drawn:
    """Rows that fall into one arm of a split.

    Each row draws 64 bits, by BLAKE2b over what decides: the same content falls into the same arm in every process and
    after every start, and nobody can tell another split's arms from this one's.

    Args:
        share: The arm.
    """

    def __init__(self, share: Share) -> None:
        self._group = share.group
        # As far as whole numbers go: the end of an arm is where the next one begins.
        self._begin, self._last = int(share.begin * _DRAWS), int(share.end * _DRAWS) - 1
        first = share.by[0]
        self._parameter = first.removeprefix(PARAMETERS) if first.startswith(PARAMETERS) else ""
        self.reads: Sequence[str] = () if self._parameter else share.by
        """The edges whose content decides."""
        self._hash = blake2b(digest_size=8, person=blake2b(share.group.encode(), digest_size=16).digest())

    def __call__(self, state: State, rows: Rows) -> Rows:
        """The rows of the arm.

        Raises:
            InvalidInput: A parameter decides, and the request does not have it.
        """
        if self._parameter:
            told = state.context.parameters.get(self._parameter)
            if told is None:
                text = f"the split {self._group!r} goes by parameter {self._parameter!r}"
                raise InvalidInput(f"{text}, which the request does not have")
            drawn = self._draw(str(told).encode(errors="surrogatepass"))
            return rows if self._begin <= drawn <= self._last else rows.where(np.zeros(rows.count, np.bool_))
        numbers = self._numbers(state, rows)
        return rows.where((numbers >= self._begin) & (numbers <= self._last))

    def _numbers(self, state: State, rows: Rows) -> Array:
        """UINT64[rows]: what each row has drawn."""
        drawn = state.drawn.get(self._group)
        if drawn is not None and drawn[0] is rows:
            return drawn[1]
        parts = [_contents(state.take(edge, rows)) for edge in self.reads]
        contents = parts[0] if len(parts) == 1 else [b"".join(row) for row in zip(*parts, strict=True)]
        numbers = np.fromiter(map(self._draw, contents), np.uint64, rows.count)
        state.drawn[self._group] = rows, numbers
        return numbers

    def _draw(self, content: bytes) -> int:
        drawing = self._hash.copy()
        drawing.update(content)
        return int.from_bytes(drawing.digest(), "little")


def _contents(array: Array) -> list[bytes]:
    """By row, its elements as they stand on the wire, whatever this machine's byte order is."""
    if array.dtype.hasobject:
        # Lengths before texts, so that no two rows look alike when put together.
        rows: list[list[bytes]] = array.reshape(len(array), -1).tolist() if array.size else [[]] * len(array)
        return [b"".join([part for item in row for part in (len(item).to_bytes(4, "little"), item)]) for row in rows]
    wire = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    size = len(wire) // max(len(array), 1)
    return [wire[start : start + size] for start in range(0, len(wire), size)] if size else [b""] * len(array)
