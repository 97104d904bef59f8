"""Aggregates of numbers: mean, weighted mean, largest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mesh import Array, InvalidInput, NodeContractError, SetupError, TensorSpec
from nodes.aggregate.agreement import FLOATS, INTEGERS
from nodes.aggregate.aligned import BranchRows, RowAligned

__all__ = ["Max", "Mean", "WeightedMean", "mean_of", "wide"]


class Mean(RowAligned):
    """The mean of the branches that answered a row.

    Takes and gives BF16, FP16, FP32, FP64 of any shape. BF16 and FP16 are added up in FP32, others as they are; what
    is too large becomes infinite, and a NaN of any branch makes the mean one. Branches are added in the order of the
    file, so a row has the same bits in every batch.

    Args:
        tensors: Which tensors to join; left out, the branches have to give the same names, and all are joined.
        default: For each tensor a value for rows that nobody answered; left out, such a row is an error.

    Raises:
        SetupError: `tensors` names nothing, or something twice.
    """

    def gives(self, joined: Mapping[str, TensorSpec], branches: tuple[str, ...]) -> Mapping[str, TensorSpec]:
        for name, spec in joined.items():
            if spec.datatype not in FLOATS:
                hint = "name the tensors to join with tensors: [...], and count labels with MajorityVote"
                raise NodeContractError(f"tensor {name!r} is {spec}, which has no mean; {hint}")
        return joined

    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        ones = [1.0] * len(rows.branches)
        return {name: mean_of(values, rows.present, ones).astype(values.dtype) for name, values in rows.values.items()}


class WeightedMean(Mean):
    """The mean of the branches that answered a row, each with its weight; as `Mean` in all else.

    Weights are divided by the sum of those of the branches that are there, row by row, so they need not sum to one.

    Args:
        weights: A finite number above 0 for each branch, by its name.
        tensors: Which tensors to join; left out, the branches have to give the same names, and all are joined.
        default: For each tensor a value for rows that nobody answered; left out, such a row is an error.

    Raises:
        SetupError: A weight is not finite, or not above 0; or `tensors` names nothing, or something twice.
    """

    def __init__(
        self,
        *,
        weights: dict[str, float],
        tensors: Sequence[str] | None = None,
        default: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tensors=tensors, default=default)
        for branch, weight in weights.items():
            if not (math.isfinite(weight) and weight > 0):
                raise SetupError(f"weight {weight} of {branch!r}: it has to be finite and above 0; leave a branch out")
        # Only their ratios count; none of them overflows once they are at most 1.
        most = max(weights.values(), default=1.0)
        self._weights = {branch: weight / most for branch, weight in weights.items()}

    def gives(self, joined: Mapping[str, TensorSpec], branches: tuple[str, ...]) -> Mapping[str, TensorSpec]:
        for branch in branches:
            if branch not in self._weights:
                raise NodeContractError(f"weights has none for branch {branch!r}")
        for branch in self._weights:
            if branch not in branches:
                raise NodeContractError(
                    f"weights names {branch!r}, which is no branch; there is: {', '.join(branches)}"
                )
        return super().gives(joined, branches)

    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        strange = next((branch for branch in rows.branches if branch not in self._weights), None)
        if strange is not None:
            raise InvalidInput(f"branch {strange!r} has no weight")
        weights = [self._weights[branch] for branch in rows.branches]
        return {
            name: mean_of(values, rows.present, weights).astype(values.dtype) for name, values in rows.values.items()
        }


class Max(RowAligned):
    """The largest element, each for itself, of the branches that answered a row.

    Takes and gives numbers and BOOL (true where any is) of any shape. A NaN of any branch makes the largest one.

    Args:
        tensors: Which tensors to join; left out, the branches have to give the same names, and all are joined.
        default: For each tensor a value for rows that nobody answered; left out, such a row is an error.

    Raises:
        SetupError: `tensors` names nothing, or something twice.
    """

    def gives(self, joined: Mapping[str, TensorSpec], branches: tuple[str, ...]) -> Mapping[str, TensorSpec]:
        for name, spec in joined.items():
            if spec.datatype not in {"BOOL", *FLOATS, *INTEGERS}:
                hint = "name the tensors to join with tensors: [...]"
                raise NodeContractError(f"tensor {name!r} is {spec}, which has no largest; {hint}")
        return joined

    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        found: dict[str, Array] = {}
        for name, values in rows.values.items():
            if not rows.present.all():
                seen = rows.present.reshape(*rows.present.shape, *[1] * (values.ndim - 2))
                values = np.where(seen, values, _lowest(values.dtype))
            found[name] = np.maximum.reduce(values, axis=0)
        return found


def _lowest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "iu":
        return dtype.type(np.iinfo(dtype).min)
    return dtype.type(False if dtype.kind == "b" else -np.inf)


def wide(array: Array) -> Array:
    """In the datatype that numbers are added up in: FP32 for the two short ones."""
    return array if array.dtype.kind == "f" and array.dtype.itemsize >= 4 else array.astype(np.float32)


def mean_of(values: Array, present: Array, weights: Sequence[float]) -> Array:
    """The weighted mean over the branches that have a row, in FP32 or FP64.

    Args:
        values: [branches, rows, ...], 0 where a branch has no row.
        present: BOOL[branches, rows].
        weights: One for each branch.

    Returns:
        [rows, ...]; NaN in rows that no branch has.
    """
    values = wide(values)
    whole = bool(present.all())
    # Not one reduction: numpy would choose the order of the additions by the size of the batch.
    total = values[0] * values.dtype.type(weights[0])
    share: Any = weights[0] if whole else weights[0] * present[0]
    for index in range(1, len(weights)):
        weight = weights[index]
        total += values[index] if weight == 1 else values[index] * values.dtype.type(weight)
        share = share + (weight if whole else weight * present[index])
    if whole:
        total /= values.dtype.type(share)
    else:
        total /= share.astype(values.dtype).reshape(-1, *[1] * (total.ndim - 1))
    return total
