from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.batches import open_input
from mesh.batches.arrow import pa
from mesh.batches.columns import feeds_of, kept_columns
from mesh.errors import SetupError
from mesh.signature import Signature
from tests.unit.batches.given import lists, parquet_file

TABLE = pa.table(
    {
        "age": [1, 2],
        "height": [1.5, 2.5],
        "name": ["a", "b"],
        "pixel_0": [0.0, 1.0],
        "pixel_1": [0.0, 1.0],
        "picture": lists(np.zeros((2, 4), np.float32)),
        "rows": pa.array([[[1.0, 2.0]], [[3.0, 4.0]]]),
        "when": pa.array([0, 1], pa.timestamp("s")),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
    }
)


def fed(tmp_path: Path, takes: str, mapping: dict[str, str] | None = None, table: Any = TABLE) -> dict[str, Any]:
    source = open_input(parquet_file(tmp_path / "a.parquet", table))
    signature = Signature.parse(f"{takes} -> y: FP32[rows]")
    return {feed.tensor: feed.columns for feed in feeds_of(signature.inputs, mapping or {}, source)}


def test_a_tensor_is_fed_by_the_column_of_its_name_or_by_the_one_that_is_said(tmp_path: Path) -> None:
    assert fed(tmp_path, "age: FP32[rows], x: BYTES[rows]", {"x": "name"}) == {"age": ("age",), "x": ("name",)}


def test_a_tensor_is_fed_by_several_scalar_columns_side_by_side(tmp_path: Path) -> None:
    assert fed(tmp_path, "x: FP32[rows, 2]", {"x": "pixel_*"}) == {"x": ("pixel_0", "pixel_1")}
    assert fed(tmp_path, "x: FP32[rows, ?]", {"x": "height, age"}) == {"x": ("height", "age")}


def test_one_tensor_and_one_column_belong_together_whatever_they_are_called(tmp_path: Path) -> None:
    assert fed(tmp_path, "x: FP32[rows]", table=TABLE.select(["height"])) == {"x": ("height",)}
    (tmp_path / "a.bin").touch()
    (tmp_path / "a.parquet").unlink()
    folder = open_input(tmp_path)
    (feed,) = feeds_of(Signature.parse("file: BYTES[rows] -> y: FP32[rows]").inputs, {}, folder)
    assert feed.columns == ("content",)


@pytest.mark.parametrize(
    ("takes", "mapping", "text"),
    [
        ("heigth: FP32[rows]", {}, r"tensor 'heigth': .* no column of that name \(did you mean 'height'\?\)"),
        ("x: FP32[rows]", {"x": "hight"}, r"tensor 'x': the input has no column 'hight' \(did you mean 'height'\?\)"),
        ("x: FP32[rows]", {"y": "age"}, r"the graph has no input 'y'"),
        ("x: FP32[rows, 2]", {"x": "pixels_*"}, r"no column of the input matches 'pixels_\*'"),
        ("x: FP32[rows, 2]", {"x": "height, agee"}, r"no column 'agee' \(did you mean 'age'\?\)"),
        ("x: FP32[rows, 3]", {"x": "pixel_*"}, r"takes FP32\[rows, 3\], which 2 columns do not make"),
        ("x: FP32[rows, 2]", {"x": "age,picture"}, "each of those has to be scalar"),
        ("x: FP32[rows]", {"x": "name"}, r"column 'name' is string, and tensor 'x' takes FP32\[rows\]"),
        ("x: BYTES[rows]", {"x": "age"}, r"column 'age' is int64, and tensor 'x' takes BYTES\[rows\]"),
        ("x: BOOL[rows]", {"x": "age"}, "column 'age' is int64"),
        ("x: INT64[rows]", {"x": "when"}, r"column 'when' is timestamp"),
        ("x: FP32[rows, 3]", {"x": "picture"}, r"it has shape \[4\]"),
        ("x: FP32[rows, ?, 3]", {"x": "picture"}, r"it has shape \[4\]"),
        ("x: FP32[rows]", {"x": "picture"}, r"it has shape \[4\]"),
        ("x: FP32[rows, 2]", {"x": "height"}, r"it has shape \[\]"),
        ("x: FP32[rows, 2]", {"x": "rows"}, "lists of 2 levels where it has 1 dimensions"),
    ],
)
def test_what_cannot_feed_a_tensor_is_told_before_anything_runs(
    tmp_path: Path, takes: str, mapping: dict[str, str], text: str
) -> None:
    with pytest.raises(SetupError, match=text):
        fed(tmp_path, takes, mapping)


@pytest.mark.parametrize(
    ("takes", "column"),
    [
        ("x: FP64[rows, 1]", "age"),
        ("x: INT32[rows, 1, 1]", "height"),
        ("x: FP32[rows, 2, 2]", "picture"),
        ("x: FP32[rows, ?, 2]", "picture"),
        ("x: FP32[rows, 1, 2]", "rows"),
        ("x: FP32[rows, ...]", "rows"),
        ("x: BYTES[rows, 1]", "kind"),
    ],
)
def test_what_can_feed_a_tensor_does(tmp_path: Path, takes: str, column: str) -> None:
    assert fed(tmp_path, takes, {"x": column}) == {"x": (column,)}


def test_everything_may_be_read_out_of_the_text_of_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    source = open_input(tmp_path / "a.csv")
    for datatype in ("FP32", "INT8", "BOOL", "BYTES"):
        feeds_of(Signature.parse(f"a: {datatype}[rows] -> y: FP32[rows]").inputs, {}, source)


@pytest.mark.parametrize(
    ("keep", "text"),
    [
        (["nmae"], r"no column 'nmae' \(did you mean 'name'\?\)"),
        (["name", "name"], "'name' comes twice"),
        (["age"], "an output of the graph is called 'age', too"),
        (["row"], "the column 'row' is the number of the row"),
    ],
)
def test_columns_that_cannot_be_kept_are_told(keep: list[str], text: str) -> None:
    schema = pa.schema([("row", pa.int64()), ("name", pa.string()), ("age", pa.int64())])
    with pytest.raises(SetupError, match=text):
        kept_columns(keep, schema, ["age"])
