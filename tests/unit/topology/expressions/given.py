"""A plain interpreter of expressions, one row at a time and without numpy's arithmetic; and expressions to hold it to.

It takes the row's tensors as nested lists of Python values and follows docs/expressions.md word by word.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from mesh.context import Parameter
from mesh.signature import Signature, TensorSpec
from mesh.tensors import DATATYPES, Array
from mesh.topology.expressions import tree as trees
from mesh.topology.expressions.tree import Tree

TYPES: Mapping[str, TensorSpec] = Signature.parse(
    "f: FP32[rows, 3], d: FP64[rows], h: FP16[rows, 2], b: BF16[rows, 1], i: INT64[rows], u: UINT64[rows, 3],"
    "s: INT8[rows, 2, 2], c: UINT8[rows, 3], t: BYTES[rows], w: BYTES[rows, 2], y: BOOL[rows], z: BOOL[rows, 3],"
    "n.q: FP32[rows, ?], n.r: FP32[rows, ...] ->"
).inputs
"""The edges of every test here. The unknown sizes of `n.q` and `n.r` are 3 and 3."""
SIZES = {"?": (3,), "...": (3,)}
PARAMETERS = ("a", "b", "k")


class Unsure(Exception):
    """A sum that depends on the order in which it is taken."""


@dataclass(frozen=True)
class Row:
    """One row's value: its datatype, empty where it has no rows, and nested lists."""

    datatype: str
    value: Any


def row_of(edge: str, array: Array, row: int) -> Row:
    datatype = TYPES[edge].datatype
    values = array[row].astype(np.float32) if datatype in ("FP16", "BF16") else array[row]
    return Row("FP32" if datatype in ("FP16", "BF16") else datatype, np.asarray(values, array.dtype).tolist())


def interpret(tree: Tree, row: Mapping[str, Row], parameters: Mapping[str, Parameter], kinds: Mapping[str, str]) -> Row:
    """What a part of an expression is in one row."""

    def inside(part: Tree) -> Row:
        return interpret(part, row, parameters, kinds)

    match tree:
        case trees.Literal():
            return Row("", tree.value.encode() if isinstance(tree.value, str) else tree.value)
        case trees.Edge():
            return row[tree.name]
        case trees.Parameter():
            return Row("", _sent(parameters.get(tree.name), kinds[tree.name]))
        case trees.Index():
            operand = inside(tree.operand)
            return Row(operand.datatype, _columns(operand.value, list(tree.items)))
        case trees.Call():
            return _called(tree.function, inside(tree.operand))
        case trees.Minus():
            operand = inside(tree.operand)
            return Row(operand.datatype and "FP64", _each(_negative, operand.value))
        case trees.Not():
            return Row("BOOL", _each(operator.not_, inside(tree.operand).value))
        case trees.Binary():
            left, right = inside(tree.left), inside(tree.right)
            meet = {"+": _plus, "-": _minus, "*": _times, "/": _over, "//": _whole, "%": _rest}[tree.sign]
            datatype = "FP64" if left.datatype or right.datatype else ""
            return Row(datatype, _meet(meet, left.value, right.value))
        case trees.Compare():
            operands = [inside(operand) for operand in tree.operands]
            found = [
                _compared(sign, *pair) for sign, pair in zip(tree.signs, itertools.pairwise(operands), strict=True)
            ]
            return Row("BOOL", _all_of(found))
        case trees.Member():
            operand = inside(tree.operand)
            values = [Row("", one.value.encode() if isinstance(one.value, str) else one.value) for one in tree.values]
            equal = [_compared("==", operand, value) for value in values]
            found = equal[0]
            for one in equal[1:]:
                found = _meet(operator.or_, found, one)
            return Row("BOOL", _each(operator.not_, found) if tree.negated else found)
        case trees.Logic():
            values = [inside(operand).value for operand in tree.operands]
            found = values[0]
            for one in values[1:]:
                found = _meet(operator.and_ if tree.word == "and" else operator.or_, found, one)
            return Row("BOOL", found)


