"""`Value`: a part of an expression that is right; and what is said of parts that are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mesh.tensors import DATATYPES
from mesh.topology.expressions.operations import Run, squeezed
from mesh.topology.expressions.sorts import ONE_A_ROW, Kind, Sort
from mesh.topology.expressions.tree import Edge, Slice, Tree, leaves

__all__ = [
    "A",
    "Chosen",
    "Value",
    "chosen",
    "instead",
    "kind_of_value",
    "never",
    "one_a_row",
    "shown",
    "tensor_of",
    "told",
]

A: dict[Kind, str] = {"BOOL": "a BOOL", "number": "a number", "text": "a text"}
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Value:
    """A part of an expression that is right."""

    tree: Tree
    sort: Sort
    run: Run
    constant: Any = None
    """Its value where that is known: of literals and what is computed from them alone."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What one item of an index leaves of its axis."""

    size: int | str | None
    """None where the axis is gone."""
    least: int = 0
    """The least size that the axis has to have, where it is not known."""


def chosen(item: int | Slice, size: int | str) -> Chosen | str:
    """What an item leaves of an axis of that size, or what is wrong with it."""
    if isinstance(item, int):
        if isinstance(size, str):
            return Chosen(None, item + 1 if item >= 0 else -item)
        if not -size <= item < size:
            return f"reads column {item}, where there are {size}: 0 to {size - 1}"
        return Chosen(None)
    start, stop = item.start or 0, item.stop
    if isinstance(size, int):
        first = start if start >= 0 else size + start
        end = size if stop is None else stop if stop >= 0 else size + stop
        if not 0 <= first < end <= size:
            return f"reads columns {item}, where there are {size}: 0 to {size - 1}"
        return Chosen(end - first)
    return _chosen_unsized(start, stop, item, size)


def _chosen_unsized(start: int, stop: int | None, item: Slice, size: str) -> Chosen | str:
    if stop is None and start >= 0:
        return Chosen(f"{size}-{start}", start + 1)
    if stop is None:
        return Chosen(-start, -start)
    if (start < 0) == (stop < 0):
        most = stop if start >= 0 else -start
        return Chosen(stop - start, most) if start < stop else f"reads columns {item}: there are none"
    if start >= 0:
        return Chosen(f"{size}-{start - stop}", start - stop + 1)
    return f"reads columns {item}, counted from the end and from the front, and how many there are is not known"


def one_a_row(value: Value) -> Value:
    """[rows, 1, ...] as [rows]; anything else as it is."""
    if value.sort.tail and value.sort.is_one_a_row:
        return replace(value, sort=Sort(value.sort.datatype, ONE_A_ROW), run=squeezed(value.run))
    return value


def kind_of_value(value: object) -> Kind:
    """The kind of a literal."""
    return "BOOL" if isinstance(value, bool) else "text" if isinstance(value, str | bytes) else "number"


def never(sort: Sort, constant: Any, *, exact: bool) -> str:
    """Why a tensor of that sort has the same to say of a literal whatever its values; else the empty text.

    Args:
        sort: Of the tensor.
        constant: The literal's value; None where it is no literal.
        exact: Whether it is compared for being equal.
    """
    if constant is None or sort.tail is None or sort.kind != "number":
        return ""
    dtype = DATATYPES[sort.datatype].dtype
    if dtype.kind == "f":
        most = float(np.finfo(dtype).max)
        return "" if -most <= constant <= most else f"does not fit into {sort.datatype}"
    least, greatest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if not least <= constant <= greatest:
        return f"is past what {sort.datatype} holds, {least} to {greatest}"
    return f"is never {'an' if dtype.kind == 'i' else 'a'} {sort.datatype}" if exact and constant % 1 else ""


def instead(left: Value, right: Value) -> str:
    """A hint where a literal is of another kind than what it is compared with."""
    for value, literal in ((left, right), (right, left)):
        if literal.constant is None:
            continue
        match value.sort.kind, kind_of_value(literal.constant):
            case "number", "text" if literal.constant.strip().isdigit():
                return "write it without quotes"
            case "text", _:
                return f'put it in quotes: "{literal.tree}"'
            case "BOOL", _:
                return f"write {shown(value.tree)}, or not {shown(value.tree)}"
            case _:
                pass
    return ""


def shown(tree: Tree) -> str:
    """A part as errors show it: in its canonical text, and short."""
    text = str(tree)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def told(value: Value) -> str:
    """What a part is: `FP32[rows, 10], a number`."""
    named = str(value.sort)
    return named if value.sort.tail is None or value.sort.kind == "BOOL" else f"{named}, {A[value.sort.kind]}"


def tensor_of(tree: Tree) -> str:
    """The first edge that a part names."""
    return next((leaf.name for leaf in leaves(tree) if isinstance(leaf, Edge)), "")
