"""What a checked expression computes: closures over numpy, made once and called once a request.

Here nothing is checked that was known before. A part without rows (a literal, a parameter, what is made of these) is a
plain Python value; any other is an array whose axis 0 is the rows.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mesh.context import Parameter
from mesh.errors import InvalidInput
from mesh.tensors import DATATYPES, Array
from mesh.topology.expressions.sorts import NUMBER, Sort

__all__ = ["MISSING", "Run", "Step"]

Run = Callable[[Mapping[str, Array], Mapping[str, Parameter]], Any]
"""Tensors by edge and the request's parameters -> a value."""
Step = Callable[[Any, Any], Any]
"""Two values -> one."""

MISSING = math.nan
"""A text or number that the caller did not send: equal to nothing, not even to itself, and neither less nor more."""

_FP64 = np.dtype(np.float64)
_MOST_COMPARED_AT_ONCE = 1 << 16
"""Comparisons that membership makes in one go; past that, memory would be the price of speed."""

_UFUNCS: dict[str, Any] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "//": np.floor_divide,
    "%": np.remainder,
    "and": np.logical_and,
    "or": np.logical_or,
}
_PLAIN: dict[str, Step] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "and": operator.and_,
    "or": operator.or_,
}


def constant(value: Any) -> Run:
    """Always the same."""
    return lambda _tensors, _parameters: value


def edge(name: str, datatype: str) -> Run:
    """A tensor; FP16 and BF16 as FP32."""
    if datatype in ("FP16", "BF16"):
        return lambda tensors, _: tensors[name].astype(np.float32)
    return lambda tensors, _: tensors[name]


