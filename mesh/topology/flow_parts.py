"""What a file says of flow, node by node: conditions, splits, joins. Read here, held against the graph in `flow`."""

from __future__ import annotations

from mesh.errors import Problem
from mesh.topology.expressions import Expression, ExpressionError, parse, pointed
from mesh.topology.source import Path
from mesh.topology.spec import NodeFile, Topology

__all__ = ["PARAMETERS", "edges_of_split", "expressions_of", "tell"]

PARAMETERS = "parameters."


def edges_of_split(node: NodeFile) -> list[str]:
    """The edges whose content decides which arm a row goes to."""
    if node.split is None or (node.split.by or "").startswith(PARAMETERS):
        return []
    if node.split.by:
        return [node.split.by]
    return list(node.inputs.values()) if isinstance(node.inputs, dict) else []


def expressions_of(topology: Topology, problems: list[Problem]) -> dict[str, Expression]:
    """Node -> its condition; one that cannot be read is told of, and left out."""
    found: dict[str, Expression] = {}
    for name, node in topology.nodes.items():
        if node.when is not None:
            try:
                found[name] = parse(node.when)
            except ExpressionError as error:
                tell(error, ("nodes", name, "when"), topology, problems)
    return found


def tell(error: ExpressionError, path: Path, topology: Topology, problems: list[Problem]) -> None:
    """Add what is wrong with an expression to the problems, each where it stands in the file."""
    for mistake in error.mistakes:
        shown = pointed(error.expression, mistake)
        problems.append(topology.source.problem_within(path, mistake.start, mistake.text, mistake.hint, shown))
