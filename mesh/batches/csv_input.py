"""Rows of CSV files (RFC 4180, UTF-8, commas, a header). Every column is text, as it stands in the file."""

from __future__ import annotations

import csv as python_csv
from collections.abc import Sequence
from typing import BinaryIO

from mesh.batches.arrow import Batch, Column, Schema, compute, csv, pa
from mesh.batches.inputs import Marks, Reading
from mesh.batches.records import MAX_RECORD_BYTES, split
from mesh.batches.text_input import TextInput, called, skip_bom
from mesh.errors import InvalidInput, RequestError, SetupError

__all__ = ["CsvInput"]

_MOST_HEADER_BYTES = 1 << 20


class CsvInput(TextInput):
    """CSV files that have one header."""

    format = "csv"
    typed = False
    quoted = True

    @classmethod
    def begin(cls, file: BinaryIO) -> int:
        return _header(file)[1]

    @classmethod
    def look(cls, paths: Sequence[str], marks: Marks) -> Schema:
        headers: list[list[str]] = []
        for path in paths:
            with open(path, "rb") as file:
                headers.append(_header(file)[0])
            if headers[-1] != headers[0]:
                raise SetupError(f"input {path}: its header is not that of {called(paths[0])}")
        return pa.schema([(name, pa.string()) for name in headers[0]])

    def parse(self, data: bytes, count: int, reading: Reading) -> tuple[Batch, dict[int, RequestError]]:
        names: list[str] = self.schema.names
        try:
            found = csv.read_csv(
                pa.BufferReader(data),
                read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
                parse_options=csv.ParseOptions(newlines_in_values=True),
                convert_options=csv.ConvertOptions(
                    include_columns=list(reading.columns), column_types=dict.fromkeys(names, pa.binary())
                ),
            )
        except (ValueError, OSError):
            found = None
        if found is None or found.num_rows != count:
            return self._one_by_one(data, count, reading)
        return _texts(found.combine_chunks().to_batches()[0], {})

    def _one_by_one(self, data: bytes, count: int, reading: Reading) -> tuple[Batch, dict[int, RequestError]]:
        """The same where some record is not like the header: slower, and it tells which."""
        names: list[str] = self.schema.names
        rows: list[list[bytes]] = []
        failed: dict[int, RequestError] = {}
        for record in split(data, quoted=True):
            fields, wrong = _split_fields(record, len(names))
            if wrong:
                failed[len(rows)] = InvalidInput(wrong)
                fields = [""] * len(names)
            rows.append([field.encode(errors="surrogateescape") for field in fields])
        if len(rows) != count:
            raise ValueError(f"{len(rows)} records where {count} were")
        places = [names.index(name) for name in reading.columns]
        columns = [pa.array([row[place] for row in rows], pa.binary()) for place in places]
        return _texts(pa.RecordBatch.from_arrays(columns, names=list(reading.columns)), failed)


def _split_fields(record: bytes, wanted: int) -> tuple[list[str], str]:
    """The fields of a record, and what is wrong with them."""
    try:
        fields = _fields(record.decode(errors="surrogateescape"))
    except python_csv.Error:
        return [], "it is no CSV: there is a carriage return outside quotes"
    wrong = f"it has {len(fields)} fields where the header has {wanted}"
    return fields, "" if len(fields) == wanted else wrong


def _header(file: BinaryIO) -> tuple[list[str], int]:
    """Names of columns, and the byte that the rows begin at."""
    start = skip_bom(file)
    text = file.read(_MOST_HEADER_BYTES)
    records = 0
    for record in split(text, quoted=True):
        records = text.find(record) + len(record)
        break
    else:
        raise SetupError("there is no header in it")
    end = text.find(b"\n", records)
    try:
        names = _fields(_decoded(text[:records].lstrip(b"\r\n")))
    except python_csv.Error:
        raise SetupError("its lines end with a carriage return alone, where a line feed is needed") from None
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SetupError(f"two columns are called {twice!r}" if twice else "two columns have no name")
    return names, start + (len(text) if end < 0 else end + 1)


def _decoded(header: bytes) -> str:
    try:
        return header.decode()
    except UnicodeDecodeError:
        raise SetupError("its header is not UTF-8") from None


def _fields(record: str) -> list[str]:
    python_csv.field_size_limit(MAX_RECORD_BYTES)
    return next(python_csv.reader([record]))


def _texts(table: Batch, failed: dict[int, RequestError]) -> tuple[Batch, dict[int, RequestError]]:
    """Columns of bytes as text; rows that UTF-8 cannot spell are added to those that failed."""
    columns = [_text(name, column, failed) for name, column in zip(table.schema.names, table.columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=table.schema.names), failed


def _text(name: str, column: Column, failed: dict[int, RequestError]) -> Column:
    try:
        return compute.cast(column, pa.string())
    except ValueError:
        pass
    values: list[str | None] = []
    for place, value in enumerate(column.to_pylist()):
        try:
            values.append(value.decode())
        except UnicodeDecodeError:
            failed.setdefault(place, InvalidInput(f"column {name!r} is not UTF-8"))
            values.append(None)
    return pa.array(values, pa.string())
