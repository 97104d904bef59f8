"""How a request went, for people and for programs: where its time went, and who answered in its joins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mesh.cli.terminal import printable
from mesh.context import BranchState, Context, JoinOutcome, NodeTiming
from mesh.errors import Overloaded, RequestError, Unavailable

__all__ = ["json_of_error", "json_of_report", "missing_branches", "report_tables"]


def json_of_report(context: Context) -> dict[str, Any]:
    """The report that a context was filled with, times in milliseconds; only what was asked for or told."""
    found: dict[str, Any] = {}
    if context.timings is not None:
        found["node_timings"] = [
            {
                "node": timing.node,
                "worker": timing.worker,
                "pid": timing.pid,
                "rows": timing.rows,
                "queue_ms": timing.queue_s * 1e3,
                "compute_ms": timing.compute_s * 1e3,
                "wire_ms": timing.wire_s * 1e3,
            }
            for timing in context.timings
        ]
    if context.joins:
        found["joins"] = [
            {
                "node": join.node,
                "branches": [
                    {
                        "branch": one.branch,
                        "state": one.state.value,
                        "rows": one.rows,
                        **({"error": json_of_error(one.error)} if one.error is not None else {}),
                    }
                    for one in join.branches
                ],
            }
            for join in context.joins
        ]
    return found


def json_of_error(error: RequestError) -> dict[str, Any]:
    """An error with what it names; what it does not is left out."""
    found: dict[str, Any] = {"code": error.code, "text": error.text}
    for name in ("node", "tensor", "request_id"):
        if value := getattr(error, name):
            found[name] = value
    if error.row is not None:
        found["row"] = error.row
    if isinstance(error, Overloaded | Unavailable) and error.retry_after_s:
        found["retry_after_ms"] = error.retry_after_s * 1e3
    return found


def missing_branches(joins: Iterable[JoinOutcome]) -> Iterator[str]:
    """A line for each branch that a join had to do without."""
    for join in joins:
        for one in join.branches:
            if one.state is BranchState.LATE:
                yield f"{printable(join.node)}: {printable(one.branch)} was late"
            elif one.error is not None:
                # A branch may fail for what went wrong further up.
                where = f"node {one.error.node}: " if one.error.node not in ("", one.branch) else ""
                why = printable(f"{one.error.code}: {where}{one.error.told}")
                yield f"{printable(join.node)}: {printable(one.branch)} failed: {why}"


def report_tables(context: Context) -> list[Any]:
    """The report that a caller asked for, as tables with an empty line before each."""
    parts: list[Any] = []
    if context.timings:
        parts += ["", _timings(context.timings)]
    if context.timings is not None and context.joins:
        parts += ["", _joins(context.joins)]
    return parts


def _timings(timings: Sequence[NodeTiming]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("node", "worker", "pid", "rows", "queue ms", "compute ms", "wire ms"):
        table.add_column(column, justify="left" if column in ("node", "worker") else "right")
    for timing in timings:
        spent = (timing.queue_s, timing.compute_s, timing.wire_s)
        table.add_row(
            Text(timing.node),
            Text(timing.worker),
            str(timing.pid),
            str(timing.rows),
            *(f"{part * 1e3:.2f}" for part in spent),
        )
    return table


def _joins(joins: Sequence[JoinOutcome]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("join", "branch", "", "rows"):
        table.add_column(column, justify="right" if column == "rows" else "left")
    for join in joins:
        for one in join.branches:
            table.add_row(Text(printable(join.node)), Text(printable(one.branch)), one.state.value, str(one.rows))
    return table
