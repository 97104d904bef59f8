"""What rules a node, in a few words: its condition, its share of the rows, what it is compared with, how it waits."""

from __future__ import annotations

from mesh.topology.graph import GraphNode, Join
from mesh.units import format_duration

__all__ = ["rules_of"]


def rules_of(node: GraphNode) -> list[str]:
    """One text a rule; none for a node that runs on every row and waits for everything."""
    found: list[str] = []
    if node.when:
        found.append(f"when {node.when}")
    if node.share is not None:
        found.append(f"{(node.share.end - node.share.begin) * 100:.3g} % of {node.share.group}")
    if node.shadows:
        found.append(f"shadow of {node.shadows}")
    if node.expands:
        found.append("expands")
    if node.join is not None:
        found.append(_waits(node.join, len(node.branches)))
    return found


def _waits(join: Join, branches: int) -> str:
    told = ["first" if join.quorum == 1 and not join.waits else f"{join.quorum} of {branches}"]
    if join.required:
        told.append(f"with {', '.join(join.required)}")
    if join.deadline_s is not None:
        told.append(f"until {format_duration(join.deadline_s)}")
    told += [f"{branch} within {format_duration(timeout_s)}" for branch, timeout_s in join.timeouts_s.items()]
    return ", ".join(told)
