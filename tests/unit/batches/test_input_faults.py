from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.batches import Input, folder_files, open_input
from mesh.batches.arrow import pa
from mesh.batches.arrow import parquet as pq
from mesh.batches.inputs import Reading
from mesh.errors import SetupError


def read(
    source: Input, start: int = 0, stop: int | None = None, most_rows: int = 100
) -> tuple[list[object], dict[int, str]]:
    """Values of the last column, and by row why it cannot be read."""
    found: list[object] = []
    failed: dict[int, str] = {}
    columns = tuple(source.schema.names)
    stop = source.rows if stop is None else stop
    for rows in source.read(Reading(start=start, stop=stop, columns=columns, most_rows=most_rows, most_bytes=1 << 20)):
        assert rows.start == start + len(found)
        failed |= {rows.start + place: str(error) for place, error in rows.failed.items()}
        found += rows.table.column(columns[-1]).to_pylist()
    assert len(found) == stop - start
    return found, failed


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", b"", "there is no header in it"),
        ("a.csv", b"x,y\n", "there is no row in it"),
        ("a.csv", b"x,x\n1,2\n", "two columns are called 'x'"),
        ("a.csv", b"x,y\r1,2\r3,4\r", "its lines end with a carriage return alone"),
        ("a.csv", "x\n1\n".encode("utf-16"), "it is UTF-16, where UTF-8 is read"),
        ("a.csv", b"\xff,x\n1,2\n", "its header is not UTF-8"),
        ("a.csv", b'x,y\n"1,2\n', "row 0, from byte 4 on, has no end: a quote in it is never closed"),
        ("a.jsonl", b"", "there is no row in it"),
        ("a.jsonl", b"[1]\n2\n", "its lines are no JSON objects"),
        ("a.parquet", b"", "not read as Parquet"),
        ("a.parquet", b"PAR1 but not really, of course PAR1", "not read as Parquet"),
        ("a.npy", b"", "not read as .npy"),
        ("a.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", "not read as .npy"),
        ("a.txt", b"hello", r"its name ends in none of \.parquet, \.csv"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_or_has_no_rows_is_refused(
    tmp_path: Path, name: str, content: bytes, text: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetupError, match=text) as refused:
        open_input(tmp_path / name)
    assert name in str(refused.value)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.float32(1), "it is a scalar"),
        (np.ones((3, 4), order="F"), "Fortran order"),
        (np.array([{}], object), "holds Python objects"),
        (np.ones(3, "complex64"), "dtype is complex64"),
        (np.ones((0, 4)), "no row in it"),
    ],
)
def test_arrays_that_no_column_is_made_of_are_refused(tmp_path: Path, array: Any, text: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SetupError, match=text):
        open_input(tmp_path / "a.npy")


def test_what_is_not_there_or_cannot_be_told_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="no such file or folder"):
        open_input(tmp_path / "none.csv")
    with pytest.raises(SetupError, match="input format 'xls' is none of parquet, csv, jsonl, npy, files"):
        open_input(tmp_path, "xls")
    with pytest.raises(SetupError, match="there is no file in it"):
        open_input(tmp_path)
    with pytest.raises(SetupError, match="there is no csv file in it"):
        open_input(tmp_path, "csv")
    (tmp_path / "a.bin").touch()
    (tmp_path / "b.bin").touch()
    with pytest.raises(SetupError, match="the format 'files' takes a folder"):
        open_input(tmp_path / "a.bin", "files")
    monkeypatch.setattr(folder_files, "MAX_FILES", 1)
    with pytest.raises(SetupError, match="more than 1 files"):
        open_input(tmp_path)


def test_files_that_are_not_alike_are_told_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    with pytest.raises(SetupError, match=r"b\.parquet: there is no column 'y', which a\.parquet has"):
        open_input(tmp_path)
    pq.write_table(pa.table({"x": [1.5], "y": [2]}), tmp_path / "b.parquet")
    with pytest.raises(SetupError, match=r"b\.parquet: column 'x' is double where a\.parquet has int64"):
        open_input(tmp_path)
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "csv" / "b.csv").write_text("b,a\n1,2\n")
    with pytest.raises(SetupError, match=r"b\.csv: its header is not that of a\.csv"):
        open_input(tmp_path / "csv")
    (tmp_path / "npy").mkdir()
    np.save(tmp_path / "npy" / "a.npy", np.ones((1, 2)))
    np.save(tmp_path / "npy" / "b.npy", np.ones((1, 3)))
    with pytest.raises(SetupError, match=r"b\.npy: its rows are float64\[3\] where a\.npy has float64\[2\]"):
        open_input(tmp_path / "npy")


