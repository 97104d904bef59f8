"""`Tensors`: the named arrays that travel on an edge, and the datatypes they may have.

Axis 0 of every tensor is the batch: its rows. Datatypes and shapes are those of the Open Inference Protocol
(https://github.com/kserve/open-inference-protocol), with BF16 as Triton Inference Server adds it. Arrays are
read-only once they are in a `Tensors`: otherwise two branches in one process could see each other's edits, and
placement would change answers.

| datatype | numpy | bytes an element |
|---|---|---|
| BOOL | bool | 1 |
| UINT8 UINT16 UINT32 UINT64 | uint8 … uint64 | 1 2 4 8 |
| INT8 INT16 INT32 INT64 | int8 … int64 | 1 2 4 8 |
| FP16 FP32 FP64 | float16 float32 float64 | 2 4 8 |
| BF16 | ml_dtypes.bfloat16 | 2 |
| BYTES | object, each element `bytes` | its length, and 4 on the wire |
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import ml_dtypes
import numpy as np

from mesh.errors import InvalidInput

__all__ = ["DATATYPES", "Array", "Datatype", "Tensors", "concatenate", "datatype_of", "wire_size"]

T = TypeVar("T")

Array = np.ndarray[Any, np.dtype[Any]]
"""Any numpy array; what a tensor is in Python."""


@dataclass(frozen=True, slots=True)
class Datatype:
    """One row of the table above."""

    name: str
    """As in the Open Inference Protocol: `FP32`."""
    dtype: np.dtype[Any]
    """The numpy dtype, in native byte order."""
    itemsize: int
    """Bytes an element takes on the wire; 0 for BYTES, whose elements carry their own length."""
    number: int
    """The value in the `Datatype` enum of `mesh.v1`."""

    def __repr__(self) -> str:
        return self.name


def _table() -> dict[str, Datatype]:
    # The numbers are those of Triton's model_config.proto, which the enum of mesh.v1 shares.
    rows: list[tuple[str, Any]] = [
        ("BOOL", np.bool_),
        ("UINT8", np.uint8),
        ("UINT16", np.uint16),
        ("UINT32", np.uint32),
        ("UINT64", np.uint64),
        ("INT8", np.int8),
        ("INT16", np.int16),
        ("INT32", np.int32),
        ("INT64", np.int64),
        ("FP16", np.float16),
        ("FP32", np.float32),
        ("FP64", np.float64),
        ("BYTES", np.object_),
        ("BF16", ml_dtypes.bfloat16),
    ]
    table: dict[str, Datatype] = {}
    for number, (name, scalar) in enumerate(rows, start=1):
        dtype = np.dtype(scalar)
        table[name] = Datatype(name, dtype, 0 if name == "BYTES" else dtype.itemsize, number)
    return table


DATATYPES: Mapping[str, Datatype] = _table()
"""Datatype by its protocol name."""
_BY_DTYPE: dict[np.dtype[Any], Datatype] = {datatype.dtype: datatype for datatype in DATATYPES.values()}


def datatype_of(array: Array) -> Datatype:
    """The datatype of an array.

    Raises:
        InvalidInput: The array's dtype is none that the wire can carry.
    """
    found = _BY_DTYPE.get(array.dtype)
    if found is None:
        raise InvalidInput(f"numpy dtype {array.dtype} is none of {', '.join(DATATYPES)}")
    return found


def _as_array(name: str, value: Any) -> Array:
    """A read-only array of one of the datatypes; text becomes BYTES, foreign byte order becomes native."""
    array: Array = value if type(value) is np.ndarray else _made(name, value)
    if array.dtype in _BY_DTYPE:
        if array.dtype.hasobject:
            array = _as_bytes(name, array)
    elif array.dtype.kind in "SUT":
        array = _as_bytes(name, array.astype(object))
    elif not array.dtype.isnative and array.dtype.newbyteorder("=") in _BY_DTYPE:
        array = array.astype(array.dtype.newbyteorder("="))
    else:
        raise InvalidInput(
            f"tensor {name!r} has numpy dtype {array.dtype}, which is none of {', '.join(DATATYPES)}", tensor=name
        )
    if array.flags.writeable:
        # A view, so that the caller's own array stays as writeable as it was.
        array = array.view()
        array.flags.writeable = False
    return array


def _made(name: str, value: Any) -> Array:
    try:
        array: Array = np.asarray(value)
        if array.dtype.kind not in "SU" or isinstance(value, np.ndarray):
            return array
    except UnicodeDecodeError:
        pass  # texts and bytes together
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"tensor {name!r} is no array: {error}", tensor=name) from error
    # Not numpy's own texts: those lose their trailing NULs.
    return np.asarray(value, dtype=object)


def _as_bytes(name: str, array: Array) -> Array:
    flat: list[Any] = array.ravel().tolist()
    if all(type(item) is bytes for item in flat):
        return array
    out = np.empty(len(flat), dtype=object)
    for index, item in enumerate(flat):
        if isinstance(item, str):
            out[index] = _utf8(name, item)
        elif isinstance(item, bytes | bytearray | memoryview):
            out[index] = bytes(item)
        else:
            raise InvalidInput(f"tensor {name!r} holds {type(item).__name__}, which is not BYTES", tensor=name)
    return out.reshape(array.shape)


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"tensor {name!r} holds text that UTF-8 cannot spell", tensor=name) from None


class Tensors(Mapping[str, Array]):
    """An immutable mapping from tensor name to read-only numpy array.

    Args:
        arrays: Arrays, or what `numpy.asarray` takes. `str` becomes UTF-8 BYTES.
        sources: For each row, which row of something else it came from, where that is not the row of the same number:
            a node that expands says which row of its input made each row of its answer; a branch of a join says which
            of the join's rows it answers. INT64[rows], never decreasing, none below 0.

    Raises:
        InvalidInput: A dtype that no datatype stands for, or what is no array at all; names the tensor. Sources that
            are no such list.
    """

    __slots__ = ("_arrays", "sources")

    sources: Array | None
    """Row of origin by row, read-only; None where row i is row i."""

    def __init__(self, arrays: Mapping[str, Any], *, sources: Any = None) -> None:
        self._arrays: dict[str, Array] = {name: _as_array(name, value) for name, value in arrays.items()}
        self.sources = None if sources is None else _as_sources(sources, self._arrays)

    @classmethod
    def trusted(cls, arrays: dict[str, Array], sources: Array | None = None) -> Tensors:
        """Wrap arrays that came out of a `Tensors` or the codec, without looking at them again."""
        made = cls.__new__(cls)
        made._arrays = arrays
        made.sources = sources
        return made

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    # Those of the dict inside: Mapping's own look names up one by one, in Python.

    @overload
    def get(self, key: str, /) -> Array | None: ...
    @overload
    def get(self, key: str, default: Array | T, /) -> Array | T: ...
    def get(self, key: str, default: Any = None, /) -> Any:
        """The array of a name, or what is said instead."""
        return self._arrays.get(key, default)

    def keys(self) -> KeysView[str]:
        """The names, in their order."""
        return self._arrays.keys()

    def values(self) -> ValuesView[Array]:
        """The arrays, in their order."""
        return self._arrays.values()

    def items(self) -> ItemsView[str, Array]:
        """Names and arrays, in their order."""
        return self._arrays.items()

    def __eq__(self, other: object) -> bool:
        """Same names, datatypes, shapes and bits (so a NaN equals itself), and the same sources."""
        if not isinstance(other, Tensors) or self._arrays.keys() != other._arrays.keys():
            return False
        if self.sources is None or other.sources is None:
            if self.sources is not other.sources:
                return False
        elif self.sources.tolist() != other.sources.tolist():
            return False
        return all(_same(array, other._arrays[name]) for name, array in self._arrays.items())

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Made anew, because arrays come out of a pickle writeable.
        return _unpickled, (self._arrays, self.sources)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}: {datatype_of(array)}{list(array.shape)}" for name, array in self.items())
        return f"Tensors({inside})" if self.sources is None else f"Tensors({inside}; of rows {self.sources.tolist()})"

    @property
    def rows(self) -> int:
        """Rows in the batch: the length of axis 0, 0 where there is no tensor.

        Raises:
            InvalidInput: A tensor has no axis 0, or two tensors differ in their rows.
        """
        rows = -1
        for name, array in self._arrays.items():
            shape = array.shape
            if not shape:
                raise InvalidInput(f"tensor {name!r} is a scalar: axis 0 has to be the batch", tensor=name)
            if shape[0] != rows:
                if rows >= 0:
                    raise InvalidInput(f"tensor {name!r} has {shape[0]} rows where others have {rows}", tensor=name)
                rows = shape[0]
        return max(rows, 0)

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take on the wire, without their names and shapes."""
        total = 0
        for array in self._arrays.values():
            total += wire_size(array) if array.dtype.hasobject else array.nbytes
        return total

    def check_size(self, most_bytes: int, verb: str) -> None:
        """Hold the bytes of all tensors together against a bound.

        Args:
            most_bytes: The bound.
            verb: What their node does with them: `takes` or `gives`.

        Raises:
            InvalidInput: They are more; names the largest.
        """
        nbytes = self.nbytes
        if nbytes > most_bytes:
            largest = max(self._arrays, key=lambda name: wire_size(self._arrays[name]))
            text = f"{verb} {nbytes} bytes of tensors where at most {most_bytes} are carried"
            raise InvalidInput(f"{text}; the largest is {largest!r}", tensor=largest)

    def take(self, start: int, stop: int) -> Tensors:
        """The rows that answer rows `start` to `stop`, as views; their sources counted from `start`."""
        if self.sources is None:
            return Tensors.trusted({name: array[start:stop] for name, array in self._arrays.items()})
        first, last = np.searchsorted(self.sources, (start, stop))
        sources = self.sources[first:last] - start
        sources.flags.writeable = False
        return Tensors.trusted({name: array[first:last] for name, array in self._arrays.items()}, sources)


