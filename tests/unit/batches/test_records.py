from __future__ import annotations

import csv
import io
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.batches import records
from mesh.batches.records import scan, split
from mesh.errors import SetupError

FIELD = st.text('ab,\n\r" ', max_size=5)


def written(rows: list[list[str]], end: str, quoting: int) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return file.getvalue().encode()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(FIELD, min_size=2, max_size=2), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.integers(1, 40),
    st.integers(1, 4),
    st.booleans(),
)
def test_the_records_of_any_csv_are_found_whatever_is_quoted_and_however_it_is_read(
    rows: list[list[str]], end: str, quoting: int, block: int, apart: int, cut: bool
) -> None:
    if quoting == csv.QUOTE_MINIMAL:
        # Python quotes a carriage return by itself only where lines end with one.
        rows = [[field.replace("\r", "") for field in row] for row in rows]
    data = written(rows, end, quoting)
    if cut:
        data = data.removesuffix(end.encode())
    found = scan(io.BytesIO(data), first=0, quoted=True, block_bytes=block, mark_rows=apart, mark_bytes=1 << 20)
    assert found.rows == len(rows)
    assert found.marks[0] == (0, 0)
    assert found.marks[-1] == (len(rows), len(data))
    read: list[list[str]] = []
    for (row, byte), (next_row, next_byte) in pairwise(found.marks):
        assert next_row - row <= apart
        part = list(split(data[byte:next_byte], quoted=True))
        assert len(part) == next_row - row
        read += [next(csv.reader(io.StringIO(record.decode(), newline=""))) for record in part]
    assert read == rows


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text('a"{} ,', max_size=6)), st.integers(1, 30), st.integers(1, 20))
def test_lines_are_records_of_json_whatever_is_in_them_and_empty_ones_are_none(
    lines: list[str], block: int, apart: int
) -> None:
    data = "\n".join(lines).encode()
    found = scan(io.BytesIO(data), first=0, quoted=False, block_bytes=block, mark_rows=1000, mark_bytes=apart)
    assert found.rows == sum(map(bool, lines)) == len(list(split(data, quoted=False)))
    for row, byte in found.marks[1:-1]:
        assert data[byte - 1 : byte] == b"\n"
        assert len(list(split(data[:byte], quoted=False))) == row


def test_a_quote_inside_a_field_that_does_not_begin_with_one_is_a_character() -> None:
    data = b'size,what\n5" pipe,a\n6" pipe,"b\nc"\n7",d\n'
    assert scan(io.BytesIO(data), first=10, quoted=True).rows == 3
    assert list(split(data, quoted=True)) == [b"size,what", b'5" pipe,a', b'6" pipe,"b\nc"', b'7",d']


def test_a_quote_that_is_never_closed_is_told_with_its_row() -> None:
    with pytest.raises(SetupError, match=r"row 1, from byte 4 on, has no end: a quote in it is never closed\?"):
        scan(io.BytesIO(b'a,b\n"c,d\ne,f\n'), first=0, quoted=True)


def test_a_record_that_does_not_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 100)
    for quoted in (True, False):
        with pytest.raises(SetupError, match="row 1, from byte 2 on, has no end: longer than 100 bytes"):
            scan(io.BytesIO(b"a\n" + b"b" * 200), first=0, quoted=quoted, block_bytes=16)
