"""Text to tree, by way of Python's `ast` and a closed list of its nodes: what is not listed is refused."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

from mesh.topology.expressions.mistakes import ExpressionError, Mistake, Span
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
    Slice,
    Tree,
    names,
)
from mesh.topology.expressions.words import EDGES, MAX_DEPTH, PARAMETERS, Word, words

__all__ = ["Expression", "parse"]

_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_LEAST = -(1 << 63)
MAX_INDEX = (1 << 31) - 1
"""Most that an index may be."""
_LINE_END = re.compile(r"[\r\n]")


@dataclass(frozen=True, slots=True)
class Expression:
    """What was read, not yet held against a graph. Two that say the same are equal; `str` gives the canonical text."""

    text: str
    """As it was given."""
    tree: Tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.tree == other.tree

    def __hash__(self) -> int:
        return hash(self.tree)

    def __str__(self) -> str:
        return str(self.tree)

    @property
    def names(self) -> tuple[Edge | Parameter, ...]:
        """The edges and parameters it names, from left to right, each time with its place."""
        return tuple(names(self.tree))

    @property
    def edges(self) -> tuple[str, ...]:
        """The edges it reads, once each, in the order in which they are named."""
        return tuple(dict.fromkeys(one.name for one in self.names if isinstance(one, Edge)))


def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        ExpressionError: The text is no expression; holds the one mistake that it was given up at.
    """
    found = words(text)
    begin = found[0].span[0]
    # No text holds the end of a line, so all of it may stand in one.
    line = _LINE_END.sub(" ", text[begin:])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parsed = ast.parse(line, mode="eval")
        return Expression(text, _Reader(text, line, begin).read(parsed.body))
    except SyntaxError as error:
        raise ExpressionError(text, [_place(found, begin + (error.offset or 1) - 1)]) from None
    except (RecursionError, MemoryError):
        told = f"nested deeper than {MAX_DEPTH} levels"
        raise ExpressionError(text, [Mistake(begin, found[-1].span[1], told)]) from None


def _place(found: list[Word], offset: int) -> Mistake:
    """A syntax error, told by the word that it stands at."""
    word = next((word for word in found if word.span[1] > offset), found[-1])
    return Mistake(*word.span, f"{word.text!r} cannot stand here")


