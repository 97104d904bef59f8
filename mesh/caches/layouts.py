"""Layouts: where the elements of a value's tensors stand, as its head says.

| bytes of a head | content |
|---|---|
| 4 | rows of each tensor: 1, where the node did not tell sources |
| 2 | tensors |
| for each tensor 1, 1, 2 | number of its datatype (see `mesh.tensors`), its axes past the first, bytes of its name |
| | its name in UTF-8, and 8 bytes for each axis past the first |
| to a multiple of 8 | zeros |

After the head come the tensors of fixed-size elements in their order, each filled up with zeros to a multiple of 8,
then those of BYTES in their order: the lengths of all elements, 4 bytes each, and the elements.
"""

from __future__ import annotations

import math
import struct
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mesh.errors import InvalidInput
from mesh.tensors import DATATYPES, Array, Datatype, Tensors, datatype_of

__all__ = ["Layout", "layout_of", "read_layout", "write_head"]

_BY_NUMBER = {datatype.number: datatype for datatype in DATATYPES.values()}
_NATIVE = sys.byteorder == "little"
"""Whether elements stand in a value as they do in memory."""
_WIRE_DTYPES = {
    name: datatype.dtype if _NATIVE else datatype.dtype.newbyteorder("<") for name, datatype in DATATYPES.items()
}
"""Numpy's own where they can be: others are compared, and hashed anew, by whoever looks their datatype up."""
_COUNTS = struct.Struct("<IH")
_TENSOR = struct.Struct("<BBH")
_AXIS = struct.Struct("<Q")
_LENGTH = np.dtype("<u4")
_MAX_AXES = 32
_MAX_SIZE = 1 << 40
"""Elements, and bytes, of one tensor; far more than any value has."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One tensor of a value."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    """With its rows."""
    elements: int
    offset: int
    """Where it begins behind the head; 0 for BYTES, which begin where those before end."""
    nbytes: int

    wire_dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a head says."""

    rows: int
    names: tuple[str, ...]
    fixed: tuple[_Place, ...]
    objects: tuple[_Place, ...]
    size: int
    """Bytes of all fixed-size elements, filled up."""
    plain: bool
    """Any bytes of the right number are such tensors, as they stand."""

    def write(self, answer: Tensors, start: int, stop: int) -> list[bytes]:
        """The elements of some rows, in pieces."""
        parts: list[bytes] = []
        for place in self.fixed:
            rows = answer[place.name][start:stop]
            parts.append(rows.astype(place.wire_dtype, copy=False).tobytes())
            if place.nbytes % 8:
                parts.append(bytes(-place.nbytes % 8))
        for place in self.objects:
            items: list[bytes] = answer[place.name][start:stop].ravel().tolist()
            try:
                parts.append(np.array(list(map(len, items)), _LENGTH).tobytes())
            except OverflowError:
                raise InvalidInput(f"tensor {place.name!r} has an element of 4 GiB or more") from None
            parts += items
        return parts

    def read(self, values: list[bytes], start: int, tail: int) -> tuple[dict[str, Array], set[int]]:
        """Take the elements out of values that have this layout.

        Args:
            values: The values, one or more.
            start: Where their elements begin.
            tail: How many bytes follow them.

        Returns:
            The tensors, one value's rows after another's; or nothing, and the places of values that are not as the
            layout says.
        """
        bad = self._misshapen(values, start, tail)
        if bad:
            return {}, bad
        found: dict[str, Array] = {}
        if self.fixed:
            block = values[0] if len(values) == 1 else b"".join([value[start : start + self.size] for value in values])
            for place in self.fixed:
                array = self._read_fixed(place, block, len(values), start)
                if place.datatype.name == "BOOL":
                    bad |= _no_truths(array, self.rows)
                found[place.name] = array
        if self.objects:
            cursors = [start + self.size] * len(values)
            for place in self.objects:
                found[place.name] = _read_objects(place, values, cursors)
        return {name: found[name] for name in self.names}, bad

    def read_plain(self, value: bytes, start: int, tail: int) -> dict[str, Array] | None:
        """The tensors of one value, in place; None where they cannot be read so, or are not as the layout says.

        Args:
            value: The value.
            start: Where its elements begin.
            tail: How many bytes follow them.
        """
        if not self.plain or len(value) != start + self.size + tail:
            return None
        return {
            place.name: np.ndarray(place.shape, place.wire_dtype, value, start + place.offset) for place in self.fixed
        }

    def _read_fixed(self, place: _Place, block: bytes, values: int, start: int) -> Array:
        shape = (values * self.rows, *place.shape[1:])
        if not place.elements:
            array: Array = np.empty(0, place.datatype.dtype)
            array.flags.writeable = False
        elif values == 1:
            array = np.frombuffer(block, place.wire_dtype, place.elements, start + place.offset)
        else:
            grid = np.frombuffer(block, np.uint8).reshape(values, self.size)
            taken = grid[:, place.offset : place.offset + place.nbytes].tobytes()
            array = np.frombuffer(taken, place.wire_dtype)
        return array.astype(place.datatype.dtype, copy=False).reshape(shape)

    def _misshapen(self, values: list[bytes], start: int, tail: int) -> set[int]:
        least = start + self.size + tail
        if not self.objects:
            return {number for number, value in enumerate(values) if len(value) != least}
        bad: set[int] = set()
        for number, value in enumerate(values):
            cursor, end = start + self.size, len(value) - tail
            for place in self.objects:
                content = cursor + place.nbytes
                if content > end:
                    cursor = -1
                    break
                cursor = content + sum(_lengths(value, place, cursor))
            if cursor != end:
                bad.add(number)
        return bad


