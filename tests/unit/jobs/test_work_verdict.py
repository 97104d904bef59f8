"""Every error of the table, and what becomes of a job whose attempt ended in it."""

from __future__ import annotations

import random

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import (
    REQUEST_ERRORS,
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    NodeFailed,
    NotFound,
    Overloaded,
    RequestError,
    Unavailable,
)
from mesh.jobs.work.backoff import Backoff
from mesh.jobs.work.verdict import Fail, Retry, judge
from mesh.transports.status import error_of_call

BACKOFF = Backoff(first_s=1, most_s=60)
errors = st.sampled_from([*REQUEST_ERRORS.values()]).map(lambda made: made("so it went"))


def judged(
    error: RequestError, *, attempt: int = 1, attempts: int = 5, remaining_s: float | None = None
) -> Retry | Fail:
    return judge(
        error, attempt=attempt, attempts=attempts, remaining_s=remaining_s, backoff=BACKOFF, chance=random.Random(1)
    )


@pytest.mark.parametrize("made", [Overloaded, Unavailable, DeadlineExceeded])
def test_what_may_pass_is_tried_again(made: type[RequestError]) -> None:
    assert isinstance(judged(made("not now")), Retry)
    assert isinstance(judged(made("not now"), remaining_s=100), Retry)


@pytest.mark.parametrize("made", [InvalidInput, NotFound, Cancelled, NodeFailed])
def test_what_stays_as_it_is_fails_the_job_at_once(made: type[RequestError]) -> None:
    error = made("never")
    assert judged(error) == Fail(error)


def test_the_table_of_errors_agrees() -> None:
    for made in REQUEST_ERRORS.values():
        if made.retryable:
            assert isinstance(judged(made("so")), Retry)


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE])
def test_an_answer_that_a_worker_broke_off_is_asked_for_again(code: grpc.StatusCode) -> None:
    empty = grpc.aio.Metadata()
    assert isinstance(judged(error_of_call(grpc.aio.AioRpcError(code, empty, empty, "RST_STREAM"))), Retry)


def test_the_last_attempt_is_the_last() -> None:
    error = Unavailable("still not")
    assert isinstance(judged(error, attempt=4), Retry)
    assert judged(error, attempt=5) == Fail(error)
    assert judged(error, attempt=1, attempts=1) == Fail(error)


def test_a_job_whose_time_is_over_is_not_tried_again() -> None:
    error = DeadlineExceeded("too late")
    assert judged(error, remaining_s=0) == Fail(error)
    assert judged(error, remaining_s=-1) == Fail(error)


def test_nobody_waits_for_a_hint_that_ends_after_the_job() -> None:
    error = Overloaded("full", retry_after_s=10)
    assert judged(error, remaining_s=10) == Fail(error)
    verdict = judged(error, remaining_s=10.5)
    assert isinstance(verdict, Retry)
    assert 10 <= verdict.delay_s < 10.5


@given(
    errors,
    st.integers(1, 10),
    st.integers(1, 10),
    st.one_of(st.none(), st.floats(-10, 1000)),
    st.floats(0, 100),
)
@settings(max_examples=200)
def test_another_attempt_always_fits_into_what_is_left(
    error: RequestError, attempt: int, attempts: int, remaining_s: float | None, hint_s: float
) -> None:
    if isinstance(error, Overloaded | Unavailable):
        error.retry_after_s = hint_s
    verdict = judged(error, attempt=attempt, attempts=attempts, remaining_s=remaining_s)
    if isinstance(verdict, Retry):
        assert attempt < attempts
        assert verdict.delay_s >= 0
        assert remaining_s is None or verdict.delay_s < remaining_s
    else:
        assert verdict.error is error
