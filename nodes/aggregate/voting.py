"""Aggregates that vote: by labels, or by probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mesh import Array, InvalidInput, NodeContractError, SetupError, TensorSpec
from nodes.aggregate.agreement import FLOATS
from nodes.aggregate.aligned import BranchRows, RowAligned
from nodes.aggregate.numeric import mean_of, wide

__all__ = ["MajorityVote", "SoftVote"]


class MajorityVote(RowAligned):
    """The label that most branches gave; between labels with as many votes, that of the earliest branch.

    Takes labels of any datatype but floats, also BYTES, of any shape; each element is voted on for itself. Gives the
    label under the name and type that it had, `votes` INT64 of the same shape: how many branches gave it, and `voters`
    INT64: of how many that answered the row.

    Args:
        tensor: The labels.
        default: Values for `tensor`, `votes` and `voters` in rows that nobody answered; left out, these are an error.

    Raises:
        SetupError: The labels are called `votes` or `voters`.
    """

    def __init__(self, *, tensor: str = "label", default: dict[str, Any] | None = None) -> None:
        if tensor in ("votes", "voters"):
            raise SetupError(f"labels cannot be called {tensor!r}: the answer has another tensor of that name")
        super().__init__(tensors=[tensor], default=default)
        self._tensor = tensor

    def gives(self, joined: Mapping[str, TensorSpec], branches: tuple[str, ...]) -> Mapping[str, TensorSpec]:
        label = joined[self._tensor]
        if label.datatype in FLOATS:
            hint = "vote by probabilities with SoftVote, or name the labels with tensor: ..."
            raise NodeContractError(f"tensor {self._tensor!r} is {label}, and floats are no labels; {hint}")
        count = TensorSpec("INT64", label.shape)
        return {self._tensor: label, "votes": count, "voters": count}

    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        labels, count = rows.values[self._tensor], len(rows.branches)
        present = rows.present.reshape(*rows.present.shape, *[1] * (labels.ndim - 2))
        whole = bool(present.all())
        votes = np.zeros(labels.shape, np.int64)
        for one in range(count):
            # A vote counts for every branch that says the same; each pair is looked at once.
            votes[one] += present[one]
            for other in range(one + 1, count):
                alike = labels[one] == labels[other]
                if not whole:
                    alike = alike & present[one] & present[other]
                votes[one] += alike
                votes[other] += alike
        # argmax takes the first of equals: the earliest branch.
        winner = votes.argmax(axis=0)[None]
        voters = np.broadcast_to(present.sum(axis=0, dtype=np.int64), labels.shape[1:]).copy()
        return {
            self._tensor: np.take_along_axis(labels, winner, axis=0)[0],
            "votes": np.take_along_axis(votes, winner, axis=0)[0],
            "voters": voters,
        }


class SoftVote(RowAligned):
    """The mean of probabilities over the branches that answered a row, and the class that is likeliest by it.

    Takes BF16, FP16, FP32 or FP64[rows, classes], and gives the same type under the same name; and `label`: the number
    of the class, INT64[rows], or what `classes` calls it, INT64 or BYTES[rows]. Between equals the first class counts.
    The label is chosen before the mean is rounded to its datatype. A NaN of any branch makes its class the choice.

    Args:
        tensor: The probabilities.
        classes: What the label of each class is, by its number; left out, the number.
        mean: `arithmetic`, or `geometric`: the product of the branches' probabilities, its root taken, and divided by
            the sum over the classes; one branch that is sure that a class is wrong then outweighs several that take it
            for likely. A probability of 0 counts as the smallest normal number of its datatype, FP32 at least.
        default: Values for `tensor` and `label` in rows that nobody answered; left out, such a row is an error.

    Raises:
        SetupError: `classes` is empty, or the probabilities are called `label`.
    """

    def __init__(
        self,
        *,
        tensor: str = "probabilities",
        classes: list[int] | list[str] | None = None,
        mean: Literal["arithmetic", "geometric"] = "arithmetic",
        default: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tensors=[tensor], default=default)
        if tensor == "label":
            raise SetupError("probabilities cannot be called 'label': the answer has another tensor of that name")
        if classes is not None and not classes:
            raise SetupError("classes is empty")
        self._tensor = tensor
        self._geometric = mean == "geometric"
        self._classes: Array | None = None if classes is None else _labels(classes)

    def gives(self, joined: Mapping[str, TensorSpec], branches: tuple[str, ...]) -> Mapping[str, TensorSpec]:
        spec = joined[self._tensor]
        if spec.datatype not in FLOATS or len(spec.shape) != 2 or spec.shape[1] in ("...", 0):
            told = f"tensor {self._tensor!r} is {spec}"
            raise NodeContractError(f"{told}; probabilities have to be floats of shape [rows, classes]")
        if self._classes is not None and isinstance(spec.shape[1], int) and spec.shape[1] != len(self._classes):
            raise NodeContractError(f"tensor {self._tensor!r} is {spec}, and classes names {len(self._classes)}")
        bytes_too = self._classes is not None and self._classes.dtype.hasobject
        return {self._tensor: spec, "label": TensorSpec("BYTES" if bytes_too else "INT64", ("rows",))}

    def combine(self, rows: BranchRows) -> Mapping[str, Array]:
        given = rows.values[self._tensor]
        if given.shape[2:] == (0,) or (self._classes is not None and given.shape[2:] != self._classes.shape):
            text = f"tensor {self._tensor!r} has shape {list(given.shape[1:])}, which is not one for each class"
            raise InvalidInput(text, tensor=self._tensor)
        ones = [1.0] * len(rows.branches)
        if self._geometric:
            values = wide(given)
            logs = np.log(np.maximum(values, np.finfo(values.dtype).tiny)) * rows.present[..., None]
            mean = np.exp(mean_of(logs, rows.present, ones))
            mean /= mean.sum(axis=1, keepdims=True)
        else:
            mean = mean_of(given, rows.present, ones)
        best = mean.argmax(axis=1)
        return {self._tensor: mean.astype(given.dtype), "label": best if self._classes is None else self._classes[best]}


def _labels(classes: Sequence[int] | Sequence[str]) -> Array:
    if all(isinstance(label, str) for label in classes):
        return np.array([str(label).encode() for label in classes], object)
    try:
        return np.array(classes, np.int64)
    except OverflowError:
        raise SetupError("classes holds a number that is no INT64") from None
