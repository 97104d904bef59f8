"""`RowAligned`: several branches to one answer, row by row; what most aggregates, and a user's own, derive from."""

from __future__ import annotations

import asyncio
import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    RequestError,
    Tensors,
    TensorSpec,
)
from nodes.aggregate.agreement import agreed, matching, named
from nodes.aggregate.filling import blank, fill, fill_values, known_sizes

__all__ = [
    "Agreeing",
    "BranchRows",
    "RowAligned",
    "blanks",
    "first_error",
    "in_turn",
    "present_in",
    "side_by_side",
    "unanswered",
]

_INLINE_ELEMENTS = 1 << 16
"""Fewer elements than that, of all branches together, are joined sooner than a thread begins (about 50 us)."""
_OBJECT_COST = 32
"""An element of BYTES is a Python object: worth about so many numbers."""


@dataclass(slots=True)
class BranchRows:
    """The rows of a join: what each branch has for each of them."""

    branches: tuple[str, ...]
    """Names, in the order of the file. A branch that failed keeps its place, and has no row."""
    values: Mapping[str, Array]
    """By tensor: [branches, rows, ...]. Where a branch has no row: zeros, False, or empty BYTES."""
    present: Array
    """BOOL[branches, rows]: whether the branch answered the row."""


class Agreeing(Aggregate):
    """Branches that have to agree in the tensors that are joined; what `RowAligned` and `FirstOf` share.

    Args:
        tensors: Which tensors to join; left out, the branches have to give the same names, and all are joined.
        default: For each tensor of the answer a value for rows that nobody answered, also because branches failed: for
            every element one, or a list of the row's shape. Left out, such a row is an error.

    Raises:
        SetupError: `tensors` names nothing, or something twice.
    """

    needs: Needs = "any"

    def __init__(self, *, tensors: Sequence[str] | None = None, default: dict[str, Any] | None = None) -> None:
        self._tensors = named(tensors)
        self._default = default
        self._rows_of_default: dict[str, Array] = {}
        self._specs: Mapping[str, TensorSpec] = {}
        if default is not None:
            self.needs = "none"

    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        self._specs = agreed(branches, self._tensors)
        try:
            found = self.gives(self._specs, tuple(branches))
        except NodeContractError as error:
            raise NodeContractError(f"{type(self).__name__}: {error}") from None
        if self._default is not None:
            self._rows_of_default = fill_values(self._default, found, "default")
        return found

    def gives(self, joined: Mapping[str, TensorSpec], branches: tuple[str, ...]) -> Mapping[str, TensorSpec]:
        """What it gives when fed by `branches`, which all give tensors of these types; as they are, unless overridden.

        Raises:
            NodeContractError: It cannot join tensors of these types, or these branches.
        """
        return joined

    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        arrays = matching(branches, self._tensors, self._specs)
        return await in_turn(arrays, lambda: self._answer(branches, arrays))

    @abstractmethod
    def _answer(self, branches: Branches, arrays: Mapping[str, Mapping[str, Array]]) -> Tensors:
        """The answer, from the arrays that are joined: by tensor, then by branch. May run in a thread."""

    def _fill(self, found: dict[str, Array], lacking: Array) -> None:
        """Write the default over the rows that a mask tells."""
        if self._default and not self._rows_of_default:
            raise NodeContractError(f"{type(self).__name__} has a default, and has not been told yet what it joins")
        for name, row in self._rows_of_default.items():
            found[name] = np.require(found[name], requirements="W")  # it may be what was given
            fill(found[name], lacking, row, name)