def _unpickled(arrays: dict[str, Array], sources: Array | None) -> Tensors:
    return Tensors(arrays, sources=sources)


def _as_sources(sources: Any, arrays: Mapping[str, Array]) -> Array:
    array: Array = np.array(sources)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidInput(f"sources have to be a list of row numbers, and not {array.dtype}{list(array.shape)}")
    if array.size and (int(array[0]) < 0 or bool((array[1:] < array[:-1]).any())):
        raise InvalidInput("sources have to be row numbers from 0 that never decrease")
    for name, tensor in arrays.items():
        if tensor.shape[:1] != array.shape:
            raise InvalidInput(f"{len(array)} sources for tensor {name!r} of shape {list(tensor.shape)}", tensor=name)
    array = array.astype(np.int64)
    array.flags.writeable = False
    return array


def wire_size(array: Array) -> int:
    """Bytes of an array's data on the wire."""
    if not array.dtype.hasobject:
        return array.nbytes
    return 4 * array.size + sum(map(len, array.ravel().tolist()))


def _same(left: Array, right: Array) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.hasobject:
        return left.tolist() == right.tolist()
    return left.tobytes() == right.tobytes()


def concatenate(parts: list[Tensors]) -> Tensors:
    """Rows of several `Tensors` of the same names, datatypes and trailing shapes, one after another."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Array] = {}
    for name in parts[0]:
        array = np.concatenate([part[name] for part in parts])
        array.flags.writeable = False
        joined[name] = array
    return Tensors.trusted(joined)
