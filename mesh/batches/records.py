"""Where the records of a text file begin: found in one pass, so that reading can start near any row.

A record of JSON lines ends with its line. One of CSV ends with the first line end outside quotes; a quote counts only
where a field begins (RFC 4180), so an inch in the middle of one is nothing. Empty lines are no records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from blake3 import blake3

from mesh.errors import SetupError
from mesh.tensors import Array

__all__ = ["MARK_BYTES", "MARK_ROWS", "MAX_RECORD_BYTES", "Records", "scan", "split"]

MARK_ROWS = 4096
"""Records between two places where reading can start, at most."""
MARK_BYTES = 4 << 20
"""Bytes between them, but for a longer record."""
MAX_RECORD_BYTES = 64 << 20

_NEWLINE, _QUOTE, _RETURN, _COMMA = b"\n"[0], b'"'[0], b"\r"[0], b","[0]


@dataclass(slots=True)
class Records:
    """What a pass over a file found."""

    rows: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Row and byte where reading can start; the last is the end."""
    digest: str = ""
    """Hex BLAKE3 of the file, 32 characters."""


def scan(
    file: BinaryIO,
    *,
    first: int,
    quoted: bool,
    block_bytes: int = MARK_BYTES,
    mark_rows: int = MARK_ROWS,
    mark_bytes: int = MARK_BYTES,
    most_bytes: int | None = None,
) -> Records:
    """Find the records of a file.

    Args:
        file: Open, at its start.
        first: The byte that the first record begins at.
        quoted: Whether line ends may be quoted.
        block_bytes: How much is looked at at once.
        mark_rows: Records between two marks, at most.
        mark_bytes: Bytes between them, but for a longer record.
        most_bytes: Where to stop, for a glance at the beginning; a record that goes on there is not counted.

    Raises:
        SetupError: A record is longer than 64 MiB, or a quote is never closed.
        OSError: It cannot be read.
    """
    scanning, hashing = _Scanning(first, mark_rows, mark_bytes, quoted=quoted), blake3()
    offset, carried = 0, b""
    while (most_bytes is None or offset < most_bytes) and (block := file.read(block_bytes)):
        hashing.update(block)
        skipped = min(max(0, first - offset), len(block))
        offset += len(block)
        block = carried + block[skipped:]
        whole = block.rfind(b"\n") + 1
        scanning.lines(block[:whole])
        carried = block[whole:]
        if len(carried) > MAX_RECORD_BYTES:
            raise scanning.too_long()
    if most_bytes is not None and file.read(1):
        return Records(scanning.rows, [(0, first), (scanning.rows, offset)])
    if carried:
        scanning.lines(carried + b"\n")
    return scanning.end(offset, hashing.hexdigest(length=16))


class _Scanning:
    def __init__(self, first: int, mark_rows: int, mark_bytes: int, *, quoted: bool) -> None:
        self._mark_rows, self._mark_bytes = mark_rows, mark_bytes
        self._quoted = quoted
        self._inside = False
        """Whether the next line begins inside quotes."""
        self._start = first
        """Where the record begins that is not over."""
        self._seen = first
        self._rows = 0
        self._marks = [(0, first)]

    @property
    def rows(self) -> int:
        """Records that have ended."""
        return self._rows

    def lines(self, lines: bytes) -> None:
        """Some whole lines, after those before."""
        found = np.frombuffer(lines, np.uint8)
        ends = np.flatnonzero(found == _NEWLINE)
        if self._quoted:
            outside, self._inside = _outside(lines, found, ends, inside=self._inside)
            ends = ends[outside]
        if len(ends):
            # Where each record begins: the first perhaps before these lines.
            begins = np.concatenate(([self._start - self._seen], ends[:-1] + 1))
            lengths = ends - begins
            empty = (lengths == 0) | ((lengths == 1) & (found[ends - 1] == _RETURN))
            if int(lengths.max()) > MAX_RECORD_BYTES:
                raise self.too_long()
            self._mark(begins[~empty] + self._seen)
            self._start = self._seen + int(ends[-1]) + 1
        self._seen += len(lines)
        if self._seen - self._start > MAX_RECORD_BYTES:
            raise self.too_long()

    def _mark(self, begins: Array) -> None:
        """Count records, by the byte that each begins at."""
        place = 0
        while True:
            row, byte = self._marks[-1]
            by_rows = row + self._mark_rows - self._rows
            by_bytes = int(np.searchsorted(begins, byte + self._mark_bytes))
            place = max(place, min(by_rows, by_bytes))
            if place >= len(begins):
                break
            if self._rows + place > row:
                self._marks.append((self._rows + place, int(begins[place])))
            place += 1
        self._rows += len(begins)

    def too_long(self) -> SetupError:
        """What is said of a record without end."""
        why = "a quote in it is never closed?" if self._inside else f"longer than {MAX_RECORD_BYTES} bytes"
        return SetupError(f"row {self._rows}, from byte {self._start} on, has no end: {why}")

    def end(self, size: int, digest: str) -> Records:
        """What was found, after the last line."""
        if self._inside:
            raise self.too_long()
        return Records(self._rows, [*self._marks, (self._rows, size)], digest)


def _outside(lines: bytes, found: Array, ends: Array, *, inside: bool) -> tuple[Array, bool]:
    """For each line of CSV whether its end is outside quotes; and whether the next one begins inside."""
    quotes = np.flatnonzero(found == _QUOTE)
    if not len(quotes):
        return np.full(len(ends), not inside), inside
    opening = quotes[int(inside) :: 2]
    # Quotes come in pairs, unless one stands within a field that does not begin with one.
    before = np.where(opening > 0, found[opening - 1], _NEWLINE)
    if np.isin(before, (_COMMA, _NEWLINE, _QUOTE)).all():
        counted = np.searchsorted(quotes, ends) + int(inside)
        return counted % 2 == 0, bool((len(quotes) + int(inside)) % 2)
    outside = np.empty(len(ends), np.bool_)
    start = 0
    for number, end in enumerate(ends.tolist()):
        inside = _ends_inside(lines[start:end], inside=inside)
        outside[number] = not inside
        start = end + 1
    return outside, inside


def _ends_inside(line: bytes, *, inside: bool) -> bool:
    """Whether the end of a line is quoted."""
    if b'"' not in line:
        return inside
    place = 0
    while True:
        if not inside and line[place : place + 1] == b'"':
            inside, place = True, place + 1
        if inside:
            quote = line.find(b'"', place)
            if quote < 0:
                return True
            if line[quote + 1 : quote + 2] == b'"':
                place = quote + 2
                continue
            inside, place = False, quote + 1
        comma = line.find(b",", place)
        if comma < 0:
            return False
        place = comma + 1


def split(data: bytes, *, quoted: bool) -> Iterator[bytes]:
    """The records of a part of a file that begins and ends with whole ones, without their line ends."""
    inside, kept = False, b""
    for line in data.split(b"\n"):
        kept = kept + b"\n" + line if inside else line
        inside = quoted and _ends_inside(line, inside=inside)
        record = kept.removesuffix(b"\r")
        if not inside and record:
            yield record