class _Reader:
    """Python's tree to ours."""

    def __init__(self, text: str, line: str, begin: int) -> None:
        self._text = text
        self._begin = begin
        # Python counts bytes.
        self._bytes = None if line.isascii() else line.encode()

    def _span(self, node: ast.expr) -> Span:
        start, end = node.col_offset, node.end_col_offset or node.col_offset + 1
        if self._bytes is not None:
            start, end = len(self._bytes[:start].decode()), len(self._bytes[:end].decode())
        return start + self._begin, end + self._begin

    def _wrong(self, node: ast.expr, told: str, hint: str = "") -> ExpressionError:
        return ExpressionError(self._text, [Mistake(*self._span(node), told, hint)])

    def read(self, node: ast.expr, depth: int = 1) -> Tree:
        """One node and all below it."""
        if depth > MAX_DEPTH:
            raise self._wrong(node, f"nested deeper than {MAX_DEPTH} levels")
        span = self._span(node)
        match node:
            case ast.Constant():
                return self._literal(node)
            case ast.Name() | ast.Attribute():
                return self._name(node)
            case ast.Subscript():
                return self._subscript(node, depth)
            case ast.Call():
                return self._call(node, depth)
            case ast.UnaryOp():
                return self._unary(node, depth)
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                left, right = self.read(node.left, depth + 1), self.read(node.right, depth + 1)
                return Binary(_ARITHMETIC[type(node.op)], left, right, span)
            case ast.BoolOp():
                word = "and" if isinstance(node.op, ast.And) else "or"
                return Logic(word, tuple(self.read(one, depth + 1) for one in node.values), span)
            case ast.Compare():
                return self._compare(node, depth)
            case ast.List() | ast.Tuple():
                hint = "a list stands right of in: x in [1, 2]"
                raise self._wrong(node, "a list cannot stand here", hint)
            case _:
                raise self._wrong(node, "this cannot stand here")

    def _literal(self, node: ast.Constant) -> Literal:
        if not isinstance(node.value, bool | int | float | str):
            raise self._wrong(node, "this cannot stand here")
        return Literal(node.value, self._span(node))

    def _dotted(self, node: ast.expr) -> str:
        """A name with its dots; empty for anything else."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([node.id, *reversed(parts)])

    def _name(self, node: ast.Name | ast.Attribute) -> Tree:
        name, span = self._dotted(node), self._span(node)
        head, _, rest = name.partition(".")
        if not name:
            raise self._wrong(node, "only a node has something behind a dot", "write node.tensor")
        if name in ("true", "false"):
            return Literal(name == "true", span)
        if head == PARAMETERS:
            if not rest:
                raise self._wrong(node, f"say which of the {PARAMETERS}", f"write {PARAMETERS}.NAME")
            return Parameter(rest, span)
        if head == EDGES:
            raise self._wrong(node, "say which of the edges", f'write {EDGES}["node.tensor"]')
        return Edge(name, span)

    def _subscript(self, node: ast.Subscript, depth: int) -> Tree:
        span = self._span(node)
        if isinstance(node.value, ast.Name) and node.value.id in (EDGES, PARAMETERS):
            inside, kind = node.slice, node.value.id
            if not (isinstance(inside, ast.Constant) and isinstance(inside.value, str) and inside.value):
                wanted = "node.tensor" if kind == EDGES else "name"
                raise self._wrong(inside, f"{kind}[ ] takes a name in quotes", f'write {kind}["{wanted}"]')
            return Edge(inside.value, span) if kind == EDGES else Parameter(inside.value, span)
        operand = self.read(node.value, depth + 1)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) and node.slice.elts else [node.slice]
        return Index(operand, tuple(self._item(part) for part in parts), span)

    def _item(self, node: ast.expr) -> int | Slice:
        if not isinstance(node, ast.Slice):
            return self._whole(node)
        if node.step is not None:
            raise self._wrong(node.step, "a range of columns takes no step")
        start, stop = (None if end is None else self._whole(end) for end in (node.lower, node.upper))
        return Slice(start, stop)

    def _whole(self, node: ast.expr) -> int:
        negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        number = node.operand if isinstance(node, ast.UnaryOp) and negative else node
        value = number.value if isinstance(number, ast.Constant) else None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(node, "an index is a whole number", "as in x[3], x[-1], x[1:4] or x[0, 2]")
        if value > MAX_INDEX:
            raise self._wrong(node, f"an index is at most {MAX_INDEX}")
        return -value if negative else value

    def _call(self, node: ast.Call, depth: int) -> Tree:
        if not isinstance(node.func, ast.Name):
            raise self._wrong(node.func, "only a function of this language can be called", "as in max(node.tensor)")
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise self._wrong(node, f"{node.func.id} takes one value", f"write {node.func.id}(node.tensor)")
        return Call(node.func.id, self.read(node.args[0], depth + 1), self._span(node))

    def _unary(self, node: ast.UnaryOp, depth: int) -> Tree:
        operand, span = self.read(node.operand, depth + 1), self._span(node)
        if isinstance(node.op, ast.Not):
            return Not(operand, span)
        if isinstance(operand, Literal) and not isinstance(operand.value, bool | str):
            return self._signed(node, operand.value)
        if isinstance(node.op, ast.USub):
            return Minus(operand, span)
        raise self._wrong(node, "this sign cannot stand here", "leave it out")

    def _signed(self, node: ast.UnaryOp, number: float) -> Literal:
        value = -number if isinstance(node.op, ast.USub) else number
        if isinstance(value, int) and value < _LEAST:
            raise self._wrong(node, "the number does not fit into 64 bits")
        return Literal(value, self._span(node))

    def _compare(self, node: ast.Compare, depth: int) -> Tree:
        span = self._span(node)
        operators = [type(operator) for operator in node.ops]
        if all(operator in _COMPARISONS for operator in operators):
            operands = tuple(self.read(one, depth + 1) for one in (node.left, *node.comparators))
            return Compare(tuple(_COMPARISONS[operator] for operator in operators), operands, span)
        if len(operators) > 1 or operators[0] not in (ast.In, ast.NotIn):
            raise self._wrong(node, "`in` cannot be part of a chain", "join the two by and")
        operand, right = self.read(node.left, depth + 1), node.comparators[0]
        if not isinstance(right, ast.List | ast.Tuple):
            word = "in" if operators[0] is ast.In else "not in"
            hint = f'write {word} ["...", "..."]; whether any column is equal: any(x == "...")'
            raise self._wrong(right, f"right of {word!r} stands a list of values", hint)
        if not right.elts:
            raise self._wrong(right, "the list is empty: nothing is in it")
        values = [self.read(one, depth + 1) for one in right.elts]
        for value, one in zip(values, right.elts, strict=True):
            if not isinstance(value, Literal):
                raise self._wrong(one, "a list holds numbers, texts or truths as they are")
        listed = tuple(value for value in values if isinstance(value, Literal))
        return Member(operand, listed, operators[0] is ast.NotIn, span)
