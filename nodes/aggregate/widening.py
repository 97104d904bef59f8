"""Aggregates that put branches side by side: along axis 1, or along a new axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

import numpy as np

from mesh import Aggregate, Array, Branches, Context, InvalidInput, NodeContractError, SetupError, Tensors, TensorSpec
from nodes.aggregate.agreement import agreed, matching, named
from nodes.aggregate.aligned import BranchRows, RowAligned, in_turn, present_in, unanswered
from nodes.aggregate.filling import fill_values

__all__ = ["Concat", "Stack"]


class Concat(Aggregate):
    """Tensors of the same name one after another along axis 1, in the order of the file; every branch is needed.

    Takes any datatype; [rows, n, ...], where n may differ between branches, and gives [rows, sum of n, ...].

    Args:
        tensors: Which tensors to join; left out, the branches have to give the same names, and all are joined.

    Raises:
        SetupError: `tensors` names nothing, or something twice.
    """

    def __init__(self, *, tensors: Sequence[str] | None = None) -> None:
        self._tensors = named(tensors)
        self._count = 0
        self._widths: dict[str, int] = {}
        self._specs: Mapping[str, TensorSpec] = {}

    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        self._specs = agreed(branches, self._tensors, free_axis=1)
        self._count = len(branches)
        found: dict[str, TensorSpec] = {}
        for name, spec in self._specs.items():
            if len(spec.shape) < 2:
                raise NodeContractError(
                    f"tensor {name!r} is {spec}, which has no axis 1; nodes.aggregate:Stack makes one"
                )
            width = 0
            for specs in branches.values():
                size = specs[name].shape[1]
                width = width + size if isinstance(width, int) and isinstance(size, int) else "?"
            # Of a `...` not even axis 1 is known.
            shape = spec.shape if spec.shape[1] == "..." else (spec.shape[0], width, *spec.shape[2:])
            found[name] = replace(spec, shape=shape)
        self._widths = {name: spec.shape[1] for name, spec in found.items() if isinstance(spec.shape[1], int)}
        return found

    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        answered: Array = np.logical_and.reduce(present_in(branches), axis=0)
        if branches.errors or not answered.all():
            raise unanswered(branches, answered, every=True)
        _check_count(branches, self._count)
        arrays = matching(branches, self._tensors, self._specs, free_axis=1)
        for name, width in self._widths.items():
            found = sum(array.shape[1] for array in arrays[name].values())
            if found != width:
                raise InvalidInput(f"tensor {name!r} is {found} wide in all, and not {width}", tensor=name)
        # Sources that leave no row out are 0, 1, 2 and so on: rows stand in their places.
        return await in_turn(
            arrays,
            lambda: Tensors({name: np.concatenate(list(each.values()), axis=1) for name, each in arrays.items()}),
        )


def _check_count(branches: Sized, joined: int) -> None:
    """The width of the answer hangs on how many there are; the typed service can be sent any number."""
    if joined not in (0, len(branches)):
        raise InvalidInput(f"{joined} branches are joined, and {len(branches)} came")


class Stack(RowAligned):
    """Tensors of the same name along a new axis 1, in the order of the file.

    Takes any datatype; [rows, ...], and gives [rows, branches, ...]. Every branch is needed, unless `fill` says what
    stands for one that did not answer a row.

    Args:
        tensors: Which tensors to join; left out, the branches have to give the same names, and all are joined.
        fill: For each tensor a value for a branch that did not answer a row, also because it failed: for every element
            one, or a list of the shape of a branch's row.
        mask: Name of a further tensor, BOOL[rows, branches]: whether the branch answered the row.

    Raises:
        SetupError: `tensors` names nothing, or something twice, or there is no `fill` for `mask` to tell of.
    """

    needs = "every"

    def __init__(
        self, *, tensors: Sequence[str] | None = None, fill: dict[str, Any] | None = None, mask: str | None = None
    ) -> None:
        super().__init__(tensors=tensors)
        if mask is not None and fill is None:
            raise SetupError("mask tells which branches were filled in, and there is no fill")
        self._fill_given = fill
        self._rows_to_fill: dict[str, Array] = {}
        self._mask = mask
        self._count = 0
        if fill is not None:
            self.needs = "none"

    def gives(self, joined: Mapping[str, TensorSpec], branches: tuple[str, ...]) -> Mapping[str, TensorSpec]:
        self._count = len(branches)
        if self._fill_given is not None:
            self._rows_to_fill = fill_values(self._fill_given, joined, "fill")
        found = {
            name: replace(spec, shape=(spec.shape[0], len(branches), *spec.shape[1:])) for name, spec in joined.items()
        }
        if self._mask is not None:
            if self._mask in found:
                raise NodeContractError(f"mask is {self._mask!r}, and a tensor that is joined has that name")
            found[self._mask] = TensorSpec("BOOL", ("rows", len(branches)))
        return found

    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        _check_count(rows.branches, self._count)
        found: dict[str, Array] = {}
        present = rows.present.T.copy()
        whole = bool(present.all())
        for name, values in rows.values.items():
            found[name] = np.swapaxes(values, 0, 1).copy()
            if not whole:
                found[name][~present] = self._rows_to_fill[name]
        if self._mask is not None:
            found[self._mask] = present
        return found
