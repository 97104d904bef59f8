"""What a mesh has counted, as JSON and as notes on its picture. Times are in milliseconds."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from mesh.cli.reports import json_of_error
from mesh.topology import Plan
from mesh.topology.render import LineNotes, Vertex, flows_of
from mesh.transports.statistics import BUCKETS, BranchStatistics, NodeStatistics, Statistics
from mesh.units import format_size

__all__ = ["json_of_caches", "json_of_node", "json_of_statistics", "line_notes", "node_notes"]


def json_of_statistics(told: Statistics) -> dict[str, Any]:
    """Everything, as what `json.dumps` takes."""
    return {
        "graph": told.graph,
        "graphs": [
            {
                "graph": one.graph,
                "requests": one.requests,
                "rows": one.rows,
                "in_flight": one.in_flight,
                "failed": one.failed,
                "errors": dict(one.errors),
                "elapsed_ms": one.elapsed_s * 1e3,
            }
            for one in told.graphs
        ],
        "nodes": [{"node": one.node, **json_of_node(one)} for one in told.nodes],
        "joins": [
            {"node": node, "branches": [_branch(one) for one in branches]}
            for node, branches in groupby(told.branches, key=lambda one: one.node)
        ],
        "shadows": [
            {
                "node": one.node,
                "target": one.target,
                "rows_alike": one.rows_alike,
                "rows_unlike": one.rows_unlike,
                "failed": one.failed,
                "dropped": one.dropped,
            }
            for one in told.shadows
        ],
        "arms": [{"split": one.split, "node": one.node, "rows": one.rows} for one in told.arms],
        "workers": [{"worker": one.worker, "pid": one.pid, "counting_s": one.counting_s} for one in told.workers],
        "missing": [
            {"worker": one.worker, "replica": one.replica, "error": json_of_error(one.error)} for one in told.missing
        ],
        **json_of_caches(told),
    }


def json_of_caches(told: Statistics) -> dict[str, Any]:
    """What caches spared their nodes, and what they hold."""
    return {
        "cached": [
            {
                "node": one.node,
                "cache": one.cache,
                "hits": one.hits,
                "misses": one.misses,
                "coalesced": one.coalesced,
                "stale": one.stale,
                "negative": one.negative,
                "refreshes": one.refreshes,
                "broken": one.broken,
                "recomputed": one.recomputed,
                "hit_ratio": one.hit_ratio,
                "saved_ms": one.saved_s * 1e3,
            }
            for one in told.cached
        ],
        "caches": [
            {
                "cache": one.cache,
                "backend": one.backend,
                "holder": one.holder,
                "tier": one.tier,
                "hits": one.hits,
                "misses": one.misses,
                "kept": one.kept,
                "evictions": one.evictions,
                "expirations": one.expirations,
                "failures": one.failures,
                "entries": one.entries,
                "bytes": one.nbytes,
                "max_bytes": one.max_bytes,
            }
            for one in told.caches
        ],
    }


def json_of_node(told: NodeStatistics) -> dict[str, Any]:
    """One node's numbers, without its name."""
    bounds = (*BUCKETS, None)
    return {
        "requests": told.requests,
        "rows": told.rows,
        "rows_skipped": told.rows_skipped,
        "in_flight": told.in_flight,
        "failed": told.failed,
        "errors": dict(told.errors),
        "elapsed_ms": told.elapsed_s * 1e3,
        "queue_row_ms": told.queue_s * 1e3,
        "compute_ms": told.compute_s * 1e3,
        "wire_ms": told.wire_s * 1e3,
        "batches": told.batches,
        "batch_rows": [
            {"max_rows": bound, "batches": batches}
            for bound, batches in zip(bounds, told.batch_rows, strict=False)
            if batches
        ],
    }


def _branch(told: BranchStatistics) -> dict[str, Any]:
    return {
        "branch": told.branch,
        "answered": told.answered,
        "failed": told.failed,
        "late": told.late,
        "without_rows": told.without_rows,
        "behind_ms": told.behind_s * 1e3,
        "max_behind_ms": told.max_behind_s * 1e3,
    }


def node_notes(told: Statistics) -> dict[str, str]:
    """By node: rows, mean time of a request, what failed, and the share of rows that its cache spared it."""
    notes: dict[str, str] = {}
    for one in told.nodes:
        parts = [_counted(one.rows, "row")]
        if one.answered > 0:
            parts.append(f"{one.elapsed_s / one.answered * 1e3:.2f} ms")
        if one.failed:
            parts.append(f"{one.failed:,} failed")
        notes[one.node] = " · ".join(parts)
    for one in told.cached:
        if (ratio := one.hit_ratio) is not None:
            notes[one.node] = " · ".join((notes.get(one.node, ""), f"{ratio:.0%} cached")).strip(" ·")
    for one in told.caches:
        if one.entries is not None and one.nbytes is not None:  # those of cache nodes are drawn by their names
            notes[one.cache] = f"{one.entries:,} entries · {format_size(one.nbytes)}"
    for one in told.shadows:
        notes[one.node] = " · ".join((notes.get(one.node, ""), f"{one.rows_unlike:,} unlike")).strip(" ·")
    return notes


def line_notes(told: Statistics, plan: Plan) -> LineNotes:
    """On a line to a node, the rows that it was run on; on one to a join, what became of the branch.

    Of a node whose worker did not tell there is nothing to say.
    """
    rows = {one.node: one.rows for one in told.nodes}
    branches = {(one.node, one.branch): one for one in told.branches}
    joins = {node.name for node in plan.graph.nodes if node.branches}
    notes: dict[tuple[Vertex, Vertex], str] = {}
    for flow in flows_of(plan.graph):
        taker = flow.taker.name
        if flow.taker.role != "node" or flow.aside:
            continue
        if taker not in joins:
            if taker in rows:
                notes[flow.giver, flow.taker] = _counted(rows[taker], "row")
        elif (branch := branches.get((taker, flow.giver.name))) is not None:
            notes[flow.giver, flow.taker] = _became(branch)
    return notes


def _became(branch: BranchStatistics) -> str:
    counts = {"answered": branch.answered, "failed": branch.failed, "late": branch.late}
    return " · ".join(f"{count:,} {what}" for what, count in counts.items() if count or what == "answered")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
