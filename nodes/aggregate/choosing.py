"""Aggregates that take each row from one branch: the first that has it, or the one that a selector names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mesh import (
    Aggregate,
    Array,
    Branches,
    Context,
    InvalidInput,
    Needs,
    NodeContractError,
    RequestError,
    SetupError,
    Tensors,
    TensorSpec,
)
from nodes.aggregate.agreement import INTEGERS, agreed, matching, named, specs_named
from nodes.aggregate.aligned import Agreeing, blanks, first_error, in_turn, present_in, side_by_side, unanswered
from nodes.aggregate.filling import blank, fill, fill_values

__all__ = ["FirstOf", "Select"]


class FirstOf(Agreeing):
    """Each row from the first branch, in the order of the file, that answered it: how a cascade ends.

    Takes any datatypes and shapes, and gives those that it takes.

    Args:
        tensors: Which tensors to take; left out, the branches have to give the same names, and all are taken.
        default: For each tensor a value for rows that nobody answered, also because branches failed: for every element
            one, or a list of the row's shape. Left out, such a row is an error.

    Raises:
        SetupError: `tensors` names nothing, or something twice.
    """

    def _answer(self, branches: Branches, arrays: Mapping[str, Mapping[str, Array]]) -> Tensors:
        layers: list[tuple[str, Array | None]] = []
        for name, branch in branches.answers.items():
            layers.append((name, branch.sources))
            if branch.sources is None:
                break  # what comes after it is never seen
        found: dict[str, Array] = {}
        if layers and layers[-1][1] is None:
            last, _ = layers.pop()
            lacking = None
            for name, each in arrays.items():
                found[name] = each[last].copy() if layers else each[last]
        else:
            lacking = self._lacking(branches, layers)
            for name, each in arrays.items():
                first = next(iter(each.values()))
                found[name] = blank((branches.rows, *first.shape[1:]), first.dtype)
            found = found or blanks(branches, self._specs, self._rows_of_default)
        for branch, sources in reversed(layers):
            for name, out in found.items():
                out[sources] = arrays[name][branch]
        if lacking is not None:
            self._fill(found, lacking)
        for out in found.values():
            out.flags.writeable = False
        return Tensors.trusted(found)

    def _lacking(self, branches: Branches, layers: list[tuple[str, Array | None]]) -> Array | None:
        """The rows that no branch has; None where there are none."""
        answered = np.zeros(branches.rows, np.bool_)
        for _, sources in layers:
            answered[sources] = True
        if answered.all():
            return None
        if self.needs != "none":
            raise unanswered(branches, answered, every=False)
        return ~answered


class Select(Aggregate):
    """Each row from the branch that a selector chooses, or all rows from one branch that the file names.

    The branches to choose from have to give the same tensors. A selector is a tensor of one of the branches, which is
    then none to choose from itself: INT or UINT[rows] is the branch's number, from 0, in the order of `inputs` without
    the selector's; BOOL[rows] chooses the first where it is false and the second where it is true; BYTES[rows] is the
    branch's name. [rows, 1] does as well. A selector that chooses no branch is refused.

    Args:
        by: The selector, as `branch.tensor`.
        branch: Instead of a selector, the branch that every row is taken from; changed to roll back.
        tensors: Which tensors to take; left out, the branches have to give the same names, and all are taken.
        default: For each tensor a value for rows that the chosen branch did not answer, or that the selector does not
            have. Left out, such a row is an error: that of the branch if it failed.

    Raises:
        SetupError: Not exactly one of `by` and `branch` is given, `by` is no `branch.tensor`, or `tensors` names
            nothing, or something twice.
    """

    def __init__(
        self,
        *,
        by: str | None = None,
        branch: str | None = None,
        tensors: Sequence[str] | None = None,
        default: dict[str, Any] | None = None,
    ) -> None:
        if (by is None) == (branch is None):
            raise SetupError("Select takes either by: branch.tensor, or branch: name")
        self._selector, dot, self._tensor = (by or "").partition(".")
        if by is not None and not (dot and self._tensor):
            raise SetupError(f"by is {by!r}: it has to be written branch.tensor")
        self._branch = branch
        self._tensors = named(tensors)
        self._default = default
        self._rows_of_default: dict[str, Array] = {}
        self._specs: Mapping[str, TensorSpec] = {}
        self.needs: Needs = "none" if default is not None else "every" if branch is None else (branch,)

    def join(self, branches: Mapping[str, Mapping[str, TensorSpec]]) -> Mapping[str, TensorSpec]:
        wanted = self._selector if self._branch is None else self._branch
        if wanted not in branches:
            option = "by" if self._branch is None else "branch"
            raise NodeContractError(f"{option} names {wanted!r}, which is no branch; there is: {', '.join(branches)}")
        choices = {name: specs for name, specs in branches.items() if name != self._selector}
        if self._branch is None:
            spec = specs_named(wanted, branches[wanted], [self._tensor])[self._tensor]
            if spec.shape[1:] not in ((), (1,)) or spec.datatype not in {"BOOL", "BYTES", *INTEGERS}:
                told = f"the selector {wanted}.{self._tensor} is {spec}"
                raise NodeContractError(f"{told}; it has to be BOOL, BYTES or an integer of shape [rows] or [rows, 1]")
            if spec.datatype == "BOOL" and len(choices) != 2:
                raise NodeContractError(f"a BOOL chooses between two branches, and there are {len(choices)}")
        self._specs = agreed(choices, self._tensors)
        if self._default is not None:
            self._rows_of_default = fill_values(self._default, self._specs, "default")
        return self._specs

    async def aggregate(self, branches: Branches, context: Context) -> Tensors:
        results = {name: branch for name, branch in branches.items() if name != self._selector}
        choices = Branches.trusted(results, branches.rows)
        arrays = matching(choices, self._tensors, self._specs)
        return await in_turn(arrays, lambda: self._answer(branches, choices, arrays))

    def _answer(self, branches: Branches, choices: Branches, arrays: Mapping[str, Mapping[str, Array]]) -> Tensors:
        names, rows = list(choices), np.arange(branches.rows)
        if not names:
            raise InvalidInput("there is no branch to choose from")
        chosen = self._chosen(branches, names)
        present = present_in(choices)
        answered: Array = (chosen >= 0) & present[chosen, rows]
        whole = bool(answered.all())
        if not whole and self._default is None:
            raise self._unanswered(branches, names, chosen, answered)
        if arrays:
            found = {name: side_by_side(choices, each)[chosen, rows] for name, each in arrays.items()}
        else:
            found = blanks(choices, self._specs, self._rows_of_default)
        for name, row in self._rows_of_default.items() if not whole else ():
            fill(found[name], ~answered, row, name)
        return Tensors(found)

    def _chosen(self, branches: Branches, names: list[str]) -> Array:
        """INT64[rows]: the number of the branch that each row is taken from; -1 where the selector has no row."""
        if self._branch is not None:
            if self._branch not in names:
                raise InvalidInput(f"there is no branch {self._branch!r}; there is: {', '.join(names)}")
            return np.full(branches.rows, names.index(self._branch))
        chosen = np.full(branches.rows, -1, np.int64)
        selector = branches.get(self._selector)
        if not isinstance(selector, Tensors):
            if selector is None:
                raise InvalidInput(f"there is no branch {self._selector!r}, which has the selector")
            return chosen
        where = np.arange(branches.rows) if selector.sources is None else selector.sources
        given = selector.get(self._tensor)
        if given is None or given.shape[1:] not in ((), (1,)):
            shape = "missing" if given is None else f"of shape {list(given.shape)}"
            raise InvalidInput(f"the selector {self._tensor!r} is {shape}; [rows] is needed", tensor=self._tensor)
        flat = given.reshape(-1)
        if flat.dtype.hasobject:
            numbers = {name.encode(): number for number, name in enumerate(names)}
            found = np.array([numbers.get(name, -1) for name in flat.tolist()], np.int64)
        elif flat.dtype.kind in "biu":
            found = flat.astype(np.int64)
        else:
            raise InvalidInput(f"the selector {self._tensor!r} is {flat.dtype}", tensor=self._tensor)
        wrong = (found < 0) | (found >= len(names))
        if wrong.any():
            at = int(wrong.argmax())
            text = f"the selector {self._tensor!r} is {flat[at]}; there is: {', '.join(names)}"
            raise InvalidInput(text, tensor=self._tensor, row=int(where[at]))
        chosen[where] = found
        return chosen

    def _unanswered(self, branches: Branches, names: list[str], chosen: Array, answered: Array) -> RequestError:
        row = int(answered.argmin())
        name = names[chosen[row]] if chosen[row] >= 0 else self._selector
        error = first_error(Branches.trusted({name: branches[name]}, branches.rows))
        return error or InvalidInput(f"branch {name!r} was chosen, and did not answer", row=row)
