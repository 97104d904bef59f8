"""Aggregates of ranked lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mesh import Aggregate, Array, Branches, Context, Needs, NodeContractError, SetupError, Tensors, TensorSpec
from nodes.aggregate.agreement import agreed, matching
from nodes.aggregate.aligned import in_turn, present_in, unanswered
from nodes.aggregate.filling import blank

__all__ = ["RankFusion"]

_MOST = 10_000
"""A longer list than that is no answer to a query."""


class RankFusion(Aggregate):
    """Ranked lists to one, by reciprocal rank fusion.

    Takes, of each branch, ids INT64 or BYTES[rows, n], the best first; n may differ between branches. Empty BYTES, and
    -1, are places that nothing stands in: they fill up lists that are shorter than n. An id twice in one list counts
    where it stands first.

    Gives the ids under the same name, of shape [rows, top], the best first, filled up in the same way, and `scores`
    FP32[rows, top]: the sum, over the branches that have the id in that row, of 1 / (k + rank), ranks counted from 1;
    0 where nothing stands. Between equal scores the id that has the better best rank comes first, then that of the
    earlier branch. Scores are added up in FP64, from the best rank to the worst, so equal ranks make equal scores.

    The rule, and k = 60, are those of Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and
    individual rank learning methods", SIGIR 2009.

    Args:
        tensor: The ids.
        top: How many ids to give: 1 to 10,000.
        k: Above 0; the larger, the less the first ranks stand out.

    Raises:
        SetupError: An argument is out of range, or the ids are called `scores`.
    """

    needs: Needs = "any"

    def __init__(self, *, tensor: str = "ids", top: int = 10, k: float = 60.0) -> None:
        if not 1 <= top <= _MOST:
            raise SetupError(f"top is {top}: it has to be from 1 to {_MOST}")
        if not 0 < k < float("inf"):
            raise SetupError(f"k is {k}: it has to be a finite number above 0")
        if tensor == "scores":
            raise SetupError("ids cannot be called 'scores': the answer has another tensor of that name")
        self._tensor, self._top, self._k = tensor, top, k
        self._specs: Mapping[str, TensorSpec] = {}

    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        specs = agreed(branches, [self._tensor], free_axis=1)
        spec = specs[self._tensor]
        if spec.datatype not in ("INT64", "BYTES") or len(spec.shape) != 2:
            told = f"tensor {self._tensor!r} is {spec}"
            raise NodeContractError(f"{told}; ranked ids have to be INT64 or BYTES of shape [rows, n]")
        self._specs = specs
        return {
            self._tensor: TensorSpec(spec.datatype, ("rows", self._top)),
            "scores": TensorSpec("FP32", ("rows", self._top)),
        }

    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        arrays = matching(branches, [self._tensor], self._specs, free_axis=1)
        answered: Array = np.logical_or.reduce(present_in(branches), axis=0)
        if not branches.answers or not answered.all():
            raise unanswered(branches, answered, every=False)
        return await in_turn(arrays, lambda: self._fused(branches, arrays[self._tensor]), dear=True)

    def _fused(self, branches: Branches, lists: Mapping[str, Array]) -> Tensors:
        dtype = next(iter(lists.values())).dtype
        numbers: dict[Any, int] = {b"" if dtype.hasobject else -1: 0}
        row, rank, branch, number = (
            np.concatenate(part) for part in zip(*_entries(branches, lists, numbers), strict=True)
        )
        kept = number != 0
        # By row, then rank, then branch; from here on the place of an entry tells how good it is.
        order = np.lexsort((branch[kept], rank[kept], row[kept]))
        row, rank, branch, number = (part[kept][order] for part in (row, rank, branch, number))
        item = row * len(numbers) + number
        # Of an id twice in one list, the first.
        _, first = np.unique(item * len(branches) + branch, return_index=True)
        first.sort()
        row, rank, item, number = (part[first] for part in (row, rank, item, number))
        items, first, at = np.unique(item, return_index=True, return_inverse=True)
        scores = np.bincount(at, 1.0 / (self._k + rank), minlength=len(items))
        best = np.lexsort((first, -scores, row[first]))
        row, number, scores = row[first][best], number[first][best], scores[best]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        top = place < self._top
        ids = blank((branches.rows, self._top), dtype) if dtype.hasobject else np.full((branches.rows, self._top), -1)
        known = np.empty(len(numbers), dtype)
        known[:] = list(numbers)
        ids[row[top], place[top]] = known[number[top]]
        out = np.zeros((branches.rows, self._top), np.float32)
        out[row[top], place[top]] = scores[top]
        return Tensors({self._tensor: ids, "scores": out})


def _entries(
    branches: Branches, lists: Mapping[str, Array], numbers: dict[Any, int]
) -> list[tuple[Array, Array, Array, Array]]:
    """For each branch: row, rank, branch and the number of the id of every place of its lists; numbers the ids."""
    found: list[tuple[Array, Array, Array, Array]] = []
    for index, (name, ids) in enumerate(lists.items()):
        count, width = ids.shape
        sources = branches.answers[name].sources
        rows = np.arange(count) if sources is None else sources
        coded = [numbers.setdefault(id_, len(numbers)) for id_ in ids.ravel().tolist()]
        ranks = np.tile(np.arange(1, width + 1), count)
        found.append((np.repeat(rows, width), ranks, np.full(ids.size, index), np.array(coded, np.int64)))
    return found
