"""What CSV and JSON lines have in common: text files whose records are found once, and read from the nearest mark."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from mesh.batches.arrow import Batch, Schema
from mesh.batches.identity import FileIdentity, stat_of
from mesh.batches.inputs import Input, Marks, Reading, RowsRead, name_below, reason
from mesh.batches.records import MARK_BYTES, Records, scan
from mesh.errors import RequestError, SetupError

__all__ = ["TextInput", "called", "marks_of", "skip_bom"]

_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")


class TextInput(Input):
    """Text files.

    Args:
        paths: The files, in order.
        files: What they are.
        schema: Names and types of the columns.
        marks: Where reading can start.
    """

    quoted: bool
    """Whether line ends may be quoted."""

    def __init__(self, paths: Sequence[str], files: Sequence[FileIdentity], schema: Schema, marks: Marks) -> None:
        super().__init__(paths, files, schema)
        self.marks = marks
        firsts = np.searchsorted(marks[:, 0], np.arange(len(paths) + 1))
        self._rows = [marks[first:last, 1] for first, last in pairwise(firsts)]
        self._bytes = [marks[first:last, 2] for first, last in pairwise(firsts)]

    @classmethod
    def open(cls, root: Path, paths: Sequence[str], *, glance: bool = False) -> Self:
        """Read all files once, to find their records; of each only the beginning for a glance.

        Raises:
            SetupError: One cannot be read, is no text, or has another header than the first.
        """
        files: list[FileIdentity] = []
        marks: list[Marks] = []
        for index, path in enumerate(paths):
            try:
                found, size, mtime_ns = cls.records(path, MARK_BYTES if glance else None)
            except OSError as error:
                raise SetupError(f"input {path}: {reason(error)}") from None
            except SetupError as error:
                raise SetupError(f"input {path}: {error}") from None
            name = name_below(root, path)
            files.append(FileIdentity(name=name, size=size, mtime_ns=mtime_ns, rows=found.rows, digest=found.digest))
            marks.append(marks_of(index, found))
        every = np.concatenate(marks)
        return cls(paths, files, cls.look(paths, every), every)

    @classmethod
    def records(cls, path: str, most_bytes: int | None = None) -> tuple[Records, int, int]:
        """The records of one file, its size and its modification time. Raises OSError, SetupError."""
        size, mtime_ns = stat_of(path)
        with open(path, "rb") as file:
            if file.read(2) in _WIDE:
                raise SetupError("it is UTF-16, where UTF-8 is read")
            file.seek(0)
            first = cls.begin(file)
            file.seek(0)
            return scan(file, first=first, quoted=cls.quoted, most_bytes=most_bytes), size, mtime_ns

    @classmethod
    @abc.abstractmethod
    def begin(cls, file: BinaryIO) -> int:
        """The byte that the first record begins at."""

    @classmethod
    @abc.abstractmethod
    def look(cls, paths: Sequence[str], marks: Marks) -> Schema:
        """The columns that files have. Raises SetupError."""

    @abc.abstractmethod
    def parse(self, data: bytes, count: int, reading: Reading) -> tuple[Batch, dict[int, RequestError]]:
        """So many records, and by position why some cannot be read.

        Raises:
            ValueError: They are not so many.
        """

    def identify(self, index: int) -> FileIdentity:
        found, size, mtime_ns = self.records(self._paths[index])
        name = self.identity.files[index].name
        return FileIdentity(name=name, size=size, mtime_ns=mtime_ns, rows=found.rows, digest=found.digest)

    def read(self, reading: Reading) -> Iterator[RowsRead]:
        for index, first, last in self._stretches(reading.start, reading.stop):
            self._check_file(index)
            before, rows, places = self._first_row(index), self._rows[index], self._bytes[index]
            with open(self._paths[index], "rb") as file:
                mark = int(np.searchsorted(rows, first, side="right")) - 1
                while int(rows[mark]) < last:
                    begin, end = int(rows[mark]), int(rows[mark + 1])
                    file.seek(int(places[mark]))
                    read = RowsRead(before + begin, *self._parsed(file, index, mark, reading))
                    mark += 1
                    part = read.part(max(first, begin) - begin, min(last, end) - begin)
                    yield from part.cut(reading.most_rows, reading.most_bytes)

    def _parsed(self, file: BinaryIO, index: int, mark: int, reading: Reading) -> tuple[Batch, dict[int, RequestError]]:
        rows, places = self._rows[index], self._bytes[index]
        data = file.read(int(places[mark + 1] - places[mark]))
        try:
            return self.parse(data, int(rows[mark + 1] - rows[mark]), reading)
        except ValueError:
            name = self.identity.files[index].name
            raise SetupError(f"the input's {name} changed while it was read") from None


def marks_of(index: int, found: Records) -> Marks:
    """INT64[marks, 3] of one file."""
    made = np.empty((len(found.marks), 3), np.int64)
    made[:, 0] = index
    made[:, 1:] = found.marks
    return made


def skip_bom(file: BinaryIO) -> int:
    """The byte that text begins at; `file` is at its start, and then there."""
    start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
    file.seek(start)
    return start


def called(path: str) -> str:
    """A file, for a message that named its folder already."""
    return os.path.basename(path)
