"""The joins that an aggregate meets where branches ran on some rows only, or failed: made of one where all is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mesh.errors import Unavailable
from mesh.handler import Branches
from mesh.node import Needs
from mesh.tensors import Array, Tensors

__all__ = ["PartialJoin", "partial_joins"]

_ALL = "each branch has all rows, and says so"


@dataclass(frozen=True, slots=True)
class PartialJoin:
    """A join, and what an aggregate may make of it."""

    what: str
    branches: Branches
    must_answer: bool
    """Whether the aggregate said of each of its rows that it can be answered."""
    may_answer: bool
    """Whether some branch has each row, or the aggregate needs none."""

    @property
    def lacks_nothing(self) -> bool:
        """Whether it is the whole join, told otherwise."""
        return self.what == _ALL


def partial_joins(whole: Branches, needs: Needs) -> Iterator[PartialJoin]:
    """What is left of a join when rows or branches are taken away, with what `needs` then promises."""
    rows, names = np.arange(whole.rows), list(whole.answers)
    every = dict.fromkeys(names, rows)
    thinned: dict[str, Mapping[str, Array]] = {
        _ALL: every,
        "each row is of one branch": {name: rows[rows % len(names) == index] for index, name in enumerate(names)},
        "no branch has row 0": dict.fromkeys(names, rows[1:]),
        "no branch has any row": dict.fromkeys(names, rows[:0]),
        **{f"branch {name!r} has every other row": {**every, name: rows[::2]} for name in names},
    }
    for what, kept in thinned.items():
        answers = {name: _thinned(branch, kept[name], whole.rows) for name, branch in whole.answers.items()}
        yield _judged(what, Branches({**whole, **answers}, whole.rows), needs)
    lost = Unavailable("the worker cannot be reached")
    for name in names:
        left = _judged(f"branch {name!r} failed", Branches({**whole, name: lost}, whole.rows), needs)
        if left.branches.answers or not left.must_answer:  # of nothing at all, no sizes may be known
            yield left


def _thinned(branch: Tensors, kept: Array, rows: int) -> Tensors:
    sources = np.arange(rows) if branch.sources is None else branch.sources
    where = np.isin(sources, kept)
    return Tensors({name: array[where] for name, array in branch.items()}, sources=sources[where])


def _judged(what: str, branches: Branches, needs: Needs) -> PartialJoin:
    has = {name: np.zeros(branches.rows, np.bool_) for name in branches}
    for name, branch in branches.answers.items():
        has[name][slice(None) if branch.sources is None else branch.sources] = True
    needed = list(branches) if needs == "every" else needs if isinstance(needs, tuple) else []
    anybody = bool(np.logical_or.reduce(list(has.values())).all())
    everybody = all(has[name].all() for name in needed)
    return PartialJoin(
        what,
        branches,
        must_answer=needs == "none" or (anybody if needs == "any" else everybody),
        may_answer=needs == "none" or anybody,
    )
