"""What becomes of a job whose attempt ended in an error: another attempt, or its end. Pure.

| the attempt ended in | then |
|---|---|
| an error that `mesh.errors` calls retryable | another attempt, after its hint at the soonest |
| DeadlineExceeded, and the job has time left | another attempt: what ran out was the time of the attempt or of a node |
| NodeFailed, because a worker broke off its answer | another attempt: the worker may have died |
| anything else | the job has failed |

A job has also failed where its attempts are used up, and where its time is over by when the next one may begin.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mesh.errors import DeadlineExceeded, NodeFailed, Overloaded, RequestError, Unavailable
from mesh.jobs.work.backoff import Backoff
from mesh.transports.status import BROKEN_OFF

__all__ = ["Fail", "Retry", "judge", "may_pass"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt, in so many seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Fail:
    """The job is over, with this error."""

    error: RequestError


def may_pass(error: RequestError) -> bool:
    """Whether another attempt at a job that has time left may end in another way."""
    if isinstance(error, NodeFailed):
        return error.text == BROKEN_OFF
    return error.retryable or isinstance(error, DeadlineExceeded)


def judge(
    error: RequestError,
    *,
    attempt: int,
    attempts: int,
    remaining_s: float | None,
    backoff: Backoff,
    chance: random.Random,
) -> Retry | Fail:
    """What becomes of the job.

    Args:
        error: What the attempt ended in.
        attempt: Which attempt it was, from 1.
        attempts: How many there may be.
        remaining_s: Seconds until the job's own deadline; None where it has none.
        backoff: How the waits grow.
        chance: Where their jitter comes from.
    """
    over = remaining_s is not None and remaining_s <= 0
    if attempt >= attempts or over or not may_pass(error):
        return Fail(error)
    hint_s = error.retry_after_s if isinstance(error, Overloaded | Unavailable) else 0.0
    delay_s = backoff.delay_s(attempt, chance, hint_s=hint_s, within_s=remaining_s)
    if remaining_s is not None and delay_s >= remaining_s:
        return Fail(error)
    return Retry(delay_s)
