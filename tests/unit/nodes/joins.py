"""Joins for the tests of aggregates: drawn at random, and looked at row by row in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mesh import Aggregate, Array, Branches, Context, RequestError, Tensors, TensorSpec, Unavailable
from mesh.tensors import datatype_of

Row = Mapping[str, Any]
"""Tensor -> what one branch has for one row."""
Element = st.SearchStrategy[Any]


def specs_of(tensors: Tensors) -> dict[str, TensorSpec]:
    return {name: TensorSpec(datatype_of(array).name, ("rows", *array.shape[1:])) for name, array in tensors.items()}


def join(node: Aggregate, branches: Branches, like: Tensors | None = None) -> dict[str, TensorSpec]:
    """Tell a node what it joins, as the compiler does; branches that failed would have given what `like` is."""
    types = {name: branch if isinstance(branch, Tensors) else like for name, branch in branches.items()}
    return dict(node.join({name: specs_of(branch) for name, branch in types.items() if branch is not None}))


async def ask(node: Aggregate, branches: Branches, like: Tensors | None = None) -> Tensors:
    join(node, branches, like)
    return await node.aggregate(branches, Context())


def run(node: Aggregate, branches: Branches) -> Tensors:
    """The answer, without an event loop; for joins too small for a thread."""
    steps = node.aggregate(branches, Context())
    try:
        steps.send(None)
    except StopIteration as done:
        answer: Tensors = done.value
        return answer
    raise AssertionError("it waits for something")


def failure(node: Aggregate, branches: Branches) -> RequestError:
    try:
        answer = run(node, branches)
    except RequestError as error:
        return error
    raise AssertionError(f"it answered {answer!r}")


def table(branches: Branches) -> list[dict[str, Row]]:
    """For each row of the join, what each branch that answered it has."""
    rows: list[dict[str, Row]] = [{} for _ in range(branches.rows)]
    for name, branch in branches.answers.items():
        sources = range(branches.rows) if branch.sources is None else branch.sources.tolist()
        for place, row in enumerate(sources):
            rows[row][name] = {tensor: array[place] for tensor, array in branch.items()}
    return rows


def array_of(values: list[Any], shape: tuple[int, ...], dtype: Any) -> Array:
    array = np.empty(len(values), dtype)
    array[:] = values
    return array.reshape(shape)


LOST = [Unavailable(f"worker {number} is gone", node=f"n{number}") for number in range(5)]


@st.composite
def branches_of(
    draw: st.DrawFn,
    tensors: Mapping[str, tuple[Element, Any, tuple[int, ...]]],
    *,
    least: int = 1,
    whole: bool = False,
) -> Branches:
    """Up to four branches of up to five rows, each whole, of some rows, or failed.

    Args:
        draw: Of hypothesis.
        tensors: Name -> elements, dtype, and the shape of a row.
        least: Branches at least.
        whole: Whether every branch answers every row.
    """
    rows = draw(st.integers(0, 5))
    found: dict[str, Tensors | RequestError] = {}
    for index, name in enumerate("abcd"[: draw(st.integers(least, 4))]):
        form = "whole" if whole else draw(st.sampled_from(["whole", "some", "some", "failed"]))
        if form == "failed":
            found[name] = LOST[index]
            continue
        kept = [row for row in range(rows) if form == "whole" or draw(st.booleans())]
        arrays: dict[str, Array] = {}
        for tensor, (element, dtype, shape) in tensors.items():
            size = len(kept) * int(np.prod(shape))
            values = draw(st.lists(element, min_size=size, max_size=size))
            arrays[tensor] = array_of(values, (len(kept), *shape), dtype)
        found[name] = Tensors(arrays, sources=kept if form == "some" else None)
    return Branches(found, rows)


def check_errors(node: Aggregate, branches: Branches, has: Callable[[dict[str, Row]], bool]) -> bool:
    """Whether the join can be answered; where it cannot, the right error comes."""
    lacking = [number for number, row in enumerate(table(branches)) if not has(row)]
    if not lacking and branches.answers:
        return True
    error = failure(node, branches)
    if branches.errors:
        first = next(iter(branches.errors.values()))
        assert error == first
        assert error is not first  # the branch's own may be raised and located elsewhere
    else:
        assert (error.code, error.row) == ("INVALID_ARGUMENT", lacking[0])
    return False


def check_alone(node: Aggregate, branches: Branches, answer: Tensors) -> None:
    """Each row alone has the same bits as in its batch, and nothing can be written to."""
    assert not any(array.flags.writeable for array in answer.values())
    assert all(len(array) == branches.rows for array in answer.values())
    for row in range(branches.rows):
        taken = {
            name: branch.take(row, row + 1) if isinstance(branch, Tensors) else branch
            for name, branch in branches.items()
        }
        assert run(node, Branches(taken, 1)) == answer.take(row, row + 1)
