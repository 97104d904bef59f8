from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Cancelled, DeadlineExceeded, NodeFailed, RequestError, Unavailable
from mesh.jobs.records import OVER, Attempt, Job, JobState, Lane
from mesh.jobs.store.next_step import Attempted, Ended, NotYet, Over, next_step, over, put_off, untouched
from mesh.jobs.store.settings import StoreSettings

NOW = 1000.0
SETTINGS = StoreSettings(graph="g", servers=("nats://a",), attempts=3, result_ttl_s=100.0, dead_ttl_s=500.0)
WAITING = Job(id="id", graph="g", state=JobState.QUEUED, lane=Lane.NORMAL, submit_time=900.0)
FIRST = Attempt(number=1, worker="old", start_time=950.0)
RUNNING = replace(WAITING, state=JobState.RUNNING, attempts=(FIRST,), attempt_count=1)
LOST = Unavailable("its worker was lost")


def step(job: Job, lease_time: float | None = None) -> object:
    return next_step(job, lease_time, "new", NOW, SETTINGS)


def begun(job: Job, lease_time: float | None = None) -> Job:
    found = step(job, lease_time)
    assert isinstance(found, Attempted)
    return found.job


def ended(job: Job, lease_time: float | None = None) -> Job:
    found = step(job, lease_time)
    assert isinstance(found, Ended)
    return found.job


def test_a_job_that_waits_is_begun() -> None:
    job = begun(WAITING)
    assert job.state is JobState.RUNNING
    assert job.attempts == (Attempt(number=1, worker="new", start_time=NOW),)
    assert job.attempt_count == 1


@pytest.mark.parametrize("state", [state for state in JobState if state in OVER])
def test_a_job_that_is_over_stays_so(state: JobState) -> None:
    assert step(replace(RUNNING, state=state, deadline=1.0)) == Over()


def test_a_job_that_somebody_has_is_left_alone_until_the_lease_is_over() -> None:
    assert step(RUNNING, NOW + 4) == NotYet(4.0)
    assert isinstance(step(RUNNING, NOW), Attempted)


def test_the_deadline_of_a_job_that_somebody_has_is_for_that_worker_to_see() -> None:
    assert step(replace(RUNNING, deadline=NOW - 1), NOW + 4) == NotYet(4.0)


def test_a_job_whose_worker_was_lost_is_begun_again_and_the_attempt_counts() -> None:
    job = begun(RUNNING, NOW - 1)
    assert job.attempt_count == 2
    lost, new = job.attempts
    assert lost == replace(FIRST, error=LOST)
    assert (new.number, new.worker) == (2, "new")


def test_a_job_whose_workers_were_all_lost_fails() -> None:
    job = ended(replace(RUNNING, attempt_count=3), NOW - 1)
    assert job.state is JobState.FAILED
    assert job.error == LOST
    assert job.attempts[-1].end_time is None


def test_a_job_that_is_not_due_is_left_alone() -> None:
    assert step(replace(WAITING, next_attempt_time=NOW + 2)) == NotYet(2.0)
    assert begun(replace(WAITING, next_attempt_time=NOW)).next_attempt_time is None


def test_a_job_whose_attempts_were_made_more_than_there_may_be_now_fails_by_its_last_error() -> None:
    error = NodeFailed("broken")
    job = replace(WAITING, attempts=(replace(FIRST, error=error),), attempt_count=7)
    assert ended(job).error == error


def test_a_job_whose_deadline_has_passed_fails() -> None:
    job = ended(replace(WAITING, deadline=NOW, request_id="asked"))
    assert job.state is JobState.FAILED
    assert isinstance(job.error, DeadlineExceeded)
    assert job.error.request_id == "asked"
    assert isinstance(ended(replace(WAITING, deadline=NOW, next_attempt_time=NOW + 9)).error, DeadlineExceeded)


@pytest.mark.parametrize(
    ("state", "error", "kept_s", "told"),
    [
        (JobState.DONE, None, 100.0, None),
        (JobState.FAILED, NodeFailed("broken"), 500.0, NodeFailed("broken")),
        (JobState.CANCELLED, None, 100.0, Cancelled("the job was cancelled")),
    ],
)
def test_a_job_that_ends_says_when_it_will_be_gone(
    state: JobState, error: RequestError | None, kept_s: float, told: RequestError | None
) -> None:
    job = over(RUNNING, state, NOW, SETTINGS, error)
    assert (job.state, job.end_time, job.expire_time, job.error) == (state, NOW, NOW + kept_s, error)
    assert job.attempts == (replace(FIRST, end_time=NOW, error=told),)


def test_a_job_that_is_cancelled_while_it_waits_keeps_its_history() -> None:
    history = (replace(FIRST, end_time=960.0, error=LOST),)
    job = over(replace(WAITING, attempts=history, next_attempt_time=NOW + 9), JobState.CANCELLED, NOW, SETTINGS)
    assert job.attempts == history
    assert job.next_attempt_time is None


def test_a_failed_attempt_is_followed_by_another_later() -> None:
    error = NodeFailed("broken")
    job = put_off(RUNNING, error, NOW, 5.0)
    assert (job.state, job.next_attempt_time, job.attempt_count) == (JobState.QUEUED, NOW + 5, 1)
    assert job.attempts == (replace(FIRST, end_time=NOW, error=error),)
    assert put_off(RUNNING, error, NOW, -1.0).next_attempt_time == NOW


def test_a_job_that_is_given_back_was_never_begun() -> None:
    assert untouched(begun(WAITING)) == WAITING


@given(st.integers(1, 30))
def test_lost_attempts_end_a_job_after_as_many_as_there_may_be(most: int) -> None:
    settings = replace(SETTINGS, attempts=most)
    job, made = WAITING, 0
    while True:
        found = next_step(job, None, "w", NOW, settings)
        if isinstance(found, Ended):
            break
        assert isinstance(found, Attempted)
        job, made = found.job, made + 1
    assert made == most


def test_whoever_looks_after_a_batch_may_be_lost_more_often_than_who_runs_a_job() -> None:
    lost = replace(RUNNING, attempt_count=SETTINGS.attempts)
    assert isinstance(step(lost, NOW - 1), Ended)
    assert isinstance(step(replace(lost, lane=Lane.SHARD), NOW - 1), Ended)
    assert isinstance(step(replace(lost, lane=Lane.BATCH), NOW - 1), Attempted)
    assert isinstance(step(replace(lost, lane=Lane.BATCH, attempt_count=1000), NOW - 1), Ended)
