"""`Sort`: what a part of an expression gives, as far as it is known before a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesh.signature import ANY, REST, Dimension, TensorSpec
from mesh.tensors import DATATYPES

__all__ = ["NUMBER", "ONE_A_ROW", "Kind", "Sort", "Tail", "agreed", "is_size", "kind_of", "sort_of", "without_rows"]

Kind = Literal["BOOL", "number", "text"]
"""What can be compared with what."""
Tail = tuple[Dimension, ...]
"""The dimensions behind the rows: sizes, names of sizes that are not known, and last perhaps of further dimensions."""

NUMBER = "number"
"""The datatype of a number without rows: that of whatever it meets."""
ONE_A_ROW: Tail = ()

_TOLD = {"BOOL": "a BOOL", "BYTES": "a text", NUMBER: "a number"}


@dataclass(frozen=True, slots=True)
class Sort:
    """A datatype, and what stands behind the rows."""

    datatype: str
    tail: Tail | None
    """None where there are no rows: literals, parameters, and what is made of these alone."""

    @property
    def kind(self) -> Kind:
        """BOOL, number or text."""
        return kind_of(self.datatype)

    @property
    def is_one_a_row(self) -> bool:
        """Whether there is one value a row, however many dimensions of size 1 say so."""
        return self.tail is not None and all(size == 1 for size in self.tail)

    def __str__(self) -> str:
        if self.tail is None:
            return _TOLD[self.datatype]
        sizes = (size if is_size(size) else _name(str(size)) for size in self.tail)
        return str(TensorSpec(self.datatype, ("rows", *sizes)))


def _name(size: str) -> str:
    return ANY if size.startswith(ANY) else REST if size.startswith(REST) else size


def is_size(size: Dimension) -> bool:
    """Whether a size is known."""
    return isinstance(size, int)


def kind_of(datatype: str) -> Kind:
    """The kind of a datatype."""
    return "BOOL" if datatype == "BOOL" else "text" if datatype == "BYTES" else "number"


def sort_of(edge: str, spec: TensorSpec) -> Sort:
    """What an edge gives. FP16 and BF16 count as FP32; a size that is not known is called after its edge."""
    datatype = "FP32" if spec.datatype in ("FP16", "BF16") else DATATYPES[spec.datatype].name
    tail = [
        f"{size}{edge}.{axis}" if isinstance(size, str) and size in (ANY, REST) else size
        for axis, size in enumerate(spec.shape[1:])
    ]
    return Sort(datatype, tuple(tail))


def without_rows(kind: Kind) -> Sort:
    """What a literal or parameter gives."""
    return Sort({"BOOL": "BOOL", "text": "BYTES", "number": NUMBER}[kind], None)


def agreed(left: Tail, right: Tail) -> Tail | None:
    """What two operands, met element by element, give; None where they cannot meet.

    One value a row meets any number of them. Sizes that are not known may be equal: a request shows whether they are.
    """
    if ONE_A_ROW in (left, right) or left == right:
        return left or right
    for one, other in ((left, right), (right, left)):
        if str(one[-1]).startswith(REST):
            return other
    if len(left) != len(right):
        return None
    sizes: list[Dimension] = []
    for one, other in zip(left, right, strict=True):
        if is_size(one) and is_size(other) and one != other:
            return None
        sizes.append(other if is_size(other) else one)
    return tuple(sizes)
