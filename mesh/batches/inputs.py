"""`Input`: rows of files, by number. What each format has to say is in a module of its own.

An input is opened once for a plan, and again by each worker, who reads some range of rows. It is used by one thread at
a time.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Self

import numpy as np

from mesh.batches.arrow import Batch, Schema, pa
from mesh.batches.identity import FileIdentity, InputIdentity, stat_of
from mesh.errors import InvalidInput, RequestError, SetupError
from mesh.tensors import Array

__all__ = ["Input", "Marks", "Reading", "RowsRead", "name_below", "reason", "regrouped", "system_fault", "unread"]

Marks = Array
"""INT64[marks, 3]: where reading can start: file, row of the file, byte. In order; the last of each file is its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which rows are read, and how many at once."""

    start: int
    stop: int
    columns: tuple[str, ...]
    most_rows: int
    most_bytes: int
    """What rows that are read at once should not go beyond, as far as that can be told before."""


@dataclass(slots=True)
class RowsRead:
    """Rows one after another."""

    start: int
    """The number of the first, in the input."""
    table: Batch
    """Their columns, those that were asked for. What stands in a row that failed says nothing."""
    failed: dict[int, RequestError] = field(default_factory=dict[int, RequestError])
    """Position here -> why that row cannot be read."""

    def cut(self, most_rows: int, most_bytes: int) -> Iterator[Self]:
        """The same in pieces: halves, as long as one is over a bound and has more than one row."""
        count = self.table.num_rows
        if count <= 1 or (count <= most_rows and self.table.nbytes <= most_bytes):
            yield self
            return
        half = min(most_rows, count - 1) if count > most_rows else count // 2
        yield from self.part(0, half).cut(most_rows, most_bytes)
        yield from self.part(half, count).cut(most_rows, most_bytes)

    def joined(self, other: Self) -> Self:
        """The same with those that follow."""
        count = self.table.num_rows
        failed = self.failed | {count + place: error for place, error in other.failed.items()}
        return type(self)(self.start, pa.concat_batches([self.table, other.table]), failed)

    def part(self, first: int, last: int) -> Self:
        """The rows at positions `first` to `last`."""
        failed = {place - first: error for place, error in self.failed.items() if first <= place < last}
        return type(self)(self.start + first, self.table.slice(first, last - first), failed)


def regrouped(reads: Iterable[RowsRead], most_rows: int, most_bytes: int) -> Generator[RowsRead]:
    """The same rows, as many at once as two bounds allow, however few of them a file has together.

    So the rows that share a request are the same at every attempt, but where their bytes decide.
    """
    held: RowsRead | None = None
    for read in reads:
        for piece in read.cut(most_rows, most_bytes):
            if held is None:
                held = piece
                continue
            room = min(most_rows - held.table.num_rows, piece.table.num_rows)
            if room and held.table.nbytes + piece.table.nbytes <= most_bytes:
                held = held.joined(piece.part(0, room))
                rest = piece.part(room, piece.table.num_rows)
                if not rest.table.num_rows:
                    continue
                piece = rest
            yield held
            held = piece
    if held is not None:
        yield held


class Input(abc.ABC):
    """Rows of files.

    Args:
        paths: The files, in order.
        files: What they were when this was opened.
        schema: Names and types of the columns.

    Raises:
        SetupError: There is no row, or two columns have one name.
    """

    format: str
    typed = True
    """Whether the types of columns are the file's own. In CSV, everything is text."""
    marks: Marks | None = None
    """What opening it again goes by, where it costs more than a look at the files."""

    def __init__(self, paths: Sequence[str], files: Sequence[FileIdentity], schema: Schema) -> None:
        self.identity = InputIdentity(format=self.format, files=tuple(files))
        self.schema = schema
        self._paths = list(paths)
        self.root = os.path.commonpath(self._paths)
        """The file, or a folder that all of them are in."""
        self._ends: list[int] = list(accumulate(file.rows for file in files))
        if not self.rows:
            raise SetupError(f"input {self.root}: there is no row in it")
        names: list[str] = schema.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SetupError(f"input {self._paths[0]}: two columns are called {twice!r}")

    @property
    def rows(self) -> int:
        """Rows in all."""
        return self.identity.rows

    @abc.abstractmethod
    def read(self, reading: Reading) -> Iterator[RowsRead]:
        """Every row from `start` to `stop`, in order. A part of a file that is broken is rows that failed.

        Raises:
            SetupError: A file is not what it was when this was opened.
            OSError: The system cannot read.
        """

    @abc.abstractmethod
    def identify(self, index: int) -> FileIdentity:
        """A file as it is now, its rows aside. Raises OSError, SetupError."""

    def as_floats(self, names: Sequence[str]) -> None:
        """Columns that are read as numbers with fractions, whatever was seen of them. Nothing to do in most formats."""

    def close(self) -> None:
        """Let go of open files."""

    def check(self, start: int, stop: int) -> None:
        """See that the files of some rows are still what they were.

        Raises:
            SetupError: One is not.
            OSError: One cannot be looked at.
        """
        for index, _, _ in self._stretches(start, stop):
            self._check_file(index)

    def _check_file(self, index: int) -> None:
        known, path = self.identity.files[index], self._paths[index]
        try:
            if stat_of(path) == (known.size, known.mtime_ns):
                return
            wrong = known.differs(replace(self.identify(index), rows=known.rows))
        except FileNotFoundError:
            wrong = f"{known.name} is gone"
        if wrong:
            raise SetupError(f"the input is not what it was when the batch began: {wrong}")

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """File, and its own rows from and to, for rows of the input."""
        index = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            before = self._ends[index - 1] if index else 0
            last = min(stop, self._ends[index])
            if last > start:
                yield index, start - before, last - before
            start, index = max(start, last), index + 1

    def _first_row(self, index: int) -> int:
        return self._ends[index - 1] if index else 0


def name_below(root: os.PathLike[str] | str, path: str) -> str:
    """What a file of an input is called."""
    return os.path.basename(path) if os.path.samefile(root, path) else os.path.relpath(path, root)


def reason(error: BaseException) -> str:
    """Why something could not be read, in one short line."""
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(text.split())[:300]


def system_fault(error: BaseException) -> bool:
    """Whether it was the system that failed, and not the file that is broken: pyarrow raises OSError for both."""
    return isinstance(error, OSError) and error.errno is not None


def unread(start: int, count: int, columns: Sequence[str], schema: Schema, text: str) -> RowsRead:
    """Rows that cannot be read, all for one reason."""
    types = [schema.field(name).type for name in columns]
    table = pa.RecordBatch.from_arrays([pa.nulls(count, one) for one in types], names=list(columns))
    return RowsRead(start, table, {place: InvalidInput(text) for place in range(count)})
