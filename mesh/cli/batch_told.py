"""A batch, for people and for programs: in one line, on a page, many in a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from mesh.cli.job_told import time_of_day
from mesh.cli.reports import json_of_error
from mesh.cli.terminal import printable
from mesh.errors import Cancelled
from mesh.jobs.batches.messages import Batch
from mesh.jobs.records import JobState
from mesh.units import format_duration

__all__ = ["batch_page", "batch_table", "json_of_batch", "raise_unless_done", "standing"]

_CAUSE_SHOWN = 72


def standing(batch: Batch) -> str:
    """Where a batch stands, in a line."""
    rows = f"{batch.rows_done:,} of {batch.rows:,} rows" if batch.rows else "its rows are not counted yet"
    failed = f", {batch.rows_failed:,} failed" if batch.rows_failed else ""
    why = "" if batch.error is None else printable(f": {batch.error.code}: {batch.error}")
    return f"{batch.state.value}: {rows}{failed}{why}"


def raise_unless_done(batch: Batch) -> None:
    """Pass where a batch is done.

    Raises:
        RequestError: What it ended in otherwise.
    """
    if batch.state is JobState.CANCELLED:
        raise Cancelled(f"batch {batch.id} was cancelled")
    if batch.error is not None:
        raise batch.error


def batch_page(batch: Batch) -> Any:
    """All that is told of a batch, as a table."""
    from rich.table import Table
    from rich.text import Text

    page = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _lines(batch):
        page.add_row(Text(name, style="bold"), Text(printable(value)))
    return page


def _lines(batch: Batch) -> Iterable[tuple[str, str]]:
    yield "batch", batch.id
    yield "state", standing(batch)
    if batch.spec is not None:
        yield "input", batch.spec.input
        yield "output", batch.spec.output
    if batch.shards:
        yield "shards", f"{batch.shards_done:,} of {batch.shards:,}"
    if batch.schedule:
        due = "" if batch.due_time is None else f", due {time_of_day(batch.due_time)}"
        yield "schedule", f"{batch.schedule}{due}"
    yield "submitted", time_of_day(batch.submit_time)
    if batch.start_time is not None:
        yield "started", time_of_day(batch.start_time)
    if batch.end_time is not None:
        yield "ended", time_of_day(batch.end_time)
    if (took_s := _took_s(batch)) is not None:
        yield "took", format_duration(round(took_s, 1))


def batch_table(batches: Sequence[Batch]) -> Any:
    """Many, a line each."""
    from rich.table import Table
    from rich.text import Text

    table = Table("batch", "state", "rows", "failed", "submitted", "because", box=None, pad_edge=False)
    for batch in batches:
        why = "" if batch.error is None else str(batch.error)
        cells = (
            batch.id,
            batch.state.value,
            f"{batch.rows_done:,} of {batch.rows:,}" if batch.rows else "",
            f"{batch.rows_failed:,}",
            time_of_day(batch.submit_time),
            why if len(why) <= _CAUSE_SHOWN else f"{why[: _CAUSE_SHOWN - 3]}...",
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def json_of_batch(batch: Batch) -> dict[str, Any]:
    """All that is told of a batch. Instants are RFC 3339 in UTC."""
    times = {
        "submitted": batch.submit_time,
        "started": batch.start_time,
        "ended": batch.end_time,
        "due": batch.due_time,
    }
    return {
        "id": batch.id,
        "state": batch.state.value,
        **({} if batch.spec is None else {"input": batch.spec.input, "output": batch.spec.output}),
        "rows": batch.rows,
        "rows_done": batch.rows_done,
        "rows_failed": batch.rows_failed,
        "shards": batch.shards,
        "shards_done": batch.shards_done,
        **({"schedule": batch.schedule} if batch.schedule else {}),
        **{name: datetime.fromtimestamp(at, UTC).isoformat() for name, at in times.items() if at is not None},
        **({} if batch.error is None else {"error": json_of_error(batch.error)}),
    }


def _took_s(batch: Batch) -> float | None:
    if batch.start_time is None or batch.end_time is None:
        return None
    return max(0.0, batch.end_time - batch.start_time)
