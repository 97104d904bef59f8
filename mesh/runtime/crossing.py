"""What crosses from one process to another that runs a part of the same graph: edges, and which rows they are of.

Rows cross as tensors of their own beside the edges, under names that no edge can have: `@rows` tells how many rows the
request has, `node.@given.0`, `node.@given.1`, ... the numbers of the rows that a node gave, level by level (see
`mesh.runtime.rows`), and `node.@taken.0` ... of those that it was run on. Where a node gave every row of the request,
nothing is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mesh.context import Context
from mesh.errors import InvalidInput
from mesh.runtime.rows import Rows
from mesh.runtime.state import State
from mesh.tensors import Array, Tensors

__all__ = ["arrived", "note", "packed"]

ROWS = "@rows"
GIVEN = ".@given."
TAKEN = ".@taken."
MAX_LEVELS = 8
"""Expansions of expansions, at most."""


def packed(state: State, edges: Iterable[str], nodes: Iterable[str]) -> Tensors:
    """Edges of a request, with the rows of some nodes."""
    count = np.array([state.all.count], np.int64)
    count.flags.writeable = False
    arrays: dict[str, Array] = {edge: state.arrays[edge] for edge in edges}
    arrays[ROWS] = count
    for node in nodes:
        for mark, rows in ((GIVEN, state.given.get(node)), (TAKEN, state.taken.get(node))):
            for level, numbers in enumerate(rows.levels if rows is not None else ()):
                arrays[f"{node}{mark}{level}"] = numbers
    return Tensors.trusted(arrays)


def arrived(tensors: Tensors, context: Context) -> State:
    """The same on the other side.

    Raises:
        InvalidInput: What tells of rows is no such thing.
    """
    count = tensors.get(ROWS)
    if count is None or count.shape != (1,) or count.dtype != np.int64 or count[0] < 0:
        raise InvalidInput(f"a part of a graph is told the request's rows: tensor {ROWS!r}, INT64[1]", tensor=ROWS)
    state = State(context, Rows(int(count[0])), {})
    note(tensors, state)
    return state


def note(tensors: Tensors, state: State) -> None:
    """Add what arrived to a request.

    Raises:
        InvalidInput: What tells of rows is no such thing.
    """
    told: dict[tuple[str, str], dict[int, Array]] = {}
    for name, array in tensors.items():
        for mark in (GIVEN, TAKEN):
            node, found, level = name.partition(mark)
            if found:
                told.setdefault((node, mark), {})[_level(name, level, array)] = array
                break
        else:
            if name != ROWS:
                state.arrays[name] = array
    for (node, mark), levels in told.items():
        (state.given if mark == GIVEN else state.taken)[node] = _rows(node, levels, state.all.count)


def _level(name: str, level: str, array: Array) -> int:
    if array.ndim != 1 or array.dtype != np.int64 or not level.isdigit() or int(level) >= MAX_LEVELS:
        raise InvalidInput(f"tensor {name!r} has to tell of rows: INT64[rows], level below {MAX_LEVELS}", tensor=name)
    return int(level)


def _rows(node: str, levels: Mapping[int, Array], count: int) -> Rows:
    inside = tuple(levels[level] for level in range(len(levels)) if level in levels)
    rows = len(inside[-1]) if inside else 0
    if len(inside) != len(levels) or any(len(numbers) != rows for numbers in inside):
        raise InvalidInput(f"the rows of node {node!r} are told by levels of unlike length", node=node)
    if rows:
        rising = all(bool((numbers[1:] >= numbers[:-1]).all()) for numbers in inside)
        once = bool((inside[-1][1:] > inside[-1][:-1]).all())
        if not rising or not once or min(int(numbers[0]) for numbers in inside) < 0 or inside[0][-1] >= count:
            raise InvalidInput(f"the rows of node {node!r} have to rise, below those of the request", node=node)
    return Rows(rows, inside)
