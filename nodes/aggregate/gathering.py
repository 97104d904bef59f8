"""`Gather`: the rows that a node made of each row, put together again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from mesh import (
    DATATYPES,
    Aggregate,
    Array,
    Branches,
    Context,
    InvalidInput,
    Needs,
    NodeContractError,
    SetupError,
    Tensors,
    TensorSpec,
)
from mesh.tensors import datatype_of
from nodes.aggregate.agreement import FLOATS, INTEGERS, matching, specs_named
from nodes.aggregate.aligned import first_error, in_turn
from nodes.aggregate.filling import blank, fill, fill_values
from nodes.aggregate.numeric import wide

__all__ = ["Gather", "How"]

How = Literal["first", "concat", "list", "mean", "sum", "max", "min"]
"""What becomes of the several rows of one row; see `Gather`."""

_MOST = 1 << 20
"""A longer list than that is a mistake of the file."""
_TAKEN: Mapping[str, frozenset[str]] = {
    "first": frozenset(DATATYPES),
    "list": frozenset(DATATYPES),
    "concat": frozenset({"BYTES"}),
    "mean": FLOATS,
    "sum": FLOATS | INTEGERS | {"BOOL"},
    "max": FLOATS | INTEGERS | {"BOOL"},
    "min": FLOATS | INTEGERS | {"BOOL"},
}


class Gather(Aggregate):
    """Puts the rows that an expanding node made of each row together again: the lines of a page to its text.

    It is fed by one branch, whose `Tensors.sources` say which row each of its rows came from; rows keep their order.
    Where it has no sources, each row came from the row of the same number.

    | how | takes | gives |
    |---|---|---|
    | `first` | any [n, ...] | the same type: the first |
    | `concat` | BYTES[n, ...] | BYTES[rows, ...]: each element joined for itself, the separator between |
    | `list` | any [n, ...] | the same datatype, [rows, most, ...]: one after another, then blanks |
    | `mean` | floats [n, ...] | the same type; added up in FP32 at least |
    | `sum` | numbers, BOOL [n, ...] | floats: the same type; INT and BOOL: INT64; UINT: UINT64; integers wrap around |
    | `max`, `min` | numbers, BOOL [n, ...] | the same type; a NaN makes it one |

    The answer has `count`, INT64[rows], as well: how many rows there were. With it a `list` is ragged: row i holds the
    first `count[i]` of its `most` places, and sums of `count` are the offsets. It is as wide as `most` says, and not as
    the longest row at hand, so that a row's answer does not hang on its neighbours.

    A row that none came from has `count` 0 and, in every tensor, zeros, False or empty BYTES, or the `default`.

    Args:
        how: What to do, for each tensor that is taken; others are dropped.
        separator: What stands between the elements of `concat`, in UTF-8.
        most: How many rows a `list` has places for: 1 to 1,048,576. A row with more is refused.
        count: The name of the tensor that counts.
        default: Instead of blanks, for some of the tensors: a value for every element, or a list of the row's shape.

    Raises:
        SetupError: There is a `list` and no `most`, or `most` is out of range, or `how` names what `count` is called.
    """

    gathers: ClassVar[bool] = True
    needs: Needs = "none"

    def __init__(
        self,
        *,
        how: dict[str, How],
        separator: str = "\n",
        most: int | None = None,
        count: str = "count",
        default: dict[str, Any] | None = None,
    ) -> None:
        lists = [tensor for tensor, word in how.items() if word == "list"]
        if lists and most is None:
            raise SetupError(f"{lists[0]} is gathered in a list, so most has to say how long that is")
        if most is not None and not 1 <= most <= _MOST:
            raise SetupError(f"most is {most}: it has to be from 1 to {_MOST}")
        if count in how:
            raise SetupError(f"tensor {count!r} has the name that the count is given under; set count to another")
        self._how, self._most, self._count = dict(how), most or 0, count
        self._separator = separator.encode()
        self._default = default or {}
        self._rows_of_default: dict[str, Array] = {}
        self._specs: Mapping[str, TensorSpec] = {}

    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        if len(branches) != 1:
            raise NodeContractError(f"Gather is fed by one branch, and not by {', '.join(branches) or 'none'}")
        (branch, specs), *_ = branches.items()
        self._specs = specs_named(branch, specs, list(self._how))
        found: dict[str, TensorSpec] = {}
        for name, spec in self._specs.items():
            how = self._how[name]
            if spec.datatype not in _TAKEN[how]:
                takes = ", ".join(datatype for datatype in DATATYPES if datatype in _TAKEN[how])
                raise NodeContractError(f"tensor {name!r} is {spec}, which has no {how}; {how} takes {takes}")
            shape = ("rows", self._most, *spec.shape[1:]) if how == "list" else ("rows", *spec.shape[1:])
            found[name] = TensorSpec(_summed(spec.datatype) if how == "sum" else spec.datatype, shape)
        self._rows_of_default = fill_values(self._default, found, "default", every=False)
        return {**found, self._count: TensorSpec("INT64", ("rows",))}

    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        error = first_error(branches)
        if error is not None:
            raise error
        if len(branches) != 1:
            raise InvalidInput(f"one branch is gathered, and not {len(branches)}")
        arrays = matching(branches, list(self._how), self._specs)
        return await in_turn(arrays, lambda: self._gathered(branches, arrays))

    def _gathered(self, branches: Branches, arrays: Mapping[str, Mapping[str, Array]]) -> Tensors:
        (branch, answer), *_ = branches.answers.items()
        sources = np.arange(branches.rows) if answer.sources is None else answer.sources
        counts = np.bincount(sources, minlength=branches.rows)
        some = counts > 0
        starts = (np.cumsum(counts) - counts)[some]
        found: dict[str, Array] = {}
        for name, how in self._how.items():
            array = arrays[name][branch]
            if how == "list":
                found[name] = self._listed(name, array, sources, counts)
            else:
                dtype = DATATYPES[_summed(datatype_of(array).name)].dtype if how == "sum" else array.dtype
                found[name] = blank((branches.rows, *array.shape[1:]), dtype)
                if starts.size:
                    found[name][some] = self._reduced(how, array, starts, counts[some], dtype)
            if name in self._rows_of_default and not some.all():
                fill(found[name], ~some, self._rows_of_default[name], name)
        found[self._count] = counts
        return Tensors(found)

    def _listed(self, name: str, array: Array, sources: Array, counts: Array) -> Array:
        if counts.size and counts.max() > self._most:
            row = int((counts > self._most).argmax())
            text = f"{counts[row]} rows came of it, and a list of {name!r} has places for {self._most}"
            raise InvalidInput(text, tensor=name, row=row)
        out = blank((len(counts), self._most, *array.shape[1:]), array.dtype)
        places = np.arange(len(sources)) - np.repeat(np.cumsum(counts) - counts, counts)
        out[sources, places] = array
        return out

    def _reduced(self, how: How, array: Array, starts: Array, counts: Array, dtype: np.dtype[Any]) -> Array:
        """For each row that any came from, one: those that came begin at `starts`, and are `counts`."""
        if how == "first":
            return array[starts]
        if how == "concat":
            return self._concatenated(array, starts, counts)
        if how in ("max", "min"):
            return (np.maximum if how == "max" else np.minimum).reduceat(array, starts, axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            if array.dtype.kind in "biu":
                return np.add.reduceat(array, starts, axis=0, dtype=dtype)
            total = np.add.reduceat(wide(array), starts, axis=0)
            if how == "mean":
                total /= counts.astype(total.dtype).reshape(-1, *[1] * (total.ndim - 1))
            return total.astype(array.dtype)

    def _concatenated(self, array: Array, starts: Array, counts: Array) -> Array:
        width = math.prod(array.shape[1:])
        out = np.empty((len(starts), width), object)
        for column, items in enumerate(array.reshape(len(array), width).T.tolist()):
            for row, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
                out[row, column] = self._separator.join(items[start : start + count])
        return out.reshape(len(starts), *array.shape[1:])


def _summed(datatype: str) -> str:
    """What a sum is given in: integers have to have room to grow."""
    if datatype in FLOATS:
        return datatype
    return "UINT64" if datatype.startswith("UINT") else "INT64"
