"""Rows of NumPy's .npy files: the first axis is the rows, and there is one column, `array`.

Read piece by piece and not mapped: mapped pages count as memory that a process takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np

from mesh.batches.arrow import Column, Schema, Type, pa
from mesh.batches.identity import FileIdentity, hashed, stat_of
from mesh.batches.inputs import Input, Reading, RowsRead, name_below, reason, unread
from mesh.errors import SetupError
from mesh.tensors import Array

__all__ = ["ARRAY", "NpyInput"]

ARRAY = "array"
"""What the column is called."""


@dataclass(frozen=True, slots=True)
class _Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """Byte that the data begins at."""


class NpyInput(Input):
    """Arrays one after another, of one dtype and shape past the first axis."""

    format = "npy"

    def __init__(
        self, paths: Sequence[str], files: Sequence[FileIdentity], schema: Schema, headers: Sequence[_Header]
    ) -> None:
        super().__init__(paths, files, schema)
        self._headers = headers

    @classmethod
    def open(cls, root: Path, paths: Sequence[str]) -> Self:
        """Look at every header.

        Raises:
            SetupError: A file cannot be read, is no .npy, is in Fortran order or of Python objects, or has another
                dtype or shape than the first.
        """
        headers: list[_Header] = []
        files: list[FileIdentity] = []
        for path in paths:
            try:
                header, file = _identified(path, name_below(root, path))
            except (OSError, ValueError, EOFError) as error:
                raise SetupError(f"input {path}: not read as .npy: {reason(error)}") from None
            headers.append(header)
            files.append(file)
            first = headers[0]
            if (header.dtype, header.shape[1:]) != (first.dtype, first.shape[1:]):
                was = f"{first.dtype}{list(first.shape[1:])}"
                text = (
                    f"its rows are {header.dtype}{list(header.shape[1:])} where {os.path.basename(paths[0])} has {was}"
                )
                raise SetupError(f"input {path}: {text}")
        kind = _column(np.empty((0, *headers[0].shape[1:]), headers[0].dtype)).type
        return cls(paths, files, pa.schema([(ARRAY, kind)]), headers)

    def identify(self, index: int) -> FileIdentity:
        try:
            return _identified(self._paths[index], self.identity.files[index].name)[1]
        except (ValueError, EOFError) as error:
            name = self.identity.files[index].name
            raise SetupError(f"the input's {name} was changed: {reason(error)}") from None

    def read(self, reading: Reading) -> Iterator[RowsRead]:
        for index, first, last in self._stretches(reading.start, reading.stop):
            self._check_file(index)
            header, before = self._headers[index], self._first_row(index)
            values = prod(header.shape[1:])
            row_bytes = values * header.dtype.itemsize
            rows = max(1, min(reading.most_rows, reading.most_bytes // max(row_bytes, 1)))
            with open(self._paths[index], "rb") as file:
                file.seek(header.offset + first * row_bytes)
                for start in range(first, last, rows):
                    count = min(rows, last - start)
                    data = file.read(count * row_bytes)
                    if len(data) < count * row_bytes:
                        text = f"{self.identity.files[index].name} ends before this row"
                        yield unread(before + start, count, reading.columns, self.schema, text)
                        continue
                    array = np.frombuffer(data, header.dtype).reshape(count, *header.shape[1:])
                    table = pa.RecordBatch.from_arrays([_column(array)], names=[ARRAY])
                    yield RowsRead(before + start, table.select(list(reading.columns)))


def _identified(path: str, name: str) -> tuple[_Header, FileIdentity]:
    size, mtime_ns = stat_of(path)
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        # Later versions differ in how long a header may be, and in its encoding.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        offset = file.tell()
        file.seek(0)
        digest = hashed(file.read(offset), mtime_ns.to_bytes(16, "little", signed=True))
    if not shape:
        raise ValueError("it is a scalar, which has no rows")
    if fortran and len(shape) > 1:
        raise ValueError("it is in Fortran order: save it in C order, by numpy.ascontiguousarray")
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if dtype.fields is not None or dtype.kind not in "biufSU":
        raise ValueError(f"its dtype is {dtype}, which no column is made of")
    header = _Header(dtype, tuple(map(int, shape)), offset)
    if size < offset + prod(header.shape) * dtype.itemsize:
        raise ValueError("it is cut off: its data is shorter than its header says")
    return header, FileIdentity(name=name, size=size, mtime_ns=mtime_ns, rows=header.shape[0], digest=digest)


def _column(array: Array) -> Column:
    """INT64[rows, ...] and its like as a column: lists of fixed size, one in another."""
    if array.dtype.kind in "SU":
        texts = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        column = pa.array(texts.ravel().tolist(), pa.binary())
    else:
        column = pa.array(array.astype(array.dtype.newbyteorder("="), copy=False).ravel())
    kind: Type = column.type
    for size in reversed(array.shape[1:]):
        kind = pa.list_(kind, size)
        column = pa.FixedSizeListArray.from_arrays(column, size) if size else pa.array([[]] * len(array), kind)
    return column