def parameter(name: str, kind: str) -> Run:
    """A parameter of the request; one of another kind than asked for counts as not sent."""

    def truth(_: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> bool:
        return parameters.get(name) is True

    def number(_: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> float:
        value = parameters.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else MISSING

    def text(_: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> bytes | float:
        value = parameters.get(name)
        # A text that UTF-8 cannot spell comes over no wire and equals nothing that is spelled in it.
        return value.encode(errors="surrogatepass") if isinstance(value, str) else MISSING

    return {"BOOL": truth, "number": number, "text": text}[kind]


def index(run: Run, key: tuple[int | slice, ...], needs: Mapping[int, int], reads: str, tensor: str) -> Run:
    """Columns of each row.

    Args:
        run: Gives the array.
        key: What numpy takes, without the rows.
        needs: Axis whose size was not known -> the least size that has these columns.
        reads: The columns, as they are written.
        tensor: What to blame.
    """
    whole = (slice(None), *key)
    if not needs:
        return lambda tensors, parameters: run(tensors, parameters)[whole]

    def checked(tensors: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Array:
        values: Array = run(tensors, parameters)
        for axis, least in needs.items():
            if values.shape[axis] < least:
                told = f"tensor {tensor!r} has {values.shape[axis]} columns where a condition reads {reads}"
                raise InvalidInput(told, tensor=tensor)
        return values[whole]

    return checked


def squeezed(run: Run) -> Run:
    """[rows, 1, ...] as [rows]."""

    def one_a_row(tensors: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Array:
        values: Array = run(tensors, parameters)
        return values.reshape(values.shape[0])

    return one_a_row


def applied(run: Run, function: Callable[[Any], Any]) -> Run:
    """A function of what another gives."""
    return lambda tensors, parameters: function(run(tensors, parameters))


def with_columns(function: Callable[[Array], Array], tensor: str) -> Callable[[Array], Array]:
    """A reduction that says so where there is nothing to reduce."""

    def checked(values: Array) -> Array:
        if not values.shape[1]:
            raise InvalidInput(f"tensor {tensor!r} has no elements where a condition needs one", tensor=tensor)
        return function(values)

    return checked


def chained(runs: list[Run], steps: list[Step], joins: list[Step]) -> Run:
    """Steps between neighbours, each operand computed once.

    Args:
        runs: One more than steps.
        steps: What to do with two neighbours.
        joins: What joins a result to those before it; one fewer than steps.
    """
    first, second = runs[0], runs[1]
    step = steps[0]
    if not joins:
        return lambda tensors, parameters: step(first(tensors, parameters), second(tensors, parameters))

    def many(tensors: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Any:
        values = [run(tensors, parameters) for run in runs]
        found = step(values[0], values[1])
        for place, (other, join) in enumerate(zip(steps[1:], joins, strict=True), 1):
            found = join(found, other(values[place], values[place + 1]))
        return found

    return many


def folded(runs: list[Run], steps: list[Step]) -> Run:
    """Operands taken together from left to right: `steps[i]` takes what there is so far and operand i + 1."""

    def many(tensors: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Any:
        found = runs[0](tensors, parameters)
        for run, step in zip(runs[1:], steps, strict=True):
            found = step(found, run(tensors, parameters))
        return found

    return many


def aligned(step: Step, told: str, tensor: str) -> Step:
    """A step between arrays of different dimensions: one value a row meets all of the row's.

    Args:
        step: Takes two arrays of equal dimensions, or that numpy broadcasts.
        told: The two operands, for an error.
        tensor: What to blame where sizes differ that were not known before.
    """

    def both(left: Array, right: Array) -> Any:
        if left.ndim == 1:
            left = left.reshape(left.shape + (1,) * (right.ndim - 1))
        elif right.ndim == 1:
            right = right.reshape(right.shape + (1,) * (left.ndim - 1))
        elif left.shape != right.shape:
            sizes = f"{list(left.shape[1:])} and {list(right.shape[1:])}"
            raise InvalidInput(f"{told} differ in their sizes: {sizes}", tensor=tensor)
        return step(left, right)

    return both


def number_of(value: Any) -> float:
    """Any number as FP64; infinite where an integer is too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_datatype(datatype: str) -> Callable[[Any], Any]:
    """A number without rows, made what a tensor of that datatype is compared with."""
    # numpy rounds a Python float to the datatype of an FP array, compares a Python integer of any size with integers
    # exactly, and turns these into FP64 beside a float.
    return number_of if datatype.startswith("FP") else _itself


def array_of(value: Any, datatype: str) -> Array:
    """A literal, made what a tensor of that datatype is compared with."""
    if datatype == "BYTES":
        return _object(value)
    if datatype == "BOOL" or datatype.startswith("FP"):
        return np.array(value, DATATYPES[datatype].dtype)
    return np.array(int(value), DATATYPES[datatype].dtype) if value == int(value) else np.array(value, _FP64)


def _object(value: Any) -> Array:
    # Not numpy's own bytes: those lose their trailing NULs.
    held = np.empty((), object)
    held[()] = value
    return held


def comparison(sign: str, left: Sort, right: Sort, constants: tuple[Any, Any]) -> Step:
    """`left sign right`.

    Args:
        sign: As it is written.
        left: Of the same kind as `right`.
        right: Either may be without rows.
        constants: The two values where they are known; else None.
    """
    if left.tail is None and right.tail is None:
        return _PLAIN[sign]
    ufunc = _UFUNCS[sign]
    if left.tail is not None and right.tail is not None:
        return ufunc
    datatype = right.datatype if left.tail is None else left.datatype
    known = constants[0] if left.tail is None else constants[1]
    if known is not None:
        held = array_of(known, datatype)
        return (lambda _, values: ufunc(held, values)) if left.tail is None else (lambda values, _: ufunc(values, held))
    if datatype == "BOOL":
        return ufunc
    made = _object if datatype == "BYTES" else as_datatype(datatype)
    if left.tail is None:
        return lambda value, values: ufunc(made(value), values)
    return lambda values, value: ufunc(values, made(value))


def arithmetic(sign: str, left: Sort, right: Sort) -> Step:
    """`left sign right` in FP64. A zero has no sign, so a quotient by it does not depend on how it came about."""
    ufunc = _UFUNCS[sign]
    divides = sign in ("/", "//")
    left_made, right_made = (number_of if side.datatype == NUMBER else _itself for side in (left, right))
    plain = left.tail is None and right.tail is None

    def step(one: Any, other: Any) -> Any:
        other = right_made(other)
        if divides:
            other = np.add(other, 0.0, dtype=_FP64)
        found = ufunc(left_made(one), other, dtype=_FP64)
        return float(found) if plain else found

    return step


def _itself(value: Any) -> Any:
    return value


def negative(value: Any) -> Any:
    """The negative, in FP64."""
    return np.negative(value, dtype=_FP64) if isinstance(value, np.ndarray) else -number_of(value)


def length(value: bytes | float) -> float:
    """The bytes of a text without rows."""
    return len(value) if isinstance(value, bytes) else MISSING


def logic(word: str, left: Sort, right: Sort) -> Step:
    """`left and right`, `left or right`."""
    return _PLAIN[word] if left.tail is None and right.tail is None else _UFUNCS[word]


def contrary(value: Any) -> Any:
    """`not value`."""
    return np.logical_not(value) if isinstance(value, np.ndarray) else not value


def membership(values: list[Any], sort: Sort) -> Callable[[Any], Any]:
    """Whether a value is one of several.

    Args:
        values: bytes, or numbers that fit the datatype.
        sort: What is looked for.
    """
    known = frozenset(values)
    if sort.tail is None:
        return known.__contains__
    if sort.kind == "text":

        def texts(given: Array) -> Array:
            flat: list[bytes] = given.ravel().tolist()
            return np.fromiter(map(known.__contains__, flat), np.bool_, len(flat)).reshape(given.shape)

        return texts
    held = np.stack([array_of(value, sort.datatype) for value in known])

    def numbers(given: Array) -> Array:
        if given.size * held.size <= _MOST_COMPARED_AT_ONCE:
            return np.logical_or.reduce(np.equal(given[..., np.newaxis], held), axis=-1)
        found = np.equal(given, held[0])
        for value in held[1:]:
            np.logical_or(found, np.equal(given, value), out=found)
        return found

    return numbers
