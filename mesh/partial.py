"""What the other rows of a request gave, where one row failed.

A request has one answer or one error. But layers put requests together and keep rows, and for them one bad row need not
take the others with it. A layer that has a use for the rest says so by `Context.partial`. A node that goes through its
rows one by one may then go on where one fails, and raise in the end what `rows_failed` makes: the error of the first
row that failed, as it would have been raised anyway, with what the others gave beside it.

It goes from a node to its layers and no further: a caller is given the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise

from mesh.context import Context
from mesh.errors import NodeFailed, RequestError
from mesh.tensors import Tensors, concatenate

__all__ = ["Partial", "failed_after", "rows_failed", "take_partial"]


@dataclass(frozen=True, slots=True)
class Partial:
    """What became of the rows of a request: answered, failed, or left alone.

    Raises:
        NodeFailed: A row is in it twice, or the answer is not one of these rows.
    """

    rows: Sequence[int]
    """The rows that were answered, rising."""
    answer: Tensors
    """One row for each of them, or where it has sources, counted among them, any number."""
    errors: Mapping[int, RequestError]
    """By row, why it was not: the first of them first."""

    def __post_init__(self) -> None:
        rows, sources = self.rows, self.answer.sources
        rising = all(one < other for one, other in pairwise(rows))
        if not rising or min((0, *rows[:1], *self.errors)) < 0 or not self.errors.keys().isdisjoint(rows):
            raise NodeFailed("answered in part, and its rows make no sense")
        last = len(rows) - 1 if sources is None or not len(sources) else int(sources[-1])
        if last >= len(rows) or (sources is None and self.answer.rows != len(rows)):
            raise NodeFailed(f"answered in part, and not the {len(rows)} rows that it says")

    def within(self, rows: int) -> bool:
        """Whether it is about a request of so many rows, and about no row beyond them."""
        return max((-1, *self.rows[-1:], *self.errors)) < rows

    def part(self, start: int, stop: int) -> Partial:
        """What became of the rows from `start` to `stop`, counted from `start`."""
        places = [place for place, row in enumerate(self.rows) if start <= row < stop]
        first, last = (places[0], places[-1] + 1) if places else (0, 0)
        errors = {row - start: _named(error, row - start) for row, error in self.errors.items() if start <= row < stop}
        return Partial([self.rows[place] - start for place in places], self.answer.take(first, last), errors)


def rows_failed(
    errors: Mapping[int, RequestError], rows: Sequence[int], answer: Tensors, context: Context
) -> RequestError:
    """The error of a request of which some rows failed: that of the first of them.

    Args:
        errors: By row, why it failed; at least one.
        rows: The rows that were answered nevertheless, rising; those that are in neither were left alone.
        answer: Of these rows: what the node would have answered to them alone.
        context: The request's. The answer is dropped where nobody has a use for it.

    Raises:
        NodeFailed: A row is in both, or the answer is not one of these rows.
    """
    first = min(errors)
    error = _named(errors[first], first)
    if context.partial:
        error.partial = Partial(rows, answer, {row: _named(errors[row], row) for row in sorted(errors)})
    return error


def failed_after(error: RequestError, start: int, before: Sequence[Tensors], context: Context) -> RequestError:
    """The error of a request that was given to a node piece by piece.

    Args:
        error: That of a piece.
        start: The row of the request that the piece began with.
        before: The answers to the pieces before it.
        context: The request's.
    """
    made, partial = _named(error, None if error.row is None else error.row + start), take_partial(error)
    if not context.partial or made.row is None or (partial is None and not before):
        return made
    if partial is None:
        rows, answers, errors = [], [*before], {made.row - start: made}
    else:
        rows, answers, errors = partial.rows, [*before, partial.answer], partial.errors
    moved = {row + start: _named(one, row + start) for row, one in errors.items()}
    try:
        if all(one.sources is None for one in answers):
            made.partial = Partial([*range(start), *(row + start for row in rows)], concatenate(answers), moved)
    except (KeyError, TypeError, ValueError, NodeFailed):
        pass  # they do not fit together: then there is but the error
    return made


def take_partial(error: RequestError) -> Partial | None:
    """What came beside an error, and is no longer beside it then; None where nothing did."""
    partial, error.partial = error.partial, None
    if not isinstance(partial, Partial):
        return None
    for one in partial.errors.values():
        one.locate(node=error.node, request_id=error.request_id)
    return partial


def _named(error: RequestError, row: int | None) -> RequestError:
    """The same error of a row, with nothing beside it."""
    made = copy(error)
    made.partial, made.row = None, row
    return made
