"""A job, for people and for programs: where it stands in one line, all of it on a page, many of them in a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from mesh.cli.answers import answer_table
from mesh.cli.jsonable import json_of_tensors
from mesh.cli.reports import json_of_error, json_of_report, missing_branches, report_tables
from mesh.cli.terminal import printable
from mesh.context import Context
from mesh.errors import RequestError
from mesh.jobs.records import Attempt, Job, JobState
from mesh.transports.codec import seconds
from mesh.transports.report import note_report
from mesh.units import format_duration

__all__ = ["answer_parts", "job_page", "job_table", "json_of_job", "report_of", "standing", "time_of_day"]

CAUSE_SHOWN = 72
"""Characters of an error in a table of jobs."""


def time_of_day(time: float) -> str:
    """Seconds since 1970 as a time of day in UTC, to the second."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def standing(job: Job) -> str:
    """Where a job stands, in a line."""
    attempts = f"after {job.attempt_count} attempt{'' if job.attempt_count == 1 else 's'}"
    match job.state:
        case JobState.QUEUED if job.attempt_count:
            due = "" if job.next_attempt_time is None else f", the next at {time_of_day(job.next_attempt_time)}"
            last = job.attempts[-1].error if job.attempts else None
            return f"queued again {attempts}{due}{_why(last)}"
        case JobState.RUNNING if job.attempts:
            return printable(f"running: attempt {job.attempts[-1].number} at {job.attempts[-1].worker}")
        case JobState.DONE | JobState.FAILED if job.attempt_count:
            return f"{job.state.value} {attempts}{_why(job.error)}"
        case JobState.EXPIRED:
            return "expired: it was over so long ago that its result is gone"
        case _:
            return f"{job.state.value}{_why(job.error)}"


def _why(error: RequestError | None) -> str:
    return "" if error is None else printable(f": {error.code}: {error}")


def report_of(job: Job) -> Context:
    """How the attempt went that gave the result, as a call's context tells it."""
    if job.report is None:
        return Context()
    context = Context(timings=[] if job.report.node_timings else None, joins=[])
    note_report(job.report, seconds(job.report.elapsed), context)
    return context


def json_of_job(job: Job) -> dict[str, Any]:
    """All of a job; what is not set is left out. Times of day are RFC 3339 in UTC."""
    times = {
        "submit_time": job.submit_time or None,
        "deadline": job.deadline,
        "next_attempt_time": job.next_attempt_time,
        "end_time": job.end_time,
        "expire_time": job.expire_time,
    }
    found: dict[str, Any] = {
        "id": job.id,
        "graph": job.graph,
        "state": job.state.value,
        "priority": job.lane.name.lower(),
        **{name: _rfc3339(time) for name, time in times.items() if time is not None},
        "attempt_count": job.attempt_count,
        "attempts": list(map(_json_of_attempt, job.attempts)),
        "rows": job.rows,
        **json_of_report(report_of(job)),
    }
    if job.outputs is not None:
        found["outputs"] = json_of_tensors(job.outputs)
    if job.error is not None:
        found["error"] = json_of_error(job.error)
    return found | {name: value for name in ("replay_of", "request_id") if (value := getattr(job, name))}


def _json_of_attempt(attempt: Attempt) -> dict[str, Any]:
    found: dict[str, Any] = {
        "number": attempt.number,
        "worker": attempt.worker,
        "start_time": _rfc3339(attempt.start_time),
    }
    if attempt.end_time is not None:
        found["end_time"] = _rfc3339(attempt.end_time)
    if attempt.error is not None:
        found["error"] = json_of_error(attempt.error)
    return found


def _rfc3339(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def job_page(job: Job) -> list[Any]:
    """All of a job, for people: what is known of it, its attempts, its outputs."""
    from rich.table import Table
    from rich.text import Text

    page = Table(box=None, show_header=False, pad_edge=False)
    page.add_column(style="dim")
    page.add_column()
    for name, text in _facts(job):
        page.add_row(name, Text(printable(text)))
    parts: list[Any] = [page]
    if job.attempts:
        parts += ["", _attempts(job.attempts)]
        if (more := job.attempt_count - len(job.attempts)) > 0:
            parts.append(Text(f"… and {more} more between them", style="dim"))
    return [*parts, *([""] if job.outputs is not None else []), *answer_parts(job)]


def answer_parts(job: Job) -> list[Any]:
    """The outputs of a job, if it has any, and how it went."""
    from rich.text import Text

    context = report_of(job)
    parts = [] if job.outputs is None else answer_table(job.outputs)
    parts += map(Text, missing_branches(context.joins or ()))
    return parts + report_tables(context)


def _facts(job: Job) -> Iterable[tuple[str, str]]:
    yield "job", job.id
    yield "state", standing(job)
    if job.graph:
        yield "graph", f"{job.graph}, {job.rows:,} row{'' if job.rows == 1 else 's'}" if job.rows else job.graph
    if job.state is not JobState.EXPIRED:
        yield "priority", job.lane.name.lower()
    if job.submit_time:
        yield "submitted", time_of_day(job.submit_time)
    if job.deadline is not None:
        yield "due", time_of_day(job.deadline)
    if job.end_time is not None:
        took = f", {_span(job.end_time - job.submit_time)} later" if job.submit_time else ""
        yield "over", f"{time_of_day(job.end_time)}{took}"
    if job.expire_time is not None:
        yield "kept until", time_of_day(job.expire_time)
    if job.replay_of:
        yield "repeats", job.replay_of
    if job.request_id:
        yield "request", job.request_id


def _span(elapsed_s: float) -> str:
    # Clocks of two hosts may differ.
    return format_duration(round(max(0.0, elapsed_s), 3))


def _attempts(attempts: Sequence[Attempt]) -> Any:
    from rich.text import Text

    table = _table("attempt", "worker", "began", "took", "", right=("attempt", "took"))
    for one in attempts:
        took = "" if one.end_time is None else _span(one.end_time - one.start_time)
        ended = "" if one.error is None else printable(f"{one.error.code}: {one.error}")
        table.add_row(str(one.number), Text(printable(one.worker)), time_of_day(one.start_time), took, Text(ended))
    return table


def job_table(jobs: Sequence[Job]) -> Any:
    """Many jobs, a line each."""
    from rich.text import Text

    table = _table("job", "state", "priority", "submitted", "rows", "attempts", "", right=("rows", "attempts"))
    for job in jobs:
        error = "" if job.error is None else printable(f"{job.error.code}: {job.error}")
        table.add_row(
            Text(printable(job.id)),
            job.state.value,
            job.lane.name.lower(),
            time_of_day(job.submit_time),
            f"{job.rows:,}",
            f"{job.attempt_count:,}",
            Text(error if len(error) <= CAUSE_SHOWN else f"{error[: CAUSE_SHOWN - 3]}..."),
        )
    return table


def _table(*columns: str, right: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table
