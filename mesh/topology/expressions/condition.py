"""`Condition`: an expression that fits its graph, ready to be asked."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import numpy as np

from mesh.context import Parameter
from mesh.signature import TensorSpec
from mesh.tensors import Array
from mesh.topology.expressions.check import Checker
from mesh.topology.expressions.edges import Near
from mesh.topology.expressions.mistakes import ExpressionError, Mistake
from mesh.topology.expressions.operations import Run
from mesh.topology.expressions.parse import Expression
from mesh.topology.expressions.sorts import Kind, Sort
from mesh.topology.expressions.tree import Tree
from mesh.topology.source import did_you_mean

__all__ = ["Condition", "mistakes", "typed"]


@dataclass(frozen=True, slots=True)
class Condition:
    """Decides row by row. Made by `typed`; two of the same expression and parts are equal."""

    expression: Expression
    edges: tuple[str, ...]
    """The tensors that it reads, by edge, once each."""
    parameters: Mapping[str, Kind]
    """The parameters that it reads, and what each is taken for. One that is not sent, or is of another kind, equals
    nothing: every comparison with it is false but `!=` and `not in`, and as a BOOL it is false."""
    sorts: Mapping[Tree, Sort]
    """What each part of the expression gives."""
    _run: Run = field(repr=False, compare=False)

    def __hash__(self) -> int:
        return hash(self.expression)

    def __str__(self) -> str:
        return str(self.expression)

    def __call__(self, tensors: Mapping[str, Array], parameters: Mapping[str, Parameter], rows: int) -> Array:
        """Which rows it holds for.

        Args:
            tensors: By edge, at least `edges`, each of the type it was checked with and of `rows` rows.
            parameters: The request's.
            rows: How many rows there are; may be 0.

        Returns:
            BOOL [rows]; perhaps a view of a tensor, so not to be written to.

        Raises:
            InvalidInput: A size that was not known before is too small, or differs from another; names the tensor.
                Values never raise: see docs/expressions.md for what becomes of NaN, of zero and of overflow.
        """
        with np.errstate(all="ignore"):
            found = self._run(tensors, parameters)
        # Without rows: parameters alone.
        return found if isinstance(found, np.ndarray) else np.full(rows, found, np.bool_)


def typed(expression: Expression, types: Mapping[str, TensorSpec], near: Near = did_you_mean) -> Condition:
    """Hold an expression against the edges that it may read.

    Args:
        expression: What was read.
        types: Edge (`node.tensor`, or an input of the graph) -> its type; axis 0 is the rows.
        near: Makes a hint of a name that is wrong and those there are.

    Raises:
        ExpressionError: It does not fit; holds every mistake.
    """
    checker = Checker(expression.text, types, near=near)
    value = checker.condition(expression.tree)
    if value is None or checker.mistakes:
        raise ExpressionError(expression.text, checker.mistakes)
    return Condition(expression, expression.edges, checker.parameters, checker.sorts, value.run)


def mistakes(
    expression: Expression,
    types: Mapping[str, TensorSpec],
    doubtful: Container[str] = (),
    near: Near = did_you_mean,
) -> list[Mistake]:
    """Every mistake of an expression, less what hangs on nodes and inputs that are wrong themselves.

    Args:
        expression: What was read.
        types: Edge -> its type, as far as it is known.
        doubtful: Nodes and inputs of which it is not.
        near: Makes a hint of a name that is wrong and those there are.
    """
    checker = Checker(expression.text, types, doubtful, near)
    checker.condition(expression.tree)
    return sorted(set(checker.mistakes))