def truth(value: Any) -> bool:
    """The one BOOL of a row."""
    while isinstance(value, list):
        (value,) = value
    return bool(value)


def _sent(value: Parameter | None, kind: str) -> Any:
    fits = {"BOOL": bool, "text": str, "number": (int, float)}[kind]
    if not isinstance(value, fits) or (kind == "number" and isinstance(value, bool)):
        return False if kind == "BOOL" else math.nan
    return value.encode() if isinstance(value, str) else value


def _columns(value: Any, items: list[Any]) -> Any:
    if not items:
        return value
    first, rest = items[0], items[1:]
    if isinstance(first, int):
        return _columns(value[first], rest)
    return [_columns(one, rest) for one in value[first.start : first.stop]]


def _flat(value: Any) -> list[Any]:
    return [leaf for one in value for leaf in _flat(one)] if isinstance(value, list) else [value]


def _each(function: Any, value: Any) -> Any:
    return [_each(function, one) for one in value] if isinstance(value, list) else function(value)


def _single(value: Any) -> Any:
    """[[x]] as x: one value is one value however many dimensions of size 1 it has."""
    flat = _flat(value)
    return flat[0] if len(flat) == 1 else value


def _meet(function: Any, left: Any, right: Any) -> Any:
    return _met(function, _single(left), _single(right))


def _met(function: Any, left: Any, right: Any) -> Any:
    if isinstance(left, list) and isinstance(right, list):
        return [_met(function, one, other) for one, other in zip(left, right, strict=True)]
    if isinstance(left, list):
        return [_met(function, one, right) for one in left]
    if isinstance(right, list):
        return [_met(function, left, one) for one in right]
    return function(left, right)


def _all_of(found: list[Any]) -> Any:
    so_far = found[0]
    for one in found[1:]:
        so_far = _meet(operator.and_, so_far, one)
    return so_far


_SIGNS: dict[str, Any] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _compared(sign: str, left: Row, right: Row) -> Any:
    def pair(a: Any, b: Any) -> bool:
        if left.datatype and not right.datatype:
            b = _beside(left.datatype, b)
        elif right.datatype and not left.datatype:
            a = _beside(right.datatype, a)
        texts = isinstance(a, bytes) or isinstance(b, bytes)
        if (left.datatype or right.datatype) and not texts and isinstance(a, float) != isinstance(b, float):
            a, b = _fp64(a), _fp64(b)
        return _SIGNS[sign](a, b)

    return _meet(pair, left.value, right.value)


def _beside(datatype: str, value: Any) -> Any:
    if isinstance(value, bool | bytes):
        return value
    if datatype == "FP32":
        with np.errstate(all="ignore"):
            return float(np.float32(_fp64(value)))
    if datatype == "FP64":
        return _fp64(value)
    return int(value) if datatype and isinstance(value, float) and value.is_integer() else value


def _fp64(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _negative(a: Any) -> float:
    return -_fp64(a)


def _absolute(a: Any) -> float:
    return abs(_fp64(a))


def _plus(a: Any, b: Any) -> float:
    return _fp64(a) + _fp64(b)


def _minus(a: Any, b: Any) -> float:
    return _fp64(a) - _fp64(b)


def _times(a: Any, b: Any) -> float:
    return _fp64(a) * _fp64(b)


def _over(a: Any, b: Any) -> float:
    a, b = _fp64(a), _fp64(b)
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)
    return a / b


def _whole(a: Any, b: Any) -> float:
    return _over(a, b) if b == 0 else _fp64(a) // _fp64(b)


def _rest(a: Any, b: Any) -> float:
    return math.nan if b == 0 else _fp64(a) % _fp64(b)


def _sum(flat: list[Any]) -> float:
    orders = {repr(sum(map(float, order), 0.0) + 0.0) for order in itertools.permutations(flat)}
    if len(orders) > 1:
        raise Unsure
    return float(orders.pop())


