"""The soak's own judgement of batches: whatever would be a loss is found to be one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.soak_batches.node import executions
from bench.soak_batches.rows import Found, is_refused, is_unreadable, look_at, mixed, number_of, write_input
from bench.soak_batches.told import sound, table
from mesh.batches.arrow import pa, parquet
from mesh.batches.opening import open_input

ROWS = 1000
Columns = dict[str, list[Any]]


def right(rows: int = ROWS) -> tuple[Columns, Columns]:
    """Results and errors as they should be."""
    row = np.arange(rows)
    bad = is_unreadable(row) | is_refused(number_of(row))
    good, failed = row[~bad], row[bad]
    results: Columns = {
        "row": good.tolist(),
        "id": [f"r{one}" for one in good],
        "mixed": mixed(number_of(good)).tolist(),
    }
    texts = ["column 'n' is null" if one else "n is one of those that are refused" for one in is_unreadable(failed)]
    errors: Columns = {
        "row": failed.tolist(),
        "code": ["INVALID_ARGUMENT"] * len(failed),
        "message": texts,
        "id": [f"r{one}" for one in failed],
    }
    return results, errors


def written(output: Path, results: Columns, errors: Columns) -> Path:
    """A folder that holds them, in two parts."""
    (output / "parts").mkdir(parents=True)
    whole = pa.table(results)
    for number, part in enumerate((whole.slice(0, 500), whole.slice(500))):
        parquet.write_table(part, output / "parts" / f"part-{number:05d}.parquet")
    parquet.write_table(pa.table(errors), output / "errors.parquet")
    counts = {"rows": ROWS, "rows_done": len(results["row"]), "rows_failed": len(errors["row"])}
    (output / "manifest.json").write_text(json.dumps(counts))
    return output


def test_rows_that_are_all_there_once_are_sound(tmp_path: Path) -> None:
    results, errors = right()
    assert len(errors["row"]) == 12
    found = look_at(written(tmp_path / "out", results, errors), ROWS)
    assert found == Found(done=988, failed=12, missing=0, doubled=0, faults=found.faults)
    assert not found.faults


def without(columns: Columns, place: int) -> Columns:
    return {name: values[:place] + values[place + 1 :] for name, values in columns.items()}


@pytest.mark.parametrize(
    ("which", "column", "value", "missing", "doubled", "fault"),
    [
        (0, "", None, 1, 0, ""),
        (1, "", None, 1, 0, ""),
        (0, "row", 1, 1, 1, "a wrong answer"),
        (1, "row", 1, 1, 1, "a wrong error"),
        (0, "mixed", 5, 0, 0, "a wrong answer"),
        (0, "id", "r1", 0, 0, "kept of another row"),
        (1, "message", "gone", 0, 0, "a wrong error"),
        (1, "code", "INTERNAL", 0, 0, "a wrong error"),
        (0, "row", ROWS, 1, 0, "a row that the input does not have"),
    ],
    ids=["no answer", "no error", "doubled", "both", "wrong", "mixed up", "message", "code", "beyond the end"],
)
def test_whatever_is_lost_is_found(
    which: int, column: str, value: object, missing: int, doubled: int, fault: str, tmp_path: Path
) -> None:
    sides = list(right())
    # The first row has another value in that column; or there is a row less.
    spoilt = sides[which]
    sides[which] = {**spoilt, column: [value, *spoilt[column][1:]]} if column else without(spoilt, 3)
    found = look_at(written(tmp_path / "out", *sides), ROWS)
    assert (found.missing, found.doubled) == (missing, doubled)
    assert fault in found.faults if fault else not found.faults


def test_what_was_left_behind_and_a_manifest_that_counts_others_are_faults(tmp_path: Path) -> None:
    output = written(tmp_path / "out", *right())
    (output / ".mesh").mkdir()
    (output / "manifest.json").write_text(json.dumps({"rows": ROWS, "rows_done": ROWS, "rows_failed": 0}))
    faults = {"the manifest counts other rows": 1, "something was left in the output folder": 1}
    assert look_at(output, ROWS).faults == faults


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_the_input_has_the_rows_that_it_should(name: str, tmp_path: Path) -> None:
    write_input(tmp_path / name, ROWS)
    source = open_input(tmp_path / name)
    assert (source.rows, sorted(source.schema.names)) == (ROWS, ["id", "n"])
    source.close()


def test_shards_that_were_begun_more_than_once_are_counted(tmp_path: Path) -> None:
    # Rows 0 to 9 of shards of 50; row 5 has no number, and is not asked for.
    first = [f"{number} {count}" for number, count in zip(number_of(np.array([0, 50])).tolist(), (9, 10), strict=True)]
    asked = [first[0], "3 8", first[1], f"{number_of(np.array([60]))[0]} 10", first[1]]
    (tmp_path / "asked.log").write_text("\n".join(asked) + "\n")
    assert executions(tmp_path / "asked.log", 150, 50, 10) == [1, 2, 0]


def test_a_run_is_sound_only_where_nothing_was_lost_and_enough_was_killed() -> None:
    told: dict[str, Any] = {
        "rows": 10,
        "done": 9,
        "failed": 1,
        "missing": 0,
        "doubled": 0,
        "faults": {},
        "parts_changed": 0,
        "kills": {"worker": 2, "everything": 1},
        "shards": 5,
        "done_again": 4,
        "most_again": 4,
        "survivors": 0,
        "seconds": 1.0,
    }
    assert sound(told, 3)
    assert not sound(told, 4)
    wrong = {"missing": 1, "doubled": 1, "faults": {"x": 1}, "parts_changed": 1, "survivors": 1, "failed": 0}
    for name, value in {**wrong, "done_again": 5}.items():
        assert not sound({**told, name: value}, 3), name
    assert "| rows missing | **0** |" in table({"runs": {"mesh up": told}})
