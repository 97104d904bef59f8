"""The rows of a soak: what is in each, what should become of it, and whether that is what an output folder holds."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mesh.batches.arrow import pa, parquet
from mesh.tensors import Array

__all__ = [
    "REFUSED",
    "UNREADABLE",
    "Found",
    "is_refused",
    "is_unreadable",
    "look_at",
    "mixed",
    "number_of",
    "write_input",
]

REFUSED = "n is one of those that are refused"
"""What the node says of a row that it has no answer for."""
UNREADABLE = "column 'n' "
"""How it begins what is said of a row without a number."""
_STEP, _FIRST = 7, 3
_GROUP_ROWS = 30_000


def number_of(row: Array) -> Array:
    """What the row's tensor holds: INT64[rows]."""
    return row * _STEP + _FIRST


def is_refused(n: Array) -> Array:
    """Of which the node says that it has no answer: BOOL[rows], one in 157."""
    return n // _STEP % 157 == 11


def is_unreadable(row: Array) -> Array:
    """Rows whose number is not in the file: BOOL[rows], one in 211."""
    return row % 211 == 5


def mixed(n: Array) -> Array:
    """The answer, another one for each number: INT64[rows]. The finalizer of splitmix64 (Vigna), less a bit."""
    with np.errstate(over="ignore"):
        x: Array = n.astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def write_input(path: Path, rows: int) -> None:
    """So many rows, as Parquet or as CSV: `n`, null or no number where it is unreadable, and `id`."""
    row = np.arange(rows)
    n, without = number_of(row), is_unreadable(row)
    ids = [f"r{one}" for one in row.tolist()]
    if path.suffix == ".csv":
        texts = ["none" if missing else str(one) for one, missing in zip(n.tolist(), without.tolist(), strict=True)]
        path.write_text("".join(["id,n\n", *(f"{one},{text}\n" for one, text in zip(ids, texts, strict=True))]))
        return
    parquet.write_table(pa.table({"id": ids, "n": pa.array(n, mask=without)}), path, row_group_size=_GROUP_ROWS)


@dataclass(frozen=True, slots=True)
class Found:
    """What is in an output folder."""

    done: int
    """Rows with the answer that they should have."""
    failed: int
    """Rows with the error that they should have."""
    missing: int
    doubled: int
    """Rows that are there more than once, in the results, in the errors, or in both."""
    faults: Counter[str]
    """Everything else that is not as it should be."""


def look_at(output: Path, rows: int) -> Found:
    """Hold every row of an output folder against what it should be."""
    faults: Counter[str] = Counter()
    results: Any = parquet.read_table(output / "parts").to_pydict()
    errors: Any = parquet.read_table(output / "errors.parquet").to_pydict()
    row, failed = np.array(results["row"], np.int64), np.array(errors["row"], np.int64)
    seen = np.bincount(np.concatenate([row, failed]), minlength=rows)
    if len(seen) > rows:
        faults["a row that the input does not have"] += int(seen[rows:].sum())
    good = ~(is_unreadable(row) | is_refused(number_of(row)))
    right = good & (np.array(results["mixed"], np.int64) == mixed(number_of(row)))
    faults["a wrong answer"] += int((~right).sum())
    faults["kept of another row"] += _others(row, results["id"]) + _others(failed, errors["id"])
    expected = [
        (UNREADABLE, "INVALID_ARGUMENT") if missing else (REFUSED, "INVALID_ARGUMENT") if refused else ("", "OK")
        for missing, refused in zip(is_unreadable(failed).tolist(), is_refused(number_of(failed)).tolist(), strict=True)
    ]
    told = zip(errors["message"], errors["code"], expected, strict=True)
    alike = [code == wanted and bool(text) and message.startswith(text) for message, code, (text, wanted) in told]
    faults["a wrong error"] += alike.count(False)
    manifest = json.loads((output / "manifest.json").read_bytes())
    if (manifest["rows"], manifest["rows_done"], manifest["rows_failed"]) != (rows, len(row), len(failed)):
        faults["the manifest counts other rows"] += 1
    if sorted(one.name for one in output.iterdir()) != ["errors.parquet", "manifest.json", "parts"]:
        faults["something was left in the output folder"] += 1
    return Found(
        done=int(right.sum()),
        failed=alike.count(True),
        missing=int((seen[:rows] == 0).sum()),
        doubled=int((seen > 1).sum()),
        faults=+faults,
    )


def _others(row: Array, ids: list[str]) -> int:
    return sum(f"r{one}" != kept for one, kept in zip(row.tolist(), ids, strict=True))
