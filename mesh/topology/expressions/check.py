"""An expression against the types of a graph: every mistake at once, and what computes it where there is none."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import replace

import numpy as np

import mesh.topology.expressions.operations as operations
from mesh.signature import REST, TensorSpec
from mesh.topology.expressions.edges import Edges, Near
from mesh.topology.expressions.mistakes import Mistake
from mesh.topology.expressions.operations import Step
from mesh.topology.expressions.sorts import NUMBER, ONE_A_ROW, Kind, Sort, agreed, kind_of, sort_of, without_rows
from mesh.topology.expressions.table import FUNCTIONS, byte_lengths, columns
from mesh.topology.expressions.tree import (
    Binary,
    Call,
    Compare,
    Edge,
    Index,
    Literal,
    Logic,
    Member,
    Minus,
    Not,
    Parameter,
    Tree,
    leaves,
    names,
)
from mesh.topology.expressions.values import (
    A,
    Value,
    chosen,
    instead,
    kind_of_value,
    never,
    one_a_row,
    shown,
    tensor_of,
    told,
)
from mesh.topology.source import did_you_mean

__all__ = ["Checker"]


class Checker:
    """One expression against one graph.

    What is wrong, or hangs on something that is, gives None; so a mistake is told once.

    Args:
        text: The expression as it was given.
        types: Edge -> its type.
        doubtful: Nodes and inputs that are wrong themselves: nothing is said of what names them.
        near: Makes hints of names.
    """

    def __init__(
        self, text: str, types: Mapping[str, TensorSpec], doubtful: Container[str] = (), near: Near = did_you_mean
    ) -> None:
        self.mistakes: list[Mistake] = []
        self.parameters: dict[str, Kind] = {}
        """What each parameter is taken for."""
        self.sorts: dict[Tree, Sort] = {}
        """What each part gives."""
        self._types = types
        self._edges = Edges(text, types, doubtful, near)
        self._near = near

    def condition(self, tree: Tree) -> Value | None:
        """The whole expression: one BOOL a row, or one for all rows."""
        if next(names(tree), None) is None:
            self._wrong(tree, "names no tensor and no parameter: it is the same for every row")
        value = self._check(tree, "BOOL")
        if value is None:
            return None
        if value.sort.kind != "BOOL":
            hint = 'compare it, as in x > 0.5 or x == "cat"'
            return self._wrong(tree, f"gives {value.sort}, where a condition gives a BOOL", hint)
        if value.sort.tail is None or value.sort.tail == ONE_A_ROW:
            return value
        if value.sort.is_one_a_row:
            return one_a_row(value)
        return self._wrong(tree, f"gives {value.sort}, more than one BOOL a row", "put any( ) or all( ) around it")

    def _wrong(self, tree: Tree, why: str, hint: str = "") -> None:
        self.mistakes.append(Mistake(*tree.span, f"{shown(tree)} {why}", hint))

    def _check(self, tree: Tree, wanted: Kind | None = None) -> Value | None:
        """One part; `wanted` is what a parameter there has to be."""
        value = self._checked(tree, wanted)
        if value is None:
            return None
        if value.sort.tail is None and value.constant is None and next(names(tree), None) is None:
            value = self._known(value)
        if value is not None:
            self.sorts[tree] = value.sort
        return value

    def _known(self, value: Value) -> Value | None:
        """What is made of literals alone is computed now."""
        with np.errstate(all="ignore"):
            constant = value.run({}, {})
        if isinstance(constant, float) and not math.isfinite(constant):
            return self._wrong(value.tree, "is no finite number")
        return replace(value, run=operations.constant(constant), constant=constant)

    def _checked(self, tree: Tree, wanted: Kind | None) -> Value | None:
        match tree:
            case Literal():
                constant = tree.value.encode() if isinstance(tree.value, str) else tree.value
                return Value(tree, without_rows(kind_of_value(constant)), operations.constant(constant), constant)
            case Edge():
                return self._edge(tree)
            case Parameter():
                return self._parameter(tree, wanted)
            case Index():
                return self._index(tree)
            case Call():
                return self._call(tree)
            case Minus():
                operand = self._of_kind(tree.operand, "number", "'-' takes numbers")
                if operand is None:
                    return None
                sort = Sort(NUMBER if operand.sort.tail is None else "FP64", operand.sort.tail)
                return Value(tree, sort, operations.applied(operand.run, operations.negative))
            case Not():
                operand = self._of_kind(tree.operand, "BOOL", "`not` takes a BOOL")
                return operand and Value(tree, operand.sort, operations.applied(operand.run, operations.contrary))
            case Binary():
                return self._binary(tree)
            case Compare():
                return self._compare(tree)
            case Member():
                return self._member(tree)
            case Logic():
                return self._logic(tree)

    def _of_kind(self, tree: Tree, kind: Kind, rule: str) -> Value | None:
        value = self._check(tree, kind)
        if value is None or value.sort.kind == kind:
            return value
        return self._wrong(tree, f"is {told(value)}: {rule}")

    # Names.

    def _edge(self, tree: Edge) -> Value | None:
        spec = self._types.get(tree.name)
        if spec is None:
            self.mistakes.extend(self._edges.unknown(tree))
            return None
        if not spec.shape or spec.shape[0] == REST:
            return self._wrong(tree, f"is {spec}, which has no rows")
        return Value(tree, sort_of(tree.name, spec), operations.edge(tree.name, spec.datatype))

    def _parameter(self, tree: Parameter, wanted: Kind | None) -> Value | None:
        if wanted is None:
            hint = "compare it with a literal or a tensor"
            return self._wrong(tree, "may be a text, a number or a BOOL: nothing here says which", hint)
        before = self.parameters.setdefault(tree.name, wanted)
        if before != wanted:
            return self._wrong(tree, f"is taken for {A[wanted]} here, and for {A[before]} elsewhere")
        return Value(tree, without_rows(wanted), operations.parameter(tree.name, wanted))

    def _kind_of(self, tree: Tree) -> Kind | None:
        """What a part is by itself, without a look at whether it is right; None where it takes after others."""
        match tree:
            case Literal():
                return kind_of_value(tree.value)
            case Edge():
                spec = self._types.get(tree.name)
                return kind_of(spec.datatype) if spec else None
            case Parameter():
                return self.parameters.get(tree.name)
            case Index():
                return self._kind_of(tree.operand)
            case Call():
                return "BOOL" if tree.function in ("any", "all") else "number"
            case Minus() | Binary():
                return "number"
            case Compare() | Member() | Not() | Logic():
                return "BOOL"

    # Columns and functions.

    def _index(self, tree: Index) -> Value | None:
        operand = self._check(tree.operand)
        if operand is None:
            return None
        tail = operand.sort.tail
        if not tail:
            return self._wrong(tree.operand, f"is {told(operand)}: there are no columns to choose from")
        if str(tail[min(len(tree.items), len(tail)) - 1]).startswith(REST):
            return self._wrong(tree.operand, f"is {operand.sort}: it is not known whether it has these dimensions")
        if len(tree.items) > len(tail):
            there = "is 1 dimension" if len(tail) == 1 else f"are {len(tail)} dimensions"
            hint = "the rows are never named: the first index is that of the column"
            return self._wrong(tree, f"names {len(tree.items)}, where there {there} behind the rows", hint)
        key: list[int | slice] = []
        left: list[int | str] = []
        needs: dict[int, int] = {}
        for axis, (item, size) in enumerate(zip(tree.items, tail, strict=False)):
            found = chosen(item, size)
            if isinstance(found, str):
                return self._wrong(tree, found)
            if isinstance(size, str):
                needs[axis + 1] = found.least
            key.append(item if isinstance(item, int) else slice(item.start, item.stop))
            left.extend([] if found.size is None else [found.size])
        reads = f"[{', '.join(map(str, tree.items))}]"
        run = operations.index(operand.run, tuple(key), needs, reads, tensor_of(tree))
        return Value(tree, Sort(operand.sort.datatype, (*left, *tail[len(key) :])), run)

    def _call(self, tree: Call) -> Value | None:
        function = FUNCTIONS.get(tree.function)
        if function is None:
            why = f"{tree.function!r} is no function"
            self.mistakes.append(Mistake(*tree.span, why, self._near(tree.function, FUNCTIONS)))
            return None
        wanted: Kind | None = "text" if function.name == "len" else function.takes[0]
        operand = self._check(tree.operand, wanted)
        if operand is None:
            return None
        sort, takes = operand.sort, " or ".join(f"{A[kind]}" for kind in function.takes)
        if sort.kind not in function.takes:
            hint = f"compare it, as in {function.name}(x > 0.5)" if function.takes == ("BOOL",) else ""
            return self._wrong(tree.operand, f"is {told(operand)}: {function.name} takes {takes}", hint)
        if function.name == "len" and sort.kind == "text":
            lengths = operations.length if sort.tail is None else byte_lengths
            gives = Sort(NUMBER if sort.tail is None else "INT64", sort.tail)
            return Value(tree, gives, operations.applied(operand.run, lengths))
        if sort.tail is None:
            if function.name == "abs":
                return Value(
                    tree, sort, operations.applied(operand.run, lambda value: abs(operations.number_of(value)))
                )
            return self._wrong(tree.operand, f"is {told(operand)}: {function.name} takes what has rows")
        gives = function.gives(sort.datatype)
        if not function.reduces:
            return Value(tree, Sort(gives, sort.tail), operations.applied(operand.run, function.run))
        if function.needs_columns and 0 in sort.tail:
            return self._wrong(tree.operand, f"is {sort}: a row has no element")
        reduce = function.run
        if function.needs_columns and any(isinstance(size, str) for size in sort.tail):
            reduce = operations.with_columns(reduce, tensor_of(tree))
        run = operations.applied(operand.run, lambda values: reduce(columns(values)))
        return Value(tree, Sort(gives, ONE_A_ROW), run)

    # Two values and more.

    def _met(self, tree: Tree, left: Value, right: Value, step: Step) -> tuple[Sort, Step] | None:
        """Where two values meet element by element: the dimensions of what comes of it, and how."""
        one, other = left.sort.tail, right.sort.tail
        if one is None or other is None:
            return Sort("BOOL", other if one is None else one), step
        tail = agreed(one, other)
        if tail is None:
            why = f"meets {shown(left.tree)}, {left.sort}, with {shown(right.tree)}, {right.sort}"
            if left.tree is tree:
                why = f"brings together {left.sort} and {right.sort}"
            return self._wrong(tree, f"{why}: their dimensions differ", "reduce them, or choose columns")
        if one != other:
            both = f"{shown(left.tree)} and {shown(right.tree)}"
            step = operations.aligned(step, both, tensor_of(right.tree))
        return Sort("BOOL", tail), step

    def _binary(self, tree: Binary) -> Value | None:
        rule = f"{tree.sign!r} takes numbers"
        sides = [self._of_kind(side, "number", rule) for side in (tree.left, tree.right)]
        values = [one_a_row(side) for side in sides if side is not None]
        if len(values) < 2:
            return None
        left, right = values
        if tree.sign in ("/", "//", "%") and right.constant == 0:
            return self._wrong(tree.right, "is what nothing can be divided by")
        met = self._met(tree, left, right, operations.arithmetic(tree.sign, left.sort, right.sort))
        if met is None:
            return None
        sort, step = met
        run = operations.chained([left.run, right.run], [step], [])
        return Value(tree, Sort(NUMBER if sort.tail is None else "FP64", sort.tail), run)

    def _compare(self, tree: Compare) -> Value | None:
        kinds: list[Kind] = [kind for kind in map(self._kind_of, tree.operands) if kind is not None]
        unknown = any(isinstance(leaf, Edge) and leaf.name not in self._types for leaf in leaves(tree))
        if not kinds and unknown:
            # What a parameter is cannot be said before it is known what it is compared with.
            for operand in tree.operands:
                if not isinstance(operand, Parameter):
                    self._check(operand)
            return None
        wanted = kinds[0] if kinds else None
        checked = [self._check(operand, wanted) for operand in tree.operands]
        values = [one_a_row(value) for value in checked if value is not None]
        if len(values) < len(checked):
            return None
        steps: list[Step] = []
        joins: list[Step] = []
        so_far: Sort | None = None
        for sign, left, right in zip(tree.signs, values, values[1:], strict=False):
            if not self._comparable(tree, sign, left, right):
                return None
            step = operations.comparison(sign, left.sort, right.sort, (left.constant, right.constant))
            met = self._met(tree, left, right, step)
            if met is not None and so_far is not None:
                steps.append(met[1])
                met = self._and(tree, so_far, met[0])
            if met is None:
                return None
            (steps if so_far is None else joins).append(met[1])
            so_far = met[0]
        assert so_far is not None  # a comparison has a sign
        return Value(tree, so_far, operations.chained([value.run for value in values], steps, joins))

    def _and(self, tree: Tree, left: Sort, right: Sort) -> tuple[Sort, Step] | None:
        one, other = (Value(tree, sort, operations.constant(None)) for sort in (left, right))
        return self._met(tree, one, other, operations.logic("and", left, right))

    def _comparable(self, tree: Compare, sign: str, left: Value, right: Value) -> bool:
        if left.sort.kind != right.sort.kind:
            why = f"{shown(left.tree)} is {told(left)}, and {shown(right.tree)} is {told(right)}"
            self.mistakes.append(Mistake(*tree.span, f"{why}: they cannot be compared", instead(left, right)))
            return False
        if sign not in ("==", "!=") and left.sort.kind != "number":
            rule = f"{sign!r} compares numbers only"
            self._wrong(left.tree, f"is {told(left)}: {rule}")
            return False
        for value, literal in ((left, right), (right, left)):
            why = never(value.sort, literal.constant, exact=sign in ("==", "!="))
            if why:
                self._wrong(literal.tree, why)
                return False
        return True

    def _member(self, tree: Member) -> Value | None:
        kind = kind_of_value(tree.values[0].value)
        if kind == "BOOL":
            return self._wrong(tree.values[0], "is a BOOL: a list holds texts or numbers", "write x, or not x")
        operand = self._check(tree.operand, kind)
        if operand is None:
            return None
        operand = one_a_row(operand)
        for value in tree.values:
            if kind_of_value(value.value) != operand.sort.kind:
                why = f"is {A[kind_of_value(value.value)]}, and {shown(tree.operand)} is {told(operand)}"
                return self._wrong(value, why)
            if why := never(operand.sort, value.value, exact=True):
                return self._wrong(value, why)
        values = [value.value.encode() if isinstance(value.value, str) else value.value for value in tree.values]
        run = operations.applied(operand.run, operations.membership(values, operand.sort))
        if tree.negated:
            run = operations.applied(run, operations.contrary)
        return Value(tree, Sort("BOOL", operand.sort.tail), run)

    def _logic(self, tree: Logic) -> Value | None:
        rule = f"`{tree.word}` takes BOOLs"
        checked = [self._of_kind(operand, "BOOL", rule) for operand in tree.operands]
        values = [one_a_row(value) for value in checked if value is not None]
        if len(values) < len(checked):
            return None
        so_far, steps = values[0], list[Step]()
        for value in values[1:]:
            met = self._met(tree, so_far, value, operations.logic(tree.word, so_far.sort, value.sort))
            if met is None:
                return None
            so_far = replace(so_far, tree=tree, sort=met[0], constant=None)
            steps.append(met[1])
        return Value(tree, so_far.sort, operations.folded([value.run for value in values], steps))
