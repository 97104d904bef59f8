"""Which rows a node is run on: those that meet its condition, or those of its share of the traffic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


class Drawn:
    """Rows that fall into one arm of a split.

    Each row is given a number from 0 up to 1, by BLAKE2b over what decides: the same content falls into the same arm in
    every process and after every start, and nobody can tell another split's arms from this one's.

    Args:
        share: The arm.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        first = share.by[0]
        self._parameter = first.removeprefix(PARAMETERS) if first.startswith(PARAMETERS) else ""
        self.reads: Sequence[str] = () if self._parameter else share.by
        """The edges whose content decides."""
        group = blake2b(share.group.encode(), digest_size=16).digest()
        self._hash = blake2b(digest_size=8, person=group)

    def __call__(self, state: State, rows: Rows) -> Rows:
        """The rows of the arm.

        Raises:
            InvalidInput: A parameter decides, and the request does not have it.
        """
        if self._parameter:
            told = state.context.parameters.get(self._parameter)
            if told is None:
                text = f"the split {self._share.group!r} goes by parameter {self._parameter!r}"
                raise InvalidInput(f"{text}, which the request does not have")
            inside = self._in_arm(str(told).encode(errors="surrogatepass"))
            return rows if inside else rows.where(np.zeros(rows.count, np.bool_))
        contents = zip(*(_contents(state.take(edge, rows)) for edge in self.reads), strict=True)
        return rows.where(np.fromiter((self._in_arm(*parts) for parts in contents), np.bool_, rows.count))

    def _in_arm(self, *parts: bytes) -> bool:
        drawn = self._hash.copy()
        for part in parts:
            drawn.update(part)
        return self._share.begin <= int.from_bytes(drawn.digest(), "little") / 2**64 < self._share.end


def _contents(array: Array) -> Iterable[bytes]:
    """By row, its elements as they stand on the wire, whatever this machine's byte order is."""
    if array.dtype.hasobject:
        # Lengths before texts, so that no two rows look alike when put together.
        return (
            b"".join(len(item).to_bytes(4, "little") + item for item in row.ravel().tolist()) for row in array[:, None]
        )
    wire = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    size = len(wire) // max(len(array), 1)
    return (wire[start : start + size] for start in range(0, size * len(array), size)) if size else [b""] * len(array)
