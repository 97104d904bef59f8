"""`Signature`: the names, datatypes and shapes that a node takes and gives.

Written as text, the way one would say it:

    text: BYTES[rows, 1] -> label: INT64[rows], probabilities: FP32[rows, 2]

A dimension is a number, a name, `?` (anything), or, last, `...` (any further dimensions). A name means the same size
wherever it appears in one signature; `...` on both sides means the same dimensions. The first dimension of every
tensor is the batch and is called `rows`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.errors import InvalidInput, NodeContractError
from mesh.tensors import DATATYPES, Array, Tensors, datatype_of

__all__ = ["Dimension", "Signature", "TensorSpec"]

Dimension = int | str
"""A size, a symbol, `?` for unknown, or `...` for any further dimensions (last only)."""

ANY = "?"
REST = "..."
_NAME = re.compile(r"[A-Za-z_][\w./-]{0,127}")
_TENSOR = re.compile(r"\s*(?P<name>[^:\s]+)\s*:\s*(?P<datatype>\w+)\s*\[(?P<shape>[^\]]*)\]\s*(?:,|$)")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Datatype and shape of one tensor; axis 0 is the batch."""

    datatype: str
    shape: tuple[Dimension, ...]

    def __str__(self) -> str:
        return f"{self.datatype}[{', '.join(map(str, self.shape))}]"

    def mismatch(self, array: Array) -> str:
        """Why `array` does not fit, or the empty text when it does. Symbols are not bound here."""
        found = datatype_of(array)
        if found.name != self.datatype:
            return f"has datatype {found} where {self.datatype} is needed"
        shape, given = self.shape, array.shape
        if shape and shape[-1] == REST:
            shape = shape[:-1]
            given = given[: len(shape)] if len(given) >= len(shape) else given
        if len(given) != len(shape):
            return f"has shape {list(array.shape)} where {self} is needed"
        for size, wanted in zip(given, shape, strict=True):
            if isinstance(wanted, int) and size != wanted:
                return f"has shape {list(array.shape)} where {self} is needed"
        return ""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a node takes and gives. Compare, print and read back: `Signature.parse(str(s)) == s`."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Read the text form.

        Raises:
            NodeContractError: The text is not a signature; says where.
        """
        sides = text.split("->")
        if len(sides) != 2:
            raise NodeContractError(f"a signature has one '->': {text!r}")
        return cls(*(dict(_tensors(side, text)) for side in sides))

    def __str__(self) -> str:
        return " -> ".join(
            ", ".join(f"{name}: {spec}" for name, spec in side.items()) for side in (self.inputs, self.outputs)
        )


def _tensors(side: str, text: str) -> Iterable[tuple[str, TensorSpec]]:
    position = 0
    while side[position:].strip():
        matched = _TENSOR.match(side, position)
        if matched is None:
            raise NodeContractError(
                f"not a tensor ('name: DATATYPE[rows, ...]'): {side[position:].strip()!r} in {text!r}"
            )
        if matched["datatype"] not in DATATYPES:
            raise NodeContractError(f"{matched['datatype']} is none of {', '.join(DATATYPES)}, in {text!r}")
        if not _NAME.fullmatch(matched["name"]):
            raise NodeContractError(f"{matched['name']!r} is no tensor name, in {text!r}")
        yield matched["name"], TensorSpec(matched["datatype"], _shape(matched["shape"], text))
        position = matched.end()


def _shape(inside: str, text: str) -> tuple[Dimension, ...]:
    words = [word.strip() for word in inside.split(",")] if inside.strip() else []
    shape = tuple(int(word) if word.isdigit() else word for word in words)
    for index, size in enumerate(shape):
        last = index == len(shape) - 1
        if isinstance(size, str) and size != ANY and not (size == REST and last) and not size.isidentifier():
            raise NodeContractError(f"{size!r} is no dimension, in {text!r}")
    return shape


def check_inputs(specs: Mapping[str, TensorSpec], given: Tensors, *, node: str) -> int:
    """Hold what arrived against what is taken; returns the number of rows.

    Raises:
        InvalidInput: A tensor is missing, unknown, of another datatype or shape, or rows differ; names node and tensor.
    """
    rows = -1
    for name, spec in specs.items():
        array = given.get(name)
        if array is None:
            raise InvalidInput(f"tensor {name!r} is missing; it takes {spec}", node=node, tensor=name)
        if wrong := spec.mismatch(array):
            raise InvalidInput(f"tensor {name!r} {wrong}", node=node, tensor=name)
        if rows < 0:
            rows = array.shape[0]
        elif array.shape[0] != rows:
            raise InvalidInput(
                f"tensor {name!r} has {array.shape[0]} rows where others have {rows}", node=node, tensor=name
            )
    if len(given) != len(specs):
        unknown = next(name for name in given if name not in specs)
        raise InvalidInput(f"tensor {unknown!r} is not taken; it takes {', '.join(specs)}", node=node, tensor=unknown)
    return max(rows, 0)
