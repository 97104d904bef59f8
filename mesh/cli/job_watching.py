"""`mesh job watch`: a job on its way, a line for each thing that happens, or a JSON object."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from mesh.cli.answers import json_of_branch, outline
from mesh.cli.job_told import answer_parts, json_of_job, standing
from mesh.cli.reports import json_of_error
from mesh.cli.terminal import printable, saying, show
from mesh.errors import Cancelled, NotFound, RequestError
from mesh.jobs.records import Job, JobState, Progress

__all__ = ["raise_unless_done", "show_watch"]


async def show_watch(events: AsyncGenerator[Job | Progress], *, as_json: bool) -> Job:
    """Show each state and what each branch gives, to the end of the job; then its outputs. Returns it as it ended.

    Raises:
        RequestError: The job cannot be watched.
    """
    started = time.perf_counter()

    def tell(what: dict[str, Any], text: str) -> None:
        at_ms = (time.perf_counter() - started) * 1e3
        print(json.dumps({"at_ms": at_ms, **what}) if as_json else f"{at_ms:10.2f} ms  {text}", flush=True)

    async with aclosing(events):
        while True:
            with saying("waiting for what comes next"):
                event = await anext(events)
            if isinstance(event, Progress):
                tell(_json_of_progress(event), _line(event))
                continue
            tell(json_of_job(event), standing(event))
            if event.over:
                break
    if not as_json and (parts := answer_parts(event)):
        show(*parts)
    return event


def raise_unless_done(job: Job) -> None:
    """Pass where a job has a result.

    Raises:
        RequestError: What it ended in otherwise.
    """
    match job.state:
        case JobState.DONE:
            return
        case JobState.CANCELLED:
            raise Cancelled(f"job {job.id} was cancelled")
        case JobState.EXPIRED:
            raise NotFound(f"job {job.id} is expired: its result is gone")
        case _:
            raise job.error or NotFound(f"job {job.id} has no result")


def _json_of_progress(progress: Progress) -> dict[str, Any]:
    named = {"attempt": progress.attempt, "node": progress.node}
    if isinstance(progress.outputs, RequestError):
        return {**named, "error": json_of_error(progress.outputs)}
    return {**named, **json_of_branch(progress.outputs)}


def _line(progress: Progress) -> str:
    given = progress.outputs
    told = printable(f"{given.code}: {given.told}") if isinstance(given, RequestError) else outline(given)
    return f"{printable(progress.node)}  {told}"
