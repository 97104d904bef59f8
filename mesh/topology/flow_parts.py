"""What a file says of flow, node by node: conditions, splits, joins. Read here, held against the graph in `flow`."""

from __future__ import annotations

from mesh.errors import Problem
from mesh.topology.expressions import Expression, ExpressionError, parse, pointed
from mesh.topology.graph import Join, Share
from mesh.topology.source import Path, did_you_mean, shown
from mesh.topology.spec import JoinFile, NodeFile, Topology

__all__ = ["PARAMETERS", "expressions_of", "join_of", "shares_of", "tell"]

PARAMETERS = "parameters."
_ROUNDING = 1e-6
"""Weights such as 33.3333333 three times are taken for a hundred."""


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


def shares_of(topology: Topology, problems: list[Problem]) -> dict[str, Share]:
    """Node -> its share of the rows, for every split that is whole: its weights sum, and one thing decides."""
    groups: dict[str, dict[str, NodeFile]] = {}
    for name, node in topology.nodes.items():
        if node.split is not None:
            groups.setdefault(node.split.group, {})[name] = node
    found: dict[str, Share] = {}
    for group, arms in groups.items():
        by = _decided_by(group, arms, topology, problems)
        if by is None or not _sums(group, arms, topology, problems):
            continue
        begin = 0.0
        for name, node in arms.items():
            assert node.split is not None
            end = 1.0 if name == list(arms)[-1] else begin + node.split.weight / 100
            found[name] = Share(group=group, begin=begin, end=end, by=by)
            begin = end
    return found


def _decided_by(
    group: str, arms: dict[str, NodeFile], topology: Topology, problems: list[Problem]
) -> tuple[str, ...] | None:
    said = {name: node.split.by for name, node in arms.items() if node.split is not None and node.split.by}
    first = next(iter(said.values()), None)
    for name, by in said.items():
        if by != first:
            text = f"split {group!r} goes by {shown(first)} already: what decides is the same for all of its arms"
            problems.append(topology.source.problem(("nodes", name, "split", "by"), text))
            return None
    if first is not None:
        return (first,)
    if not all(isinstance(node.inputs, dict) and node.inputs for node in arms.values()):
        return None  # told elsewhere: an aggregate, or a node that nothing feeds
    inputs = {name: tuple(node.inputs.values()) if isinstance(node.inputs, dict) else () for name, node in arms.items()}
    if len(set(map(frozenset, inputs.values()))) != 1:
        text = f"the arms of split {group!r} take different inputs"
        hint = "say what decides, as in by: parameters.user, or by: node.tensor"
        problems.append(topology.source.problem(("nodes", next(iter(arms)), "split"), text, hint, at_key=True))
        return None
    return tuple(sorted(set(next(iter(inputs.values())))))


def _sums(group: str, arms: dict[str, NodeFile], topology: Topology, problems: list[Problem]) -> bool:
    weights = [node.split.weight for node in arms.values() if node.split is not None]
    if abs(sum(weights) - 100) <= _ROUNDING:
        return True
    listed = ", ".join(f"{one:g}" for one in weights)
    text = f"the weights of split {group!r} sum to {sum(weights):g}, not to 100: {listed}"
    path = ("nodes", list(arms)[-1], "split", "weight")
    # An arm that could not be read may be what is missing.
    if not any(one[:1] == ("nodes",) and (len(one) <= 2 or one[2] == "split") for one in topology.wrong):
        problems.append(topology.source.problem(path, text))
    return False


def join_of(name: str, topology: Topology, problems: list[Problem]) -> Join | None:
    """How an aggregate waits; None where it needs every branch."""
    part = topology.nodes[name]
    branches = list(part.inputs)
    if part.join == "all":
        return None
    if not isinstance(part.join, JoinFile):
        return Join(quorum=1)
    join, path = part.join, ("nodes", name, "join")
    named = [(("required", index), branch) for index, branch in enumerate(join.required or ())]
    named += [(("timeouts", branch), branch) for branch in join.timeouts]
    for steps, branch in named:
        if branch not in branches:
            text, hint = f"{shown(branch)} is no branch of {name!r}", did_you_mean(branch, branches)
            problems.append(topology.source.problem((*path, *steps), text, hint, at_key=steps[0] == "timeouts"))
    if join.quorum is not None and join.quorum > len(branches):
        text = f"a quorum of {join.quorum}, and there are {len(branches)} branches"
        problems.append(topology.source.problem((*path, "quorum"), text))
    needs_all = join.required is None and join.quorum is None and join.deadline is None
    required = tuple(branches) if needs_all else tuple(dict.fromkeys(join.required or ()))
    return Join(
        quorum=max(join.quorum or 1, len(required), 1),
        required=required,
        waits=join.quorum is None or join.deadline is not None,
        deadline_s=join.deadline,
        timeouts_s=dict(join.timeouts),
    )
