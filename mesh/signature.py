"""`Signature`: the names, datatypes and shapes that a node takes and gives.

Written as text, the way one would say it:

    text: BYTES[rows, 1] -> label: INT64[rows], probabilities: FP32[rows, 2]

A dimension is a number, a name, `?` (anything), or, last, `...` (any further dimensions). A name means the same size
wherever it appears in one signature, and `...` the same dimensions. The first dimension of every tensor is the batch
and is called `rows`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.errors import InvalidInput, NodeContractError
from mesh.tensors import DATATYPES, Array, Tensors, datatype_of

__all__ = ["ANY", "REST", "Dimension", "Fit", "InputCheck", "Signature", "TensorSpec"]

Dimension = int | str
"""A size, a symbol, `?` for unknown, or `...` for any further dimensions (last only)."""

ANY = "?"
REST = "..."
_NAME = re.compile(r"[A-Za-z_][\w./-]{0,127}")
_NUMBER = re.compile(r"[0-9]{1,18}")
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
        return cls(*(_side(side, text) for side in sides))

    def __str__(self) -> str:
        return " -> ".join(
            ", ".join(f"{name}: {spec}" for name, spec in side.items()) for side in (self.inputs, self.outputs)
        )


def _side(side: str, text: str) -> dict[str, TensorSpec]:
    if side.rstrip().endswith(","):
        raise NodeContractError(f"a ',' with no tensor after it, in {text!r}")
    specs: dict[str, TensorSpec] = {}
    for name, spec in _tensors(side, text):
        if name in specs:
            raise NodeContractError(f"tensor {name!r} comes twice, in {text!r}")
        specs[name] = spec
    return specs


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
    shape = tuple(int(word) if _NUMBER.fullmatch(word) else word for word in words)
    for index, size in enumerate(shape):
        last = index == len(shape) - 1
        if isinstance(size, str) and size != ANY and not (size == REST and last) and not size.isidentifier():
            raise NodeContractError(f"{size!r} is no dimension (a number, a name, ?, or ... at the end), in {text!r}")
    return shape


class Fit:
    """A spec in the form in which many arrays are held against it, most of which fit.

    Args:
        spec: The spec.
    """

    __slots__ = ("_axes", "_dtype", "_sizes", "spec")

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        """The spec."""
        self._dtype = DATATYPES[spec.datatype].dtype
        self._axes = len(spec.shape)
        # One comparison tells, where nothing but the number of rows is open.
        first, sizes = spec.shape[:1], spec.shape[1:]
        known = first not in ((), (REST,)) and not isinstance(first[0], int)
        self._sizes = sizes if known and all(isinstance(size, int) for size in sizes) else None

    def mismatch(self, array: Array) -> str:
        """As `TensorSpec.mismatch`."""
        if array.dtype is self._dtype and array.ndim == self._axes and array.shape[1:] == self._sizes:
            return ""
        return self.spec.mismatch(array)


class InputCheck:
    """Holds what arrived against what is taken. Made once a node, called once a request.

    Args:
        specs: What is taken.
        node: Whose inputs they are; empty for a graph's own.
    """

    def __init__(self, specs: Mapping[str, TensorSpec], *, node: str) -> None:
        self._specs = dict(specs)
        self._fits = [(name, Fit(spec)) for name, spec in specs.items()]
        self._node = node
        places: dict[str, list[tuple[str, int]]] = {}
        for name, spec in specs.items():
            for axis, size in enumerate(spec.shape):
                if isinstance(size, str) and size not in (ANY, REST):
                    places.setdefault(size, []).append((name, axis))
        self._shared = {symbol: found for symbol, found in places.items() if len(found) > 1}
        open_ended = [(name, len(spec.shape) - 1) for name, spec in specs.items() if spec.shape[-1:] == (REST,)]
        self._rests = open_ended if len(open_ended) > 1 else []

    def __call__(self, given: Tensors) -> None:
        """Pass, or say what does not fit.

        Raises:
            InvalidInput: A tensor is missing, unknown, of another datatype or shape, or two tensors differ in a size
                that they share, such as their rows; names node and tensor.
        """
        for name, fit in self._fits:
            array = given.get(name)
            if array is None:
                raise self._wrong(name, f"is missing; it takes {fit.spec}")
            if wrong := fit.mismatch(array):
                raise self._wrong(name, wrong)
        if len(given) != len(self._specs):
            unknown = next(name for name in given if name not in self._specs)
            raise self._wrong(unknown, f"is not taken; there is: {', '.join(self._specs) or 'none'}")
        for symbol, places in self._shared.items():
            first, axis = places[0]
            size = given[first].shape[axis]
            for name, other in places[1:]:
                if given[name].shape[other] != size:
                    found = given[name].shape[other]
                    raise self._wrong(name, f"has {found} {symbol} where {first!r} has {size}")
        for name, axis in self._rests[1:]:
            first, start = self._rests[0]
            rest, found = given[first].shape[start:], given[name].shape[axis:]
            if found != rest:
                raise self._wrong(name, f"has further dimensions {list(found)} where {first!r} has {list(rest)}")

    def _wrong(self, tensor: str, text: str) -> InvalidInput:
        return InvalidInput(f"tensor {tensor!r} {text}", node=self._node, tensor=tensor)