def _called(name: str, operand: Row) -> Row:
    flat, datatype = _flat(operand.value), operand.datatype
    nans = [place for place, value in enumerate(flat) if isinstance(value, float) and math.isnan(value)]
    match name:
        case "max" | "min":
            best = {"max": max, "min": min}[name]
            return Row(datatype, math.nan if nans else best(flat))
        case "argmax":
            return Row("INT64", nans[0] if nans else flat.index(max(flat)))
        case "sum":
            return Row("FP64", _sum(flat))
        case "mean":
            return Row("FP64", _sum(flat) / len(flat))
        case "any":
            return Row("BOOL", any(flat))
        case "all":
            return Row("BOOL", all(flat))
        case "abs":
            return Row(datatype if datatype in ("", "FP32") else "FP64", _each(_absolute, operand.value))
        case _:
            if isinstance(flat[0], bytes):
                return Row(datatype and "INT64", _each(len, operand.value))
            return Row("", math.nan) if not datatype else Row("INT64", len(flat))


# Expressions of every form, as texts.

_WHOLE = ["0", "1", "2", "3", "100"]
_BROKEN = ["0.5", "0.9", "1e30", "2.0"]
ONE_TEXT = ["t", "w[0]", "w[-1]"]
MANY_NUMBERS = ["f", "h", "u", "c", "s[0]", "s", "n.q", "n.r", "f[1:]", "s[0, :]", "c[:2]"]


@functools.cache
def one_number(depth: int = 2) -> st.SearchStrategy[str]:
    """A number a row."""
    leaf = st.sampled_from(["d", "i", "b", "b[0]", "f[0]", "f[-1]", "u[1]", "c[2]", "s[1, 0]", "h[1]", "n.q[2]"])
    reduced = st.builds(
        "{}({})".format, st.sampled_from(["max", "min", "mean", "sum", "argmax", "len"]), many(max(depth - 1, 0))
    )
    forms = [leaf, reduced, st.sampled_from(["len(t)", "len(w[1])", "len(parameters.a)", "sum(z)", "mean(z)"])]
    if depth:
        inner = st.one_of(one_number(depth - 1), st.sampled_from([*_WHOLE, *_BROKEN, "parameters.k"]))
        forms.append(st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner))
        forms.append(st.builds("abs({})".format, inner))
        forms.append(st.builds("-{}".format, inner))
    return st.one_of(forms)


@functools.cache
def many(depth: int = 2) -> st.SearchStrategy[str]:
    """Numbers, one or more a row."""
    leaf = st.sampled_from(MANY_NUMBERS)
    if not depth:
        return leaf
    # Of sizes that are not known before, only such as fit: what does not is an InvalidInput.
    fits = st.sampled_from(["f", "n.q", "n.r", "u"])
    against = st.one_of(st.sampled_from(_WHOLE), one_number(depth - 1))
    signs = st.sampled_from(["+", "-", "*", "/", "//", "%"])
    return st.one_of(
        leaf,
        st.builds("({} {} {})".format, leaf, signs, against),
        st.builds("({} {} {})".format, against, signs, leaf),
        st.builds("({} {} {})".format, fits, signs, fits),
        st.builds("abs({})".format, leaf),
    )


_SIGN = st.sampled_from(list(_SIGNS))
_EQUAL = st.sampled_from(["==", "!="])
_TEXTS = st.sampled_from(['"cat"', '""', '"a"', '"é"'])
_NUMBER = st.sampled_from([*_WHOLE, *_BROKEN, "parameters.k"])