def _lengths(value: bytes, place: _Place, cursor: int) -> list[int]:
    return np.frombuffer(value, _LENGTH, place.elements, cursor).tolist() if place.elements else []


def _no_truths(array: Array, rows: int) -> set[int]:
    """Values with a BOOL of other bytes than 0 and 1, which arrays must not hold."""
    if not array.size:
        return set()
    wrong = array.view(np.uint8).reshape(array.shape[0], -1).max(axis=1, initial=0) > 1
    return {row // rows for row in np.flatnonzero(wrong).tolist()}


def _read_objects(place: _Place, values: list[bytes], cursors: list[int]) -> Array:
    """The next tensor of BYTES of each value, from its cursor, which moves on."""
    items: list[bytes] = []
    for number, value in enumerate(values):
        cursor = cursors[number]
        end = cursor + place.nbytes
        for length in _lengths(value, place, cursor):
            items.append(value[end : end + length])
            end += length
        cursors[number] = end
    array = np.empty(len(items), dtype=object)
    array[:] = items
    array = array.reshape(len(values) * place.shape[0], *place.shape[1:])
    array.flags.writeable = False
    return array


def write_head(answer: Tensors, rows: int) -> bytes:
    """The head of values with so many rows of each of these tensors.

    Raises:
        InvalidInput: A tensor has more than 33 axes, or a name that does not fit.
    """
    parts = [_COUNTS.pack(rows, len(answer))]
    for name, array in answer.items():
        told = name.encode(errors="surrogatepass")
        if array.ndim > _MAX_AXES + 1 or len(told) > 0xFFFF:
            raise InvalidInput(f"tensor {name[:200]!r} has too many axes, or too long a name, to be kept", tensor=name)
        parts.append(_TENSOR.pack(datatype_of(array).number, array.ndim - 1, len(told)))
        parts.append(told)
        parts += [_AXIS.pack(size) for size in array.shape[1:]]
    head = b"".join(parts)
    return head + bytes(-len(head) % 8)


@lru_cache(maxsize=256)
def read_layout(head: bytes, told: int) -> Layout | None:
    """What a head says; None where it is none.

    Args:
        head: Its bytes, filled up.
        told: Whether the node told the sources of its rows.
    """
    try:
        layout, end = _parsed(head)
    except (struct.error, UnicodeDecodeError, KeyError):
        return None
    alike = len(set(layout.names)) == len(layout.names)
    if not alike or end + -end % 8 != len(head) or any(head[end:]) or (not told and layout.rows != 1):
        return None
    for place in (*layout.fixed, *layout.objects):
        # Sizes beside a zero are bounded as well: numpy computes strides from them.
        if math.prod(size or 1 for size in place.shape) > _MAX_SIZE:
            return None
    return layout


def layout_of(head: bytes) -> Layout:
    """The layout of a head that `write_head` made."""
    return _parsed(head)[0]


def _parsed(head: bytes) -> tuple[Layout, int]:
    rows, count = _COUNTS.unpack_from(head)
    position = _COUNTS.size
    names: list[str] = []
    fixed: list[_Place] = []
    objects: list[_Place] = []
    offset = 0
    for _ in range(count):
        number, axes, length = _TENSOR.unpack_from(head, position)
        position += _TENSOR.size
        name = head[position : position + length].decode(errors="surrogatepass")
        position += length
        shape = [rows]
        for _ in range(axes):
            shape.append(_AXIS.unpack_from(head, position)[0])
            position += _AXIS.size
        datatype = _BY_NUMBER[number]
        dtype = _WIRE_DTYPES[datatype.name]
        elements = math.prod(shape)
        names.append(name)
        if datatype.itemsize:
            place = _Place(name, datatype, tuple(shape), elements, offset, elements * datatype.itemsize, dtype)
            fixed.append(place)
            offset += place.nbytes + -place.nbytes % 8
        else:
            objects.append(_Place(name, datatype, tuple(shape), elements, 0, elements * _LENGTH.itemsize, dtype))
    plain = _NATIVE and not objects and all(place.elements and place.datatype.name != "BOOL" for place in fixed)
    return Layout(rows, tuple(names), tuple(fixed), tuple(objects), offset, plain), position
