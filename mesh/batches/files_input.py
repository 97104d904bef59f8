"""A folder whose files are rows: the bytes of each, and its name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from blake3 import blake3

from mesh.batches.arrow import pa
from mesh.batches.identity import FileIdentity, hashed, stat_of
from mesh.batches.inputs import Input, Reading, RowsRead, reason
from mesh.errors import InvalidInput, RequestError, SetupError

__all__ = ["CONTENT", "NAME", "FilesInput"]

NAME, CONTENT = "name", "content"
"""The columns: the path below the folder, with `/`, and the bytes."""
_MOST_FILE_BYTES = 1 << 30


class FilesInput(Input):
    """Files as rows, in the order of their names.

    Args:
        root: The folder.
        paths: The files.
    """

    format = "files"

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self._root = root
        self._names = [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]
        whole, self._seen = _looked_at(root, paths)
        super().__init__([str(root)], [whole], pa.schema([(NAME, pa.string()), (CONTENT, pa.large_binary())]))
        self._below = list(paths)

    @classmethod
    def open(cls, root: Path, paths: Sequence[str]) -> Self:
        """Look at every file's size and time. Raises SetupError where one cannot be looked at."""
        return cls(root, paths)

    def identify(self, index: int) -> FileIdentity:
        return _looked_at(self._root, self._below)[0]

    def check(self, start: int, stop: int) -> None:
        for row in range(start, stop):
            self._check_row(row)

    def _check_row(self, row: int) -> None:
        try:
            if stat_of(self._below[row]) == self._seen[row]:
                return
        except FileNotFoundError:
            raise SetupError(f"the input's {self._names[row]} is gone") from None
        raise SetupError(f"the input's {self._names[row]} was changed since the batch began")

    def read(self, reading: Reading) -> Iterator[RowsRead]:
        wanted = CONTENT in reading.columns
        row = reading.start
        while row < reading.stop:
            first, held = row, 0
            contents: list[bytes | None] = []
            failed: dict[int, RequestError] = {}
            while row < reading.stop and len(contents) < reading.most_rows:
                size = self._seen[row][0] if wanted else 0
                if contents and held + size > reading.most_bytes:
                    break
                held += size
                try:
                    contents.append(self._content(row) if wanted else None)
                except InvalidInput as error:
                    failed[len(contents)] = error
                    contents.append(None)
                row += 1
            columns = {
                NAME: pa.array(self._names[first:row], pa.string()),
                CONTENT: pa.array(contents, pa.large_binary()),
            }
            yield RowsRead(first, pa.RecordBatch.from_pydict({name: columns[name] for name in reading.columns}), failed)

    def _content(self, row: int) -> bytes:
        """Raises InvalidInput where that file cannot be read: it is one row, and the others can."""
        self._check_row(row)
        if self._seen[row][0] > _MOST_FILE_BYTES:
            raise InvalidInput(f"the file has more than {_MOST_FILE_BYTES} bytes")
        try:
            with open(self._below[row], "rb") as file:
                return file.read(_MOST_FILE_BYTES)
        except OSError as error:
            raise InvalidInput(f"the file cannot be read: {reason(error)}") from None


def _looked_at(root: Path, paths: Sequence[str]) -> tuple[FileIdentity, list[tuple[int, int]]]:
    """All files as one, and the size and time of each."""
    hashing = blake3()
    seen: list[tuple[int, int]] = []
    for path in paths:
        try:
            size, mtime_ns = stat_of(path)
        except OSError as error:
            raise SetupError(f"input {path}: {reason(error)}") from None
        seen.append((size, mtime_ns))
        below = os.fsencode(os.path.relpath(path, root))
        hashing.update(bytes.fromhex(hashed(below, size.to_bytes(8, "little"), mtime_ns.to_bytes(16, "little"))))
    whole = FileIdentity(
        name=f"{root.name}/",
        size=sum(size for size, _ in seen),
        mtime_ns=max((mtime_ns for _, mtime_ns in seen), default=0),
        rows=len(seen),
        digest=hashing.hexdigest(length=16),
    )
    return whole, seen
