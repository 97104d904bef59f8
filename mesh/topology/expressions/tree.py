"""What an expression says: a tree of values that compare and print. `parse(str(tree)) == tree`.

Places in the text are not part of what is said: two trees are equal wherever they were written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mesh.topology.expressions.mistakes import Span
from mesh.topology.expressions.words import EDGES, PARAMETERS, is_plain

__all__ = [
    "Binary",
    "Call",
    "Compare",
    "Edge",
    "Index",
    "Literal",
    "Logic",
    "Member",
    "Minus",
    "Not",
    "Parameter",
    "Slice",
    "Tree",
    "leaves",
    "names",
]

_NOWHERE: Span = (0, 1)
_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _SIGN, _ATOM = range(8)
"""What binds how tightly, as in Python."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that stands in the text."""

    value: bool | int | float | str
    span: Span = field(default=_NOWHERE, compare=False)
    binds = _ATOM

    def __eq__(self, other: object) -> bool:
        # 1, 1.0 and true are three things.
        return isinstance(other, Literal) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        return _quoted(self.value) if isinstance(self.value, str) else repr(self.value)


@dataclass(frozen=True, slots=True)
class Edge:
    """A tensor: `node.tensor`, or an input of the graph."""

    name: str
    span: Span = field(default=_NOWHERE, compare=False)
    binds = _ATOM

    def __str__(self) -> str:
        return self.name if is_plain(self.name) else f"{EDGES}[{_quoted(self.name)}]"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the request."""

    name: str
    span: Span = field(default=_NOWHERE, compare=False)
    binds = _ATOM

    def __str__(self) -> str:
        # Behind a dot nothing is reserved but what Python reserves.
        return f"{PARAMETERS}.{self.name}" if is_plain(f"x.{self.name}") else f"{PARAMETERS}[{_quoted(self.name)}]"


@dataclass(frozen=True, slots=True)
class Slice:
    """Columns from one to before another; None where it begins with the first or ends with the last."""

    start: int | None
    stop: int | None

    def __str__(self) -> str:
        return f"{'' if self.start is None else self.start}:{'' if self.stop is None else self.stop}"


@dataclass(frozen=True, slots=True)
class Index:
    """Some columns of each row: one item an axis, from the first behind the rows."""

    operand: Tree
    items: tuple[int | Slice, ...]
    span: Span = field(default=_NOWHERE, compare=False)
    binds = _ATOM

    def __str__(self) -> str:
        return f"{_inside(self.operand, _ATOM)}[{', '.join(map(str, self.items))}]"


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the language, of one value."""

    function: str
    operand: Tree
    span: Span = field(default=_NOWHERE, compare=False)
    binds = _ATOM

    def __str__(self) -> str:
        return f"{self.function}({self.operand})"


@dataclass(frozen=True, slots=True)
class Minus:
    """The negative of something that is no literal."""

    operand: Tree
    span: Span = field(default=_NOWHERE, compare=False)
    binds = _SIGN

    def __str__(self) -> str:
        return f"-{_inside(self.operand, _SIGN)}"


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic on two values."""

    sign: str
    left: Tree
    right: Tree
    span: Span = field(default=_NOWHERE, compare=False)

    @property
    def binds(self) -> int:
        """How tightly its sign binds."""
        return _SUM if self.sign in "+-" else _PRODUCT

    def __str__(self) -> str:
        return f"{_inside(self.left, self.binds)} {self.sign} {_inside(self.right, self.binds + 1)}"


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values compared, or a chain of more, as in `0.2 < x <= 0.8`."""

    signs: tuple[str, ...]
    operands: tuple[Tree, ...]
    """One more than signs."""
    span: Span = field(default=_NOWHERE, compare=False)
    binds = _COMPARE

    def __str__(self) -> str:
        first, *rest = (_inside(operand, _SUM) for operand in self.operands)
        return " ".join([first, *(f"{sign} {operand}" for sign, operand in zip(self.signs, rest, strict=True))])


@dataclass(frozen=True, slots=True)
class Member:
    """Whether a value is one of several."""

    operand: Tree
    values: tuple[Literal, ...]
    negated: bool = False
    span: Span = field(default=_NOWHERE, compare=False)
    binds = _COMPARE

    def __str__(self) -> str:
        word = "not in" if self.negated else "in"
        return f"{_inside(self.operand, _SUM)} {word} [{', '.join(map(str, self.values))}]"


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary."""

    operand: Tree
    span: Span = field(default=_NOWHERE, compare=False)
    binds = _NOT

    def __str__(self) -> str:
        return f"not {_inside(self.operand, _NOT)}"


@dataclass(frozen=True, slots=True)
class Logic:
    """`and` or `or` of two or more."""

    word: str
    operands: tuple[Tree, ...]
    span: Span = field(default=_NOWHERE, compare=False)

    @property
    def binds(self) -> int:
        """How tightly its word binds."""
        return _AND if self.word == "and" else _OR

    def __str__(self) -> str:
        return f" {self.word} ".join(_inside(operand, self.binds + 1) for operand in self.operands)


Tree = Literal | Edge | Parameter | Index | Call | Minus | Binary | Compare | Member | Not | Logic


def _inside(tree: Tree, binds: int) -> str:
    return str(tree) if tree.binds >= binds else f"({tree})"


def _quoted(text: str) -> str:
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(character, escaped)
    return f'"{text}"'


def leaves(tree: Tree) -> Iterator[Literal | Edge | Parameter]:
    """What a tree is made of, from left to right."""
    match tree:
        case Literal() | Edge() | Parameter():
            yield tree
        case Index() | Call() | Minus() | Not():
            yield from leaves(tree.operand)
        case Member():
            yield from leaves(tree.operand)
            yield from tree.values
        case Binary():
            yield from leaves(tree.left)
            yield from leaves(tree.right)
        case Compare() | Logic():
            for operand in tree.operands:
                yield from leaves(operand)


def names(tree: Tree) -> Iterator[Edge | Parameter]:
    """The edges and parameters of a tree, from left to right, each time they are named."""
    for leaf in leaves(tree):
        if not isinstance(leaf, Literal):
            yield leaf