@functools.cache
def conditions(depth: int = 2) -> st.SearchStrategy[str]:
    """A BOOL a row."""
    number, wide = one_number(depth), many(depth)
    listed = st.lists(st.sampled_from(_WHOLE[:4]), min_size=1, max_size=5).map(", ".join)
    texts = st.lists(_TEXTS, min_size=1, max_size=4).map(", ".join)
    isin = st.sampled_from(["in", "not in"])
    forms = [
        st.builds("{} {} {}".format, number, _SIGN, st.one_of(number, _NUMBER)),
        st.builds("{} {} {}".format, _NUMBER, _SIGN, number),
        st.builds("{} {} {} {} {}".format, _NUMBER, _SIGN, number, _SIGN, st.one_of(_NUMBER, number)),
        st.builds("{}({} {} {})".format, st.sampled_from(["any", "all"]), wide, _SIGN, st.one_of(number, _NUMBER)),
        st.builds("any({} {} {} {} {})".format, number, _SIGN, wide, _SIGN, number),
        st.builds("{} {} [{}]".format, number, isin, listed),
        st.builds("all({} {} [{}])".format, wide, isin, listed),
        st.builds("{} {} {}".format, st.sampled_from(ONE_TEXT), _EQUAL, st.one_of(_TEXTS, st.just("parameters.a"))),
        st.builds("{} {} [{}]".format, st.sampled_from([*ONE_TEXT, "parameters.a"]), isin, texts),
        st.builds("any({} {} {})".format, st.sampled_from(["w", "t"]), _EQUAL, st.sampled_from(['"cat"', "t", "w[0]"])),
        st.sampled_from(["y", "any(z)", "all(z)", "z[1]", "parameters.b", "any(z and y)", "y == z[0]", "not y"]),
        st.builds("parameters.k {} {}".format, _SIGN, st.sampled_from(_WHOLE)),
    ]
    if depth:
        inner = conditions(depth - 1)
        forms.append(st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner))
        forms.append(st.builds("not ({})".format, inner))
    return st.one_of(forms)


_FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 0.9, 2.0, 3.0, 100.0, math.nan, math.inf, -math.inf, 3.4028235e38, 1e-45]
_POOLS: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "BYTES": [b"cat", b"", b"a", b"a\0", b"\xff", "é".encode()],
    "FP64": [*_FLOATS, 1e308, 2.0**53 + 2, float(np.float32(0.9))],
    "INT64": [0, 1, 2, -1, 100, (1 << 63) - 1, -(1 << 63), (1 << 53) + 1],
    "UINT64": [0, 1, 2, 100, (1 << 64) - 1, 1 << 63, (1 << 53) + 1],
    "INT8": [0, 1, 2, -1, 100, 127, -128],
    "UINT8": [0, 1, 2, 100, 255],
}


def array(datatype: str, shape: tuple[int, ...], values: list[Any]) -> Array:
    """A read-only array of a datatype."""
    dtype = DATATYPES[datatype].dtype
    with np.errstate(all="ignore"):
        made = np.array(values, object if datatype == "BYTES" else np.float64 if dtype.kind in "fV" else dtype)
        made = made.astype(dtype) if datatype != "BF16" else made.astype(np.float32).astype(ml_dtypes.bfloat16)
    made = made.reshape(shape)
    made.flags.writeable = False
    return made


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, Array], int]:
    """Tensors of every edge, and their rows."""
    rows = draw(st.integers(0, 4))
    random = draw(st.randoms(use_true_random=False))
    tensors: dict[str, Array] = {}
    for edge, spec in TYPES.items():
        tail: list[int] = []
        for size in spec.shape[1:]:
            tail.extend(SIZES[size] if isinstance(size, str) else (size,))
        pool = _POOLS.get(spec.datatype, _FLOATS)
        values = [random.choice(pool) for _ in range(rows * math.prod(tail))]
        tensors[edge] = array(spec.datatype, (rows, *tail), values)
    return tensors, rows


def sent() -> st.SearchStrategy[dict[str, Parameter]]:
    """Parameters: sent or not, and of any kind."""
    values: list[Parameter] = ["cat", "", "a", 0, 1, 2, 100, 0.5, 0.9, 1e300, -1, True, False, 10**400, math.nan]
    return st.dictionaries(st.sampled_from(PARAMETERS), st.sampled_from(values), max_size=3)