class RowAligned(Agreeing):
    """Joins tensors of the same name, datatype and shape, row by row.

    A subclass writes `combine`, and `gives` where the answer is of other types than the branches. All else is done
    here: branches are held against each other before anything runs and at each request, rows of branches that ran on
    some rows only are put in their places, branches that failed count as absent, and work too large for the event loop
    is done in a thread, so `combine` must not change `self`.

        class Spread(RowAligned):
            "How far the branches lie apart."

            def combine(self, rows: BranchRows) -> Mapping[str, Array]:
                y, seen = rows.values["y"], rows.present[..., None]
                return {"y": np.where(seen, y, -np.inf).max(axis=0) - np.where(seen, y, np.inf).min(axis=0)}

    A row is answered where any branch has it; where a subclass says `needs = "every"`, where all have it; where it says
    `needs = "none"`, always. A row that is not is an error: of the first branch that failed, or else `InvalidInput`,
    naming the row.

    Args:
        tensors: Which tensors to join; left out, the branches have to give the same names, and all are joined.
        default: For each tensor of the answer a value for rows that nobody answered, also because branches failed: for
            every element one, or a list of the row's shape. Left out, such a row is an error.

    Raises:
        SetupError: `tensors` names nothing, or something twice.
    """

    @abstractmethod
    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        """The answer: each tensor [rows, ...], row i made of nothing but row i of the branches.

        In a row that cannot be answered it may give anything: the `default` is written over it. numpy's warnings of
        overflow and of invalid values are off.
        """

    def _answer(self, branches: Branches, arrays: Mapping[str, Mapping[str, Array]]) -> Tensors:
        present = present_in(branches)
        together = np.logical_and if self.needs == "every" else np.logical_or
        answered: Array = together.reduce(present, axis=0)
        whole = bool(answered.all())
        if not whole and self.needs != "none":
            raise unanswered(branches, answered, every=self.needs == "every")
        if arrays:
            values = {name: side_by_side(branches, each) for name, each in arrays.items()}
        else:
            values = blanks(branches, self._specs, self._rows_of_default, len(branches))
        with np.errstate(over="ignore", invalid="ignore"):
            found = dict(self.combine(BranchRows(tuple(branches), values, present)))
        if not whole:
            self._fill(found, ~answered)
        return Tensors(found)


async def in_turn(
    arrays: Mapping[str, Mapping[str, Array]], work: Callable[[], Tensors], *, dear: bool = False
) -> Tensors:
    """Do `work` at once where it is small, else in a thread.

    Args:
        arrays: What it works on.
        work: Makes the answer.
        dear: Whether a number costs it as much as a Python object.
    """
    elements = 0
    for each in arrays.values():
        for array in each.values():
            elements += array.size * _OBJECT_COST if dear or array.dtype.hasobject else array.size
    return work() if elements < _INLINE_ELEMENTS else await asyncio.to_thread(work)


def present_in(branches: Branches) -> Array:
    """BOOL[branches, rows]: whether each branch answered each row."""
    present = np.zeros((len(branches), branches.rows), np.bool_)
    for index, branch in enumerate(branches.values()):
        if isinstance(branch, Tensors):
            present[index if branch.sources is None else (index, branch.sources)] = True
    return present


def side_by_side(branches: Branches, arrays: Mapping[str, Array]) -> Array:
    """One tensor of all branches: [branches, rows, ...]; blank where a branch has no row."""
    each = list(arrays.values())
    shape = (len(branches), branches.rows, *each[0].shape[1:])
    if len(each) == len(branches) and all(branch.sources is None for branch in branches.answers.values()):
        return np.concatenate(each).reshape(shape)
    out = blank(shape, each[0].dtype)
    for index, (name, branch) in enumerate(branches.items()):
        if isinstance(branch, Tensors):
            out[index if branch.sources is None else (index, branch.sources)] = arrays[name]
    return out


def blanks(
    branches: Branches, specs: Mapping[str, TensorSpec], rows_of_default: Mapping[str, Array], *before: int
) -> dict[str, Array]:
    """What stands for the arrays where every branch failed: blanks of shape [*before, rows, ...].

    Raises:
        RequestError: The first branch's error, if neither types nor defaults tell every size.
    """
    found: dict[str, Array] = {}
    for name, spec in specs.items():
        sizes = known_sizes(spec, rows_of_default.get(name))
        if sizes is not None:
            found[name] = blank((*before, branches.rows, *sizes), DATATYPES[spec.datatype].dtype)
    if not found or len(found) < len(specs):
        raise first_error(branches) or InvalidInput("no branch answered, so no sizes are known")
    return found


def first_error(branches: Branches) -> RequestError | None:
    """A copy of the error of the first branch that failed: it may be raised, and told of, elsewhere as well."""
    for branch in branches.values():
        if isinstance(branch, RequestError):
            return copy.copy(branch)
    return None


def unanswered(branches: Branches, answered: Array, *, every: bool) -> RequestError:
    """Why a row has no answer: a branch failed, or else no branch, or not every one, took the row on.

    Args:
        branches: What came.
        answered: BOOL[rows], not all of it true.
        every: Whether a row needs every branch.
    """
    error = first_error(branches)
    if error is not None:
        return error
    row = int(answered.argmin())
    if not every:
        return InvalidInput("no branch answered", row=row)
    missing = list(branches)[int(present_in(branches)[:, row].argmin())]
    return InvalidInput(f"branch {missing!r} did not answer, and every branch is needed", row=row)
