"""Several answers of which the surest counts: a line read twice, the right way up and the wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mesh import Array, NodeContractError, TensorSpec
from nodes.aggregate import BranchRows, RowAligned

__all__ = ["Surest"]

_FLOATS = frozenset({"FP16", "FP32", "FP64"})


class Surest(RowAligned):
    """Each row from the branch whose score is highest there; between equals, and where no score is a number, the first.

    A second look that ran on some rows only can so make nothing worse: `FirstOf` would take it wherever there is one.
    Takes any datatypes and shapes beside the score, and gives what it takes.

    Args:
        score: The tensor that says how sure a branch is: FP16, FP32 or FP64[rows].
        default: For each tensor a value for rows that nobody answered; left out, such a row is an error.
    """

    def __init__(self, *, score: str = "score", default: dict[str, Any] | None = None) -> None:
        super().__init__(default=default)
        self._score = score

    def gives(self, joined: Mapping[str, TensorSpec], branches: tuple[str, ...]) -> Mapping[str, TensorSpec]:
        spec = joined.get(self._score)
        if spec is None:
            raise NodeContractError(f"the branches give no {self._score!r}; there is: {', '.join(joined)}")
        if spec.datatype not in _FLOATS or spec.shape != ("rows",):
            raise NodeContractError(f"tensor {self._score!r} is {spec}; a score has to be FP16, FP32 or FP64[rows]")
        return joined

    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        score = rows.values[self._score]
        known = np.where(rows.present & ~np.isnan(score), score, -np.inf)
        best = np.where(known.max(axis=0) == -np.inf, rows.present.argmax(axis=0), known.argmax(axis=0))
        return {name: values[best, np.arange(len(best))] for name, values in rows.values.items()}
