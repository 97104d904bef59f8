"""What is to be done with a job that was delivered: pure, of its record and the time of day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mesh.errors import Cancelled, DeadlineExceeded, RequestError, Unavailable
from mesh.jobs.records import Attempt, Job, JobState, Lane
from mesh.jobs.store.codec import kept
from mesh.jobs.store.settings import StoreSettings

__all__ = ["Attempted", "Ended", "NotYet", "Over", "Step", "attempts_of", "next_step", "over", "put_off", "untouched"]

_LOST = "its worker was lost"


@dataclass(frozen=True, slots=True)
class Over:
    """It is over: what is to follow from that is done once more, and the work goes."""


@dataclass(frozen=True, slots=True)
class NotYet:
    """Somebody has it, or it is not due: it is handed back for so long."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """It is over by this."""

    job: Job


@dataclass(frozen=True, slots=True)
class Attempted:
    """It is begun by this."""

    job: Job


Step = Over | NotYet | Ended | Attempted

BATCH_ATTEMPTS = 1000
"""Attempts at looking after a batch: whoever does runs none of it, so that it is not the batch that killed a worker."""


def attempts_of(lane: Lane, attempts: int) -> int:
    """How many attempts a job may have.

    Args:
        lane: Where it waits.
        attempts: How many a run may have.
    """
    return max(attempts, BATCH_ATTEMPTS) if lane is Lane.BATCH else attempts


def next_step(job: Job, lease_time: float | None, worker: str, now: float, settings: StoreSettings) -> Step:
    """What is to be done.

    Args:
        job: As it stands.
        lease_time: Until when the attempt that runs is its worker's.
        worker: Who would begin one.
        now: The time of day.
        settings: How many attempts there may be, and how long what is over is kept.
    """
    if job.over:
        return Over()
    if job.state is JobState.RUNNING:
        if lease_time is not None and lease_time > now:
            return NotYet(lease_time - now)
        job = _lost(job)
    elif job.next_attempt_time is not None and job.next_attempt_time > now and not _late(job, now):
        return NotYet(job.next_attempt_time - now)
    if _late(job, now):
        error = DeadlineExceeded("the deadline passed before the job was done", request_id=job.request_id)
        return Ended(over(job, JobState.FAILED, now, settings, error))
    if job.attempt_count >= attempts_of(job.lane, settings.attempts):
        last = job.attempts[-1].error if job.attempts else None
        error = last or Unavailable(_LOST, request_id=job.request_id)
        return Ended(over(job, JobState.FAILED, now, settings, error))
    number = job.attempt_count + 1
    attempt = Attempt(number=number, worker=worker, start_time=now)
    begun = replace(job, attempts=kept((*job.attempts, attempt)), attempt_count=number)
    return Attempted(replace(begun, state=JobState.RUNNING, next_attempt_time=None))


def _late(job: Job, now: float) -> bool:
    return job.deadline is not None and job.deadline <= now


def _lost(job: Job) -> Job:
    """A job whose worker says nothing any more: that attempt counts, and nobody knows when it ended."""
    lost = _with_last(job, lambda attempt: replace(attempt, error=Unavailable(_LOST, request_id=job.request_id)))
    return replace(lost, state=JobState.QUEUED)


def over(job: Job, state: JobState, now: float, settings: StoreSettings, error: RequestError | None = None) -> Job:
    """A job that is over now; its attempt, if it was in one, as well."""
    if job.state is JobState.RUNNING:
        told = error
        if state is JobState.CANCELLED:
            told = Cancelled("the job was cancelled", request_id=job.request_id)
        job = _with_last(job, lambda attempt: replace(attempt, end_time=now, error=told))
    # What failed is told of for as long as it can be replayed.
    kept_s = settings.result_ttl_s
    if state is JobState.FAILED:
        kept_s = max(kept_s, settings.dead_ttl_s)
    return replace(
        job,
        state=state,
        next_attempt_time=None,
        end_time=now,
        expire_time=now + kept_s,
        error=error if state is JobState.FAILED else None,
    )


def put_off(job: Job, error: RequestError, now: float, delay_s: float) -> Job:
    """A running job whose attempt ended in an error, and that is to be tried again."""
    ended = _with_last(job, lambda attempt: replace(attempt, end_time=now, error=error))
    return replace(ended, state=JobState.QUEUED, next_attempt_time=now + max(0.0, delay_s))


def untouched(job: Job) -> Job:
    """A running job as if its attempt had never begun."""
    return replace(job, state=JobState.QUEUED, attempts=job.attempts[:-1], attempt_count=job.attempt_count - 1)


def _with_last(job: Job, changed: Callable[[Attempt], Attempt]) -> Job:
    return replace(job, attempts=(*job.attempts[:-1], changed(job.attempts[-1]))) if job.attempts else job
