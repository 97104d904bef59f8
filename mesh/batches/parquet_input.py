"""Rows of Parquet files. Row groups that no wanted row is in are never read; nothing is read but wanted columns.

Inside a row group there is no way to begin but at its start, so the place reached is remembered: whoever reads
ranges in ascending order, and leaves some out, decodes each row group once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

from mesh.batches.arrow import Batch, Schema, parquet
from mesh.batches.identity import FileIdentity, hashed, stat_of
from mesh.batches.inputs import Input, Reading, RowsRead, name_below, reason, system_fault, unread
from mesh.errors import SetupError

__all__ = ["ParquetInput"]

_BUFFER_BYTES = 1 << 20
_MOST_FOOTER_BYTES = 1 << 28
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 8}
"""Bytes that a value of a physical type takes in memory, at least."""


class ParquetInput(Input):
    """Parquet files whose columns are alike."""

    format = "parquet"

    def __init__(self, paths: Sequence[str], files: Sequence[FileIdentity], schema: Schema) -> None:
        super().__init__(paths, files, schema)
        self._cursor: _Cursor | None = None

    @classmethod
    def open(cls, root: Path, paths: Sequence[str]) -> Self:
        """Look at every footer.

        Raises:
            SetupError: A file cannot be read, is no Parquet, or its columns are not those of the first.
        """
        files: list[FileIdentity] = []
        first: Schema = None
        for path in paths:
            try:
                with _opened(path) as file:
                    rows, schema = file.metadata.num_rows, file.schema_arrow
                files.append(_identified(path, name_below(root, path), rows))
            except (OSError, ValueError) as error:
                raise SetupError(f"input {path}: not read as Parquet: {reason(error)}") from None
            first = schema if first is None else first
            _check_alike(path, schema, paths[0], first)
        return cls(paths, files, first)

    def identify(self, index: int) -> FileIdentity:
        return _identified(self._paths[index], self.identity.files[index].name, 0)

    def read(self, reading: Reading) -> Iterator[RowsRead]:
        for index, first, last in self._stretches(reading.start, reading.stop):
            cursor = self._at(index, first, reading)
            before = self._first_row(index)
            while cursor.row < last:
                start, most = cursor.row, last - cursor.row
                try:
                    table = cursor.next(most)
                except Exception as error:
                    if system_fault(error):
                        self.close()
                        raise
                    name = self.identity.files[index].name
                    text = f"row group {cursor.group} of {name} cannot be read: {reason(error)}"
                    for begin, count in _stepped(start, cursor.give_up(most), reading.most_rows):
                        yield unread(before + begin, count, reading.columns, self.schema, text)
                    continue
                yield RowsRead(before + start, table)

    def _at(self, index: int, row: int, reading: Reading) -> _Cursor:
        """A cursor on a row: the one there is, where it can get there without reading more than a new one."""
        cursor = self._cursor
        wanted = (index, reading.columns, reading.most_rows, reading.most_bytes)
        if cursor is None or cursor.wanted != wanted or not cursor.can_reach(row):
            self.close()
            self._check_file(index)
            self._cursor = cursor = _Cursor(self._paths[index], wanted, reading)
        try:
            cursor.move(row)
        except Exception as error:
            self.close()
            if system_fault(error):
                raise
            # Its rows before `row` are broken: what can be read of it is found out by reading from its start.
            self._cursor = cursor = _Cursor(self._paths[index], wanted, reading)
            cursor.skip_broken(row)
        return cursor

    def close(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None


@dataclass(frozen=True, slots=True)
class _Group:
    first: int
    last: int
    row_bytes: float


class _Cursor:
    """A place in a file."""

    def __init__(self, path: str, wanted: tuple[Any, ...], reading: Reading) -> None:
        self.wanted = wanted
        self.row = 0
        """The next row that is given."""
        self.group = 0
        """The row group that it is in."""
        self._reading = reading
        self._file: Any = _opened(path)
        self._groups = _groups(self._file.metadata, reading.columns)
        self._batches: Iterator[Batch] | None = None
        self._rest: Batch | None = None
        """What was decoded and not given yet."""

    def can_reach(self, row: int) -> bool:
        """Whether nothing that was passed is needed again."""
        return row >= self.row

    def move(self, row: int) -> None:
        """Go on to a later row."""
        group = next(number for number, one in enumerate(self._groups) if row < one.last)
        if group != self.group or self._batches is None:
            self._enter(group)
        while self.row < row:
            self.next(row - self.row)

    def next(self, most: int) -> Batch:
        """Some rows, at least one and at most so many."""
        if self._rest is None:
            while self.row >= self._groups[self.group].last:
                self._enter(self.group + 1)
            if self._batches is None:
                self._enter(self.group)
            assert self._batches is not None
            self._rest = next(self._batches).select(list(self._reading.columns))
        table: Batch = self._rest
        count: int = table.num_rows
        self._rest = None if count <= most else table.slice(most)
        self.row += min(count, most)
        return table if count <= most else table.slice(0, most)

    def give_up(self, most: int) -> int:
        """Pass by what is left of a broken row group, or so many rows of it. Gives how many were passed."""
        passed = min(most, self._groups[self.group].last - self.row)
        self.row += passed
        self._rest = None
        self._batches = _broken() if self.row < self._groups[self.group].last else None
        return passed

    def skip_broken(self, row: int) -> None:
        """Stand at a row of a row group that is broken somewhere before it: nothing there can be read."""
        self.group = next(number for number, one in enumerate(self._groups) if row < one.last)
        self.row, self._rest, self._batches = row, None, _broken()

    def _enter(self, group: int) -> None:
        self.group, self.row, self._rest = group, self._groups[group].first, None
        row_bytes = self._groups[group].row_bytes
        rows = int(min(self._reading.most_rows, max(1.0, self._reading.most_bytes / max(row_bytes, 1e-3))))
        self._batches = self._file.iter_batches(rows, row_groups=[group], columns=list(self._reading.columns))

    def close(self) -> None:
        self._batches = self._rest = None
        self._file.close()


def _broken() -> Iterator[Batch]:
    raise ValueError("rows before it are broken")
    yield  # pyright: ignore[reportUnreachable]


def _opened(path: str) -> Any:
    # Neither mapped nor read ahead: what is in memory is pages that are being decoded.
    return parquet.ParquetFile(path, pre_buffer=False, memory_map=False, buffer_size=_BUFFER_BYTES)


def _groups(metadata: Any, columns: Sequence[str]) -> list[_Group]:
    wanted = set(columns)
    counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    groups: list[_Group] = []
    for index, last in enumerate(accumulate(counts)):
        group, nbytes = metadata.row_group(index), 0
        for number in range(group.num_columns):
            chunk = group.column(number)
            path: str = chunk.path_in_schema
            if path in wanted or path.partition(".")[0] in wanted:
                in_memory = chunk.num_values * _WIDTHS.get(chunk.physical_type, 8)
                nbytes += max(in_memory, chunk.total_uncompressed_size)
        groups.append(_Group(last - counts[index], last, nbytes / max(counts[index], 1)))
    return groups


def _identified(path: str, name: str, rows: int) -> FileIdentity:
    size, mtime_ns = stat_of(path)
    with open(path, "rb") as file:
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little")
        if not 0 < length <= min(size - 8, _MOST_FOOTER_BYTES):
            raise ValueError("its footer is not there, or encrypted")
        file.seek(size - 8 - length)
        footer = file.read(length)
    digest = hashed(footer, mtime_ns.to_bytes(16, "little", signed=True))
    return FileIdentity(name=name, size=size, mtime_ns=mtime_ns, rows=rows, digest=digest)


def _check_alike(path: str, schema: Schema, first_path: str, first: Schema) -> None:
    for field in first:
        index = schema.get_field_index(field.name)
        if index < 0:
            raise SetupError(
                f"input {path}: there is no column {field.name!r}, which {os.path.basename(first_path)} has"
            )
        if schema.field(index).type != field.type:
            now = schema.field(index).type
            raise SetupError(
                f"input {path}: column {field.name!r} is {now} where {os.path.basename(first_path)} has {field.type}"
            )


def _stepped(start: int, count: int, step: int) -> Iterator[tuple[int, int]]:
    for begin in range(start, start + count, step):
        yield begin, min(step, start + count - begin)
