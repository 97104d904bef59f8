"""The language's own table: its functions and operators, as the checker and the documentation read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mesh.tensors import Array
from mesh.topology.expressions.sorts import Kind

__all__ = ["FUNCTIONS", "OPERATORS", "Function", "Operator"]

_FP64 = np.dtype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of one value."""

    name: str
    takes: tuple[Kind, ...]
    gives: Callable[[str], str]
    """Datatype it is given -> datatype it gives."""
    reduces: bool = True
    """Whether it makes one value of all that a row has; else it works element by element."""
    needs_columns: bool = False
    """Whether a row without any element has no answer."""
    run: Callable[[Array], Array]
    """Of an array [rows, elements] where it reduces, else of any array."""
    does: str
    """For people."""
    gives_told: str
    example: str


@dataclass(frozen=True, slots=True)
class Operator:
    """A sign or word between values, for people: the parser knows them by their nodes."""

    written: str
    takes: str
    gives: str
    does: str
    example: str


def _sum(values: Array) -> Array:
    # A copy in C order: added up in the same order wherever the array came from, so with the same last bits.
    return np.add.reduce(values.astype(_FP64, order="C"), axis=1)


def _mean(values: Array) -> Array:
    return np.divide(_sum(values), values.shape[1])


def _absolute(values: Array) -> Array:
    return np.absolute(values) if values.dtype.kind == "f" else np.absolute(values, dtype=_FP64)


def _count(values: Array) -> Array:
    return np.full(values.shape[0], values.shape[1], np.int64)


def byte_lengths(values: Array) -> Array:
    """The bytes of each element of a BYTES array."""
    flat: list[Any] = values.ravel().tolist()
    return np.fromiter(map(len, flat), np.int64, len(flat)).reshape(values.shape)


def columns(values: Array) -> Array:
    """An array [rows, ...] as [rows, elements]."""
    shape = values.shape
    return values if len(shape) == 2 else values.reshape(shape[0], math.prod(shape[1:]))


def _same(datatype: str) -> str:
    return datatype


def _always(datatype: str) -> Callable[[str], str]:
    return lambda _: datatype


def _of_absolute(datatype: str) -> str:
    return datatype if datatype.startswith("FP") else "FP64"


FUNCTIONS: Mapping[str, Function] = {
    one.name: one
    for one in (
        Function(
            name="max",
            takes=("number",),
            gives=_same,
            needs_columns=True,
            run=lambda values: np.maximum.reduce(values, axis=1),
            does="the greatest; NaN where there is one",
            gives_told="its datatype",
            example="max(small.probabilities) < 0.9",
        ),
        Function(
            name="min",
            takes=("number",),
            gives=_same,
            needs_columns=True,
            run=lambda values: np.minimum.reduce(values, axis=1),
            does="the least; NaN where there is one",
            gives_told="its datatype",
            example="min(image) >= 0",
        ),
        Function(
            name="mean",
            takes=("number", "BOOL"),
            gives=_always("FP64"),
            needs_columns=True,
            run=_mean,
            does="the sum divided by how many there are",
            gives_told="FP64",
            example="mean(image) > 0.5",
        ),
        Function(
            name="sum",
            takes=("number", "BOOL"),
            gives=_always("FP64"),
            run=_sum,
            does="all added up, a true BOOL as 1; 0 where there is none",
            gives_told="FP64",
            example="sum(small.probabilities > 0.3) >= 2",
        ),
        Function(
            name="argmax",
            takes=("number",),
            gives=_always("INT64"),
            needs_columns=True,
            run=lambda values: values.argmax(axis=1),
            does="the place of the greatest, from 0; the first of equals; of the first NaN where there is one",
            gives_told="INT64",
            example="argmax(small.probabilities) in [3, 5, 8]",
        ),
        Function(
            name="any",
            takes=("BOOL",),
            gives=_same,
            run=lambda values: np.logical_or.reduce(values, axis=1),
            does="whether one is true; false where there is none",
            gives_told="BOOL",
            example="any(image > 1)",
        ),
        Function(
            name="all",
            takes=("BOOL",),
            gives=_same,
            run=lambda values: np.logical_and.reduce(values, axis=1),
            does="whether none is false; true where there is none",
            gives_told="BOOL",
            example="all(image == 0)",
        ),
        Function(
            name="abs",
            takes=("number",),
            gives=_of_absolute,
            reduces=False,
            run=_absolute,
            does="without its sign, element by element",
            gives_told="its datatype where that is FP, else FP64",
            example="abs(small.probabilities[0] - small.probabilities[1]) < 0.1",
        ),
        Function(
            name="len",
            takes=("number", "BOOL", "text"),
            gives=_always("INT64"),
            run=_count,
            does="of BYTES the bytes of each element, element by element; else how many elements a row has",
            gives_told="INT64",
            example="len(text) > 512",
        ),
    )
}
"""By name. Every function takes one value."""

_NUMBERS = "two numbers"
OPERATORS: tuple[Operator, ...] = (
    Operator(
        "x[3]  x[-1]", "columns", "its datatype", "one column of each row; from the end where negative", "columns[-1]"
    ),
    Operator(
        "x[1:4]  x[2:]", "columns", "its datatype", "columns 1, 2 and 3 of each row; from 2 to the last", "columns[1:4]"
    ),
    Operator("x[0, 1:3]", "columns", "its datatype", "one item for each dimension behind the rows", "grid[0, 1:3]"),
    Operator("-x", "a number", "FP64", "the negative", "-x"),
    Operator("x * y", _NUMBERS, "FP64", "the product", "x * y"),
    Operator("x / y", _NUMBERS, "FP64", "the quotient", "x / y"),
    Operator("x // y", _NUMBERS, "FP64", "the quotient, rounded down", "x // y"),
    Operator("x % y", _NUMBERS, "FP64", "what is left by `//`; has the sign of y", "x % y"),
    Operator("x + y", _NUMBERS, "FP64", "the sum", "x + y"),
    Operator("x - y", _NUMBERS, "FP64", "the difference", "x - y"),
    Operator("<  <=  >  >=", _NUMBERS, "BOOL", "compares; chains, as in `0.2 < x <= 0.8`", "0.2 < x <= 0.8"),
    Operator("==  !=", "two numbers, texts or BOOLs", "BOOL", "compares; chains", 'label == "cat"'),
    Operator(
        "in  not in",
        "a number or text, and a list of literals",
        "BOOL",
        "whether it is one of the list",
        'label in ["cat", "dog"]',
    ),
    Operator("not x", "a BOOL", "BOOL", "the contrary", "not sure"),
    Operator("x and y", "two BOOLs", "BOOL", "whether both are true; both are always computed", "sure and x > 0"),
    Operator("x or y", "two BOOLs", "BOOL", "whether one is true; both are always computed", "sure or x > 0"),
)
"""What binds tightest first; `*` to `%`, and `+` and `-`, bind equally. As in Python."""
