"""Rows of JSON lines: one object a line. The type of a column is that of its values in some places of the files."""

from __future__ import annotations

import json as python_json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, cast

import numpy as np

from mesh.batches.arrow import Batch, Schema, Type, json, pa
from mesh.batches.inputs import Marks, Reading
from mesh.batches.records import split
from mesh.batches.text_input import TextInput, skip_bom
from mesh.errors import InvalidInput, RequestError, SetupError

__all__ = ["JsonlInput"]

_LOOKS = 16
"""Places, evenly spread, whose rows are looked at for types."""
_LOOK_BYTES = 1 << 20


class JsonlInput(TextInput):
    """Files of JSON lines."""

    format = "jsonl"
    quoted = False

    @classmethod
    def begin(cls, file: BinaryIO) -> int:
        return skip_bom(file)

    @classmethod
    def look(cls, paths: Sequence[str], marks: Marks) -> Schema:
        types: dict[str, Type] = {}
        begins = np.flatnonzero(marks[:-1, 0] == marks[1:, 0])
        places = np.unique(np.linspace(0, len(begins) - 1, _LOOKS).astype(int)) if len(begins) else []
        for mark in begins[places].tolist():
            file, byte, end = int(marks[mark, 0]), int(marks[mark, 2]), int(marks[mark + 1, 2])
            with open(paths[file], "rb") as opened:
                opened.seek(byte)
                data = opened.read(min(end - byte, _LOOK_BYTES))
            if byte + len(data) < end:
                data = data[: data.rfind(b"\n") + 1] or data
            for name, found in _types(data).items():
                types[name] = _common(types.get(name), found)
        if not types and marks[:, 1].any():
            raise SetupError(f"input {paths[0]}: its lines are no JSON objects")
        return pa.schema(list(types.items()))

    def as_floats(self, names: Sequence[str]) -> None:
        fields = [pa.field(one.name, _floating(one.type)) if one.name in names else one for one in self.schema]
        self.schema = pa.schema(fields)

    def parse(self, data: bytes, count: int, reading: Reading) -> tuple[Batch, dict[int, RequestError]]:
        schema = pa.schema([self.schema.field(name) for name in reading.columns])
        try:
            found = json.read_json(
                pa.BufferReader(data),
                read_options=json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
            if found.num_rows == count:
                return found.select(list(reading.columns)).combine_chunks().to_batches()[0], {}
        except (ValueError, OSError):
            pass
        return _one_by_one(data, count, schema)


def _one_by_one(data: bytes, count: int, schema: Schema) -> tuple[Batch, dict[int, RequestError]]:
    """The same where some line is not as it should be: slower, and it tells which."""
    rows: list[Mapping[str, Any]] = []
    failed: dict[int, RequestError] = {}
    for record in split(data, quoted=False):
        try:
            rows.append(_fitting(_object(record), schema))
        except ValueError as error:
            failed[len(rows)] = InvalidInput(str(error))
            rows.append({})
    if len(rows) != count:
        raise ValueError(f"{len(rows)} lines where {count} were")
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema), failed


def _object(record: bytes) -> dict[str, Any]:
    try:
        found: Any = python_json.loads(record)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        text = error.msg if isinstance(error, python_json.JSONDecodeError) else "it is not UTF-8"
        raise ValueError(f"it is no JSON: {text}") from None
    if not isinstance(found, dict):
        raise ValueError(f"it is a JSON {type(found).__name__}, where an object is needed")
    return cast(dict[str, Any], found)


def _fitting(found: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """The wanted values of an object. Raises ValueError where one is not of its column's type."""
    values = {field.name: found.get(field.name) for field in schema}
    for field in schema:
        try:
            pa.array([values[field.name]], field.type)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"column {field.name!r} is not {field.type}, as it is in other rows") from None
    return values


def _types(data: bytes) -> dict[str, Type]:
    """Columns of some rows; of those rows before one that is no JSON, where there is one."""
    try:
        schema = json.read_json(
            pa.BufferReader(data), read_options=json.ReadOptions(use_threads=False, block_size=len(data) + 1)
        ).schema
        return {field.name: _plain(field.type) for field in schema}
    except (ValueError, OSError):
        types: dict[str, Type] = {}
        for record in split(data, quoted=False):
            try:
                found = _object(record)
                one = {name: _plain(pa.array([value]).type) for name, value in found.items()}
            except (ValueError, TypeError, OverflowError):
                continue
            types.update({name: _common(types.get(name), kind) for name, kind in one.items()})
        return types


def _plain(kind: Type) -> Type:
    """Text that looks like a time is text."""
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_date(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def _floating(kind: Type) -> Type:
    if pa.types.is_list(kind):
        return pa.list_(_floating(kind.value_type))
    return pa.float64() if pa.types.is_integer(kind) else kind


def _common(one: Type | None, other: Type) -> Type:
    """A type that holds values of both; the first, where there is none."""
    if one is None or one.equals(other) or pa.types.is_null(one):
        return other
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(_common(one.value_type, other.value_type))
    if pa.types.is_floating(other) and pa.types.is_integer(one):
        return other
    return one
