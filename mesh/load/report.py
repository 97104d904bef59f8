"""`Report`: what a load run found, as JSON for programs and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mesh.load.measure import Distribution, ErrorCount, NodeShare
from mesh.load.plan import LoadPlan
from mesh.units import format_duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["SCHEMA_VERSION", "Report", "render"]

SCHEMA_VERSION = 1
"""Of `Report.to_json`: raised when a field changes its name or meaning; a new field does not raise it."""

_LATE = 0.25
"""A median lag above this share of the median latency is worth a remark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run found. Everything is without the warm-up; durations in seconds."""

    plan: LoadPlan
    interrupted: bool
    """The run was stopped before its plan was carried out."""
    sending_s: float
    """From the end of the warm-up to the end of sending."""
    answering_s: float
    """From the end of the warm-up to the end of sending or the last answer, whichever is later."""
    warm_up: int
    """Requests sent for warm-up."""
    sent: int
    not_sent_full: int
    """Arrivals not sent because `plan.max_in_flight` were in flight."""
    not_sent_late: int
    """Arrivals not sent because the tool was more than `plan.timeout_s` late."""
    latency: Distribution | None
    """Of answered requests, from the intended instant of sending; None without any."""
    lag: Distribution | None
    """From the intended to the real instant of sending: the tool's own part of `latency`. None in a closed loop."""
    errors: tuple[ErrorCount, ...]
    nodes: tuple[NodeShare, ...]
    """By the mesh's own timing; empty where it sent none."""

    @property
    def answered(self) -> int:
        """Requests answered without error."""
        return self.latency.count if self.latency else 0

    @property
    def failed(self) -> int:
        """Requests that ended in an error."""
        return sum(error.count for error in self.errors)

    @property
    def unanswered(self) -> int:
        """Requests in flight when the run was interrupted."""
        return self.sent - self.answered - self.failed

    @property
    def sent_per_s(self) -> float:
        """The rate that was achieved, to hold against `plan.rate_per_s`."""
        return self.sent / self.sending_s if self.sending_s else 0.0

    @property
    def answered_per_s(self) -> float:
        """Throughput: answers without error."""
        return self.answered / self.answering_s if self.answering_s else 0.0

    def remarks(self) -> tuple[str, ...]:
        """What a reader has to know before believing the numbers: every bound that was hit."""
        return tuple(_remarks(self))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types under stable names; a unit stands in the name (`_s` seconds, `_per_s` a second)."""
        return {
            "schema_version": SCHEMA_VERSION,
            "plan": asdict(self.plan),
            "interrupted": self.interrupted,
            "sending_s": self.sending_s,
            "answering_s": self.answering_s,
            "requests": {
                "warm_up": self.warm_up,
                "sent": self.sent,
                "answered": self.answered,
                "failed": self.failed,
                "unanswered": self.unanswered,
                "not_sent_full": self.not_sent_full,
                "not_sent_late": self.not_sent_late,
            },
            "rate_per_s": {
                "asked": self.plan.rate_per_s,
                "sent": self.sent_per_s,
                "answered": self.answered_per_s,
            },
            "latency_s": self.latency and asdict(self.latency),
            "send_lag_s": self.lag and asdict(self.lag),
            "errors": [asdict(error) for error in self.errors],
            "nodes": [
                {
                    "node": share.node,
                    "workers": list(share.workers),
                    "rows": share.rows,
                    "queue_s": asdict(share.queue),
                    "compute_s": asdict(share.compute),
                    "wire_s": asdict(share.wire),
                }
                for share in self.nodes
            ],
            "remarks": list(self.remarks()),
        }


def _remarks(report: Report) -> Iterator[str]:
    plan, latency, lag = report.plan, report.latency, report.lag
    if report.interrupted:
        yield f"interrupted; requests cancelled in flight: {report.unanswered}"
    if report.not_sent_full:
        yield f"arrivals not sent because {plan.max_in_flight} were in flight (max_in_flight): {report.not_sent_full}"
    if report.not_sent_late:
        late = format_duration(plan.timeout_s)
        yield f"arrivals not sent because this tool was more than {late} late (timeout_s): {report.not_sent_late}"
    if latency and latency.kept < latency.count:
        yield f"percentiles are of {latency.kept} latencies chosen at random from {latency.count} (max_samples)"
    if latency and lag and lag.p50 > _LATE * latency.p50:
        yield f"half were sent {format_duration(lag.p50)} late or more: that part of the latency is this tool's own"
    if report.sent and not latency:
        yield "not one request was answered"


def render(report: Report) -> RenderableType:
    """Tables for a terminal, or plain text where rich's console writes to a pipe."""
    from rich.console import Group
    from rich.text import Text

    counts = f"sent {report.sent}, answered {report.answered}, failed {report.failed}"
    if report.plan.mode != "closed":
        counts += f", not sent {report.not_sent_full + report.not_sent_late}"
    rates = f"{report.answered_per_s:.5g} answers/s"
    if report.plan.rate_per_s:
        rates += f" (asked {report.plan.rate_per_s:g}/s, sent {report.sent_per_s:.5g}/s)"
    parts: list[RenderableType] = [Text(str(report.plan), style="bold"), Text(counts), Text(rates)]
    if report.latency:
        parts += ["", _latencies(report.latency, report.lag)]
    if report.errors:
        parts += ["", _errors(report)]
    if report.nodes:
        parts += ["", _nodes(report.nodes)]
    remarks = [Text(f"! {remark}", style="yellow") for remark in report.remarks()]
    return Group(*parts, *([""] if remarks else []), *remarks)


def _table(*columns: str, left: int = 1) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position < left else "right", no_wrap=True)
    return table


def _latencies(latency: Distribution, lag: Distribution | None) -> RenderableType:
    table = _table("", "mean", "p50", "p90", "p95", "p99", "p99.9", "max")
    rows = [("latency", latency)] if lag is None else [("latency", latency), ("sent late", lag)]
    for name, found in rows:
        figures = (found.mean, found.p50, found.p90, found.p95, found.p99, found.p99_9, found.max)
        table.add_row(name, *map(format_duration, figures))
    return table


def _errors(report: Report) -> RenderableType:
    from rich.text import Text

    table = _table("errors", "count", "of sent", "first text")
    _wrap_last(table)
    for error in report.errors:
        table.add_row(error.code, str(error.count), f"{error.count / report.sent:.2%}", Text(error.first_text))
    return table


def _nodes(shares: tuple[NodeShare, ...]) -> RenderableType:
    from rich.text import Text

    table = _table("nodes", "", "queue", "compute", "wire", "calls", "rows", "workers", left=2)
    _wrap_last(table)
    for share in shares:
        parts = (share.queue, share.compute, share.wire)
        counts = (str(share.compute.count), str(share.rows), Text(", ".join(share.workers)))
        table.add_row(Text(share.node), "mean", *(format_duration(part.mean) for part in parts), *counts)
        table.add_row("", "p99", *(format_duration(part.p99) for part in parts))
    return table


def _wrap_last(table: Table) -> None:
    table.columns[-1].justify = "left"
    table.columns[-1].no_wrap = False
