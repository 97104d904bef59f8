"""The language of `when:`: typed expressions that decide row by row. Pure; docs/expressions.md tells of it.

parse(text) -> Expression, typed(expression, types) -> Condition, condition(tensors, parameters, rows) -> BOOL [rows]
"""

from mesh.topology.expressions.condition import Condition, mistakes, typed
from mesh.topology.expressions.coverage import common, uncovered
from mesh.topology.expressions.mistakes import ExpressionError, Mistake, pointed
from mesh.topology.expressions.parse import Expression, parse
from mesh.topology.expressions.tree import Edge, Parameter

__all__ = [
    "Condition",
    "Edge",
    "Expression",
    "ExpressionError",
    "Mistake",
    "Parameter",
    "common",
    "mistakes",
    "parse",
    "pointed",
    "typed",
    "uncovered",
]
