"""Whether some condition holds for every row, or two for the same row, whatever the values.

Each part that conditions compare with literals (a subject) can only be in so many places: at a literal, between two,
past the last, NaN. All cases of all subjects are tried. Anything else, as two tensors compared, is taken for true or
false as it likes. So what is said to be certain is certain; a case that is named may be one that never comes.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from mesh.tensors import DATATYPES
from mesh.topology.expressions.condition import Condition
from mesh.topology.expressions.sorts import NUMBER, Sort
from mesh.topology.expressions.tree import Call, Compare, Literal, Logic, Member, Not, Parameter, Tree

__all__ = ["MAX_CASES", "common", "uncovered"]

MAX_CASES = 4096
"""Most cases that are tried for one question."""

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_COMPARES: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a subject may be."""

    value: Any
    """One value of it; NaN equals nothing, and stands for any text that is none of the literals, too."""
    told: str
    rank: int = 0
    """How far from what one thinks of first."""


def uncovered(conditions: Sequence[Condition]) -> str:
    """A case in which none of the conditions holds, such as `max(small.probabilities) is NaN`.

    Returns:
        The empty text where one of them holds for every row, whatever the values.
    """
    return _first(conditions, lambda truths: not any(truths))


def common(one: Condition, other: Condition) -> str:
    """A case in which both hold; the empty text where no row can have both."""
    return _first([one, other], all)


def _first(conditions: Sequence[Condition], wanted: Callable[[list[bool]], bool]) -> str:
    sorts: dict[Tree, Sort] = {tree: sort for condition in conditions for tree, sort in condition.sorts.items()}
    met: dict[Tree, list[Literal]] = {}
    for condition in conditions:
        for subject, literals in _subjects(condition.expression.tree):
            met.setdefault(subject, []).extend(literals)
    places = {subject: _places(subject, sorts.get(subject), literals) for subject, literals in met.items()}
    if math.prod(map(len, places.values())) > MAX_CASES:
        return "there are too many cases to tell"
    best, told = math.inf, ""
    for case in itertools.product(*places.values()):
        where = dict(zip(places, case, strict=True))
        rank = sum(place.rank for place in case)
        if rank < best and wanted([_holds(one.expression.tree, where, sorts) for one in conditions]):
            best, told = rank, " and ".join(place.told for place in case) or "any row"
    return told


def _pairs(tree: Compare) -> Iterator[Compare]:
    """A chain as single comparisons, a literal always on the right."""
    for sign, left, right in zip(tree.signs, tree.operands, tree.operands[1:], strict=False):
        if isinstance(left, Literal):
            yield Compare((_FLIPPED[sign],), (right, left))
        else:
            yield Compare((sign,), (left, right))


def _subjects(tree: Tree) -> Iterator[tuple[Tree, list[Literal]]]:
    """What decides a condition, each with the literals it is compared with there."""
    match tree:
        case Literal():
            pass
        case Not():
            yield from _subjects(tree.operand)
        case Logic():
            for operand in tree.operands:
                yield from _subjects(operand)
        case Member():
            yield tree.operand, list(tree.values)
        case Compare():
            for pair in _pairs(tree):
                left, right = pair.operands
                yield (left, [right]) if isinstance(right, Literal) else (pair, [])
        case _:
            yield tree, []


def _holds(tree: Tree, where: dict[Tree, _Place], sorts: dict[Tree, Sort]) -> bool:
    match tree:
        case Literal():
            return tree.value is True
        case Not():
            return not _holds(tree.operand, where, sorts)
        case Logic():
            join = all if tree.word == "and" else any
            return join(_holds(operand, where, sorts) for operand in tree.operands)
        case Member():
            value = where[tree.operand].value
            return any(value == _point(one, sorts.get(tree.operand)) for one in tree.values) != tree.negated
        case Compare():
            return all(_pair_holds(pair, where, sorts) for pair in _pairs(tree))
        case _:
            return where[tree].value is True


def _pair_holds(pair: Compare, where: dict[Tree, _Place], sorts: dict[Tree, Sort]) -> bool:
    left, right = pair.operands
    if not isinstance(right, Literal):
        return where[pair].value is True
    return _COMPARES[pair.signs[0]](where[left].value, _point(right, sorts.get(left)))


def _point(literal: Literal, sort: Sort | None) -> Any:
    """A literal as what it is compared with sees it."""
    value = literal.value
    if sort is None or isinstance(value, bool | str) or not sort.datatype.startswith("FP"):
        return value
    return float(DATATYPES[sort.datatype].dtype.type(value))


def _places(subject: Tree, sort: Sort | None, literals: list[Literal]) -> list[_Place]:
    """Everywhere that a subject may be, as far as these literals can tell."""
    if sort is None or sort.kind == "BOOL":
        return [_Place(True, str(subject)), _Place(False, f"not {_bracketed(subject)}")]
    points = {_point(literal, sort): literal for literal in literals}
    if sort.kind == "text":
        named = [_Place(value, f"{subject} == {literal}") for value, literal in points.items()]
        others = ", ".join(map(str, points.values()))
        return [*named, _Place(math.nan, f"{subject} not in [{others}]")]
    numbers = sorted(points)
    if sort.datatype != NUMBER and not sort.datatype.startswith("FP"):
        return _whole(subject, sort, numbers)
    told = [str(points[number]) for number in numbers]
    found = [_Place(-math.inf, f"{subject} < {told[0]}"), _Place(math.inf, f"{subject} > {told[-1]}")]
    for place, number in enumerate(numbers):
        found.append(_Place(number, f"{subject} == {told[place]}"))
        if place:
            between = (Fraction(numbers[place - 1]) + Fraction(number)) / 2
            found.append(_Place(between, f"{told[place - 1]} < {subject} < {told[place]}"))
    missing = "is not sent as a number" if isinstance(subject, Parameter) else "is NaN"
    return [*found, _Place(math.nan, f"{subject} {missing}", rank=1)]


def _whole(subject: Tree, sort: Sort, numbers: list[Any]) -> list[_Place]:
    """One whole number of each stretch that the literals leave, within what the datatype holds."""
    held = np.iinfo(DATATYPES[sort.datatype].dtype)
    counts = isinstance(subject, Call) and subject.function in ("argmax", "len")
    least, most = 0 if counts else int(held.min), int(held.max)
    tried = {least, most}
    for number in numbers:
        tried.update((math.floor(number) - 1, math.floor(number), math.ceil(number), math.ceil(number) + 1))
    return [_Place(value, f"{subject} == {value}") for value in sorted(tried, key=abs) if least <= value <= most]


def _bracketed(subject: Tree) -> str:
    return f"({subject})" if isinstance(subject, Compare) else str(subject)