def test_records_of_csv_that_are_unlike_the_header_fail_by_themselves(tmp_path: Path) -> None:
    records = [b"0,a", b"1", b"2,c,d", b"3,\xff", b'4,"e\nf"', b"5,g\rh", b"6,i"]
    (tmp_path / "a.csv").write_bytes(b"n,text\n" + b"\n".join(records))
    found, failed = read(open_input(tmp_path / "a.csv"))
    assert failed == {
        1: "it has 1 fields where the header has 2",
        2: "it has 3 fields where the header has 2",
        3: "column 'text' is not UTF-8",
        5: "it is no CSV: there is a carriage return outside quotes",
    }
    assert [found[0], found[4], found[6]] == ["a", "e\nf", "i"]


def test_lines_of_json_that_are_unlike_the_others_fail_by_themselves(tmp_path: Path) -> None:
    lines = [
        '{"x": 1}',
        "{",
        "[1]",
        '{"x": "a"}',
        "{}",
        '{"y": 3, "x": 5}',
        f'{{"x": {10**30}}}',
        "[" * 100_000,
        '{"x": 7}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = open_input(tmp_path / "a.jsonl")
    found, failed = read(source)
    assert source.schema.names == ["x", "y"]
    assert set(failed) == {1, 2, 3, 6, 7}
    assert failed[1].startswith("it is no JSON: ")
    assert failed[2] == "it is a JSON list, where an object is needed"
    assert failed[3] == "column 'x' is not int64, as it is in other rows"
    assert failed[7] == "it is nested too deeply"
    assert [found[5], found[8]] == [3, None]


def spoilt(path: Path, group: int) -> None:
    """Break the data of a row group, not the footer."""
    chunk = pq.read_metadata(path).row_group(group).column(0)
    content = bytearray(path.read_bytes())
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    content[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)


@pytest.mark.parametrize(("start", "stop"), [(0, 400), (90, 250), (150, 160), (120, 400), (199, 201)])
def test_a_row_group_that_is_broken_is_rows_that_fail_and_the_others_are_read(
    tmp_path: Path, start: int, stop: int
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(400)}), path, row_group_size=100)
    spoilt(path, 1)
    found, failed = read(open_input(path), start, stop, most_rows=30)
    assert set(failed) == set(range(max(start, 100), min(stop, 200)))
    assert all("row group 1 of a.parquet cannot be read" in text for text in failed.values())
    assert [value for value in found if value is not None] == [row for row in range(start, stop) if row not in failed]


def test_ranges_within_a_broken_row_group_fail_whether_or_not_it_was_begun_before(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(400)}), path, row_group_size=100)
    spoilt(path, 1)
    source = open_input(path)
    for start, stop in ((0, 50), (110, 130), (150, 170), (160, 210), (205, 300)):
        _, failed = read(source, start, stop, most_rows=30)
        assert set(failed) == {row for row in range(start, stop) if 100 <= row < 200}


MADE = ("a.parquet", "a.csv", "a.jsonl", "a.npy")


def make(path: Path, value: int) -> None:
    """Nine rows of one value."""
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.table({"x": [value] * 9}), path)
        case ".csv":
            path.write_text("x\n" + f"{value}\n" * 9)
        case ".jsonl":
            path.write_text(f'{{"x": {value}}}\n' * 9)
        case _:
            np.save(path, np.full(9, value))


@pytest.mark.parametrize("name", MADE)
def test_a_file_that_was_changed_meanwhile_is_not_read_on(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    make(path, 1)
    source = open_input(path)
    source.check(0, 9)
    make(path, 2)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SetupError, match=f"not what it was when the batch began: {name} was changed"):
        source.check(0, 9)
    with pytest.raises(SetupError, match="was changed"):
        read(source)
    path.unlink()
    with pytest.raises(SetupError, match=f"{name} is gone"):
        read(source)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_text_that_was_written_again_with_what_it_had_is_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    make(path, 1)
    source = open_input(path)
    make(path, 1)
    os.utime(path, ns=(1, 1))
    source.check(0, 9)
    assert not source.identity.differences(open_input(path).identity)


def test_files_that_are_rows_fail_by_themselves_only_where_they_cannot_be_read(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    source = open_input(tmp_path)
    (tmp_path / "b").write_bytes(b"other")
    with pytest.raises(SetupError, match="the input's b was changed"):
        read(source)
    (tmp_path / "b").unlink()
    with pytest.raises(SetupError, match="the input's b is gone"):
        read(source)
    if os.geteuid():
        (tmp_path / "a").chmod(0)
        assert read(open_input(tmp_path), 0, 1)[1] == {0: "the file cannot be read: Permission denied"}


def test_links_that_lead_out_of_the_folders_that_may_be_read_are_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("s")
    (inside / "a").write_text("a")
    assert open_input(inside, within=[inside]).rows == 1
    with pytest.raises(SetupError, match="does not lie in a folder that batches may read"):
        open_input(outside, within=[inside])
    (inside / "b").symlink_to(outside / "secret")
    with pytest.raises(SetupError, match="does not lie in a folder that batches may read"):
        open_input(inside, within=[inside])
    assert open_input(inside).rows == 2
