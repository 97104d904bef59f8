from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.batches import Input, open_input
from mesh.batches.arrow import pa
from mesh.batches.arrow import parquet as pq
from mesh.batches.inputs import Reading
from mesh.batches.opening import reopen_input

ROWS = 500
TABLE = pa.table({"id": [f'no. "{row}",\n' for row in range(ROWS)], "n": list(range(ROWS))})


def _parquet(folder: Path) -> None:
    pq.write_table(TABLE.slice(0, 333), folder / "a.parquet", row_group_size=100)
    pq.write_table(TABLE.slice(333).select(["n", "id"]), folder / "b.parquet", row_group_size=7)


def _csv(folder: Path) -> None:
    for name, part in (("a.csv", TABLE.slice(0, 333)), ("b.csv", TABLE.slice(333))):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("id", "n"), *zip(*part.to_pydict().values(), strict=True)])


def _jsonl(folder: Path) -> None:
    for name, part in (("a.jsonl", TABLE.slice(0, 333)), ("b.ndjson", TABLE.slice(333))):
        (folder / name).write_text("\n\n".join(map(json.dumps, part.to_pylist())))


def _npy(folder: Path) -> None:
    array = np.arange(ROWS * 4, dtype=">f4").reshape(ROWS, 2, 2)
    np.save(folder / "a.npy", array[:333])
    np.save(folder / "b.npy", array[333:])


def _files(folder: Path) -> None:
    for row in range(ROWS):
        below = folder / f"{row // 100}"
        below.mkdir(exist_ok=True)
        (below / f"{row:03d}.bin").write_bytes(b"%d" % row)


MADE: dict[str, Callable[[Path], None]] = {
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _jsonl,
    "npy": _npy,
    "files": _files,
}


@pytest.fixture(scope="module", params=MADE)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Input:
    folder = tmp_path_factory.mktemp(request.param)
    MADE[request.param](folder)
    found = open_input(folder)
    assert found.format == request.param
    return found


def values(source: Input, start: int, stop: int, most_rows: int = 64, most_bytes: int = 1 << 20) -> list[Any]:
    reading = Reading(
        start=start, stop=stop, columns=tuple(source.schema.names), most_rows=most_rows, most_bytes=most_bytes
    )
    found: list[Any] = []
    for read in source.read(reading):
        assert read.start == start + len(found)
        assert 0 < read.table.num_rows <= most_rows
        assert not read.failed
        found += read.table.to_pylist()
    return found


def test_every_row_is_there_in_its_order(source: Input) -> None:
    assert source.rows == ROWS
    rows = values(source, 0, ROWS)
    match source.format:
        case "npy":
            assert rows[2] == {"array": [[8, 9], [10, 11]]}
            assert [row["array"][0][0] for row in rows] == [4 * row for row in range(ROWS)]
        case "files":
            assert rows == [{"name": f"{row // 100}/{row:03d}.bin", "content": b"%d" % row} for row in range(ROWS)]
        case "csv":
            assert rows == [{"id": row["id"], "n": str(row["n"])} for row in TABLE.to_pylist()]
        case _:
            assert rows == TABLE.to_pylist()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ranges=st.lists(st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)), min_size=1, max_size=5),
    most_rows=st.integers(1, 200),
    most_bytes=st.sampled_from([1, 100, 1 << 20]),
)
def test_any_ranges_one_after_another_are_read_as_they_are_in_the_whole(
    source: Input, ranges: list[tuple[int, int]], most_rows: int, most_bytes: int
) -> None:
    whole = values(source, 0, ROWS)
    for start, stop in map(sorted, ranges):
        assert values(source, start, stop, most_rows, most_bytes) == whole[start:stop]


def test_an_input_that_is_opened_again_by_what_was_kept_of_it_has_the_same_rows(source: Input, tmp_path: Path) -> None:
    root = Path(source.root)
    again = reopen_input(root, source.identity, source.marks)
    assert again.identity == source.identity
    assert values(again, 100, 400) == values(source, 100, 400)
    again.close()


def test_only_the_columns_that_are_asked_for_are_read(source: Input) -> None:
    name = source.schema.names[-1]
    (read, *_) = source.read(Reading(start=0, stop=5, columns=(name,), most_rows=5, most_bytes=1 << 20))
    assert read.table.schema.names == [name]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_parquet_is_read_whatever_it_is_compressed_with(tmp_path: Path, compression: str) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet", compression=compression)
    assert values(open_input(tmp_path / "a.parquet"), 0, ROWS) == TABLE.to_pylist()


def test_files_that_begin_with_a_dot_or_an_underscore_are_no_part_of_a_folder(tmp_path: Path) -> None:
    _parquet(tmp_path)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "c.txt").touch()
    found = open_input(tmp_path)
    assert (found.format, [file.name for file in found.identity.files]) == ("parquet", ["a.parquet", "b.parquet"])


def test_a_folder_of_several_kinds_is_files_and_what_is_said_of_it_goes_first(tmp_path: Path) -> None:
    _parquet(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert open_input(tmp_path).format == "files"
    assert open_input(tmp_path, "parquet").rows == ROWS


def test_text_that_begins_with_a_mark_of_its_byte_order_is_read_without_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert values(open_input(tmp_path / "a.csv"), 0, 1) == [{"a": "1", "b": "2"}]
    assert values(open_input(tmp_path / "a.jsonl"), 0, 1) == [{"a": 1}]


def test_json_numbers_are_what_they_are_anywhere_in_the_file_and_times_are_text(tmp_path: Path) -> None:
    lines = [json.dumps({"n": row if row < 9000 else row + 0.5, "at": "2024-01-01T00:00:00Z"}) for row in range(10_000)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = open_input(tmp_path / "a.jsonl")
    assert (found.schema.field("n").type, found.schema.field("at").type) == (pa.float64(), pa.string())
    assert values(found, 8999, 9001) == [
        {"n": 8999.0, "at": "2024-01-01T00:00:00Z"},
        {"n": 9000.5, "at": "2024-01-01T00:00:00Z"},
    ]
