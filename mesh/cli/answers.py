"""An answer for people: a table of its rows, or all in one line; and the file that keeps it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mesh.cli.jsonable import json_of_array, json_of_tensors
from mesh.cli.terminal import printable
from mesh.tensors import Array, Tensors, datatype_of

__all__ = ["answer_table", "json_of_branch", "outline", "save_answer"]

ROWS_SHOWN = 20
CELL_SHOWN = 100
"""Characters of one row of one tensor."""
SHOWN = 48
"""Characters of one tensor's first row, where all is one line."""
ROWS_NAMED = 8
"""Row numbers that are shown of a branch that ran on some of them."""


def answer_table(answer: Tensors) -> list[Any]:
    """The first rows as a table, and a line that says how many more there are."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("row", justify="right", style="dim")
    for name, array in answer.items():
        table.add_column(Text(printable(f"{name}: {datatype_of(array)}{list(array.shape)}")))
    for row in range(min(answer.rows, ROWS_SHOWN)):
        table.add_row(str(row), *(Text(_cell(array[row : row + 1])) for array in answer.values()))
    parts: list[Any] = [table]
    if answer.rows > ROWS_SHOWN:
        parts.append(Text(f"… {answer.rows - ROWS_SHOWN} more rows (--json shows all, -o saves them)", style="dim"))
    return parts


def json_of_branch(tensors: Tensors) -> dict[str, Any]:
    """What a branch gives, and of which rows, where not of all."""
    some = {} if tensors.sources is None else {"rows": tensors.sources.tolist()}
    return {"outputs": json_of_tensors(tensors), **some}


def outline(tensors: Tensors) -> str:
    """Each tensor with its type and its first row, in one line; which rows they are, where not all."""
    parts = [f"{name}: {datatype_of(array)}{list(array.shape)}{_first(array)}" for name, array in tensors.items()]
    if tensors.sources is not None:
        rows = tensors.sources.tolist()
        more = ", ..." if len(rows) > ROWS_NAMED else ""
        parts.append(f"of rows {', '.join(map(str, rows[:ROWS_NAMED]))}{more}" if rows else "of no rows")
    return printable("; ".join(parts))


def save_answer(path: Path, answer: Tensors) -> None:
    """Write an .npz file that `numpy.load` reads without pickle; BYTES become fixed-width byte strings."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in answer.items():
            plain = array.astype("S") if array.dtype.hasobject else array
            with archive.open(f"{name.replace('/', '_')}.npy", "w") as file:
                np.lib.format.write_array(file, plain, allow_pickle=False)


def _cell(row: Any) -> str:
    value = json_of_array(row)[0]
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        shown = json.dumps([round(item, 4) if isinstance(item, float) else item for item in value])
    else:
        shown = printable(value) if isinstance(value, str) else json.dumps(value)
    return shown if len(shown) <= CELL_SHOWN else f"{shown[: CELL_SHOWN - 3]}..."


def _first(array: Array) -> str:
    if not array.size:
        return ""
    value = json_of_array(array[:1])[0]
    if isinstance(value, float):
        text = f"{value:.4f}"
    elif isinstance(value, list):
        text = json.dumps([round(item, 4) if isinstance(item, float) else item for item in value])
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return f" {text if len(text) <= SHOWN else f'{text[: SHOWN - 3]}...'}"
