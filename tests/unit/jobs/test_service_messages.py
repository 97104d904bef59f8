"""Jobs cross the wire and come back as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Cancelled, InvalidInput, NodeFailed, NotFound, Overloaded, RequestError, Unavailable
from mesh.jobs.messages import (
    decode_callback,
    decode_event,
    decode_job,
    decode_priority,
    decode_state,
    encode_callback,
    encode_event,
    encode_job,
    encode_priority,
    encode_state,
    instant,
    timestamp,
)
from mesh.jobs.records import RUNS, Attempt, Callback, Job, JobState, Lane, Progress
from mesh.tensors import Tensors
from mesh.v1 import call_pb2, job_service_pb2
from tests.unit.transports.given import tensors

# From 1970 to 2286, but for the first months: there a float is finer than a nanosecond.
times = st.floats(min_value=1e7, max_value=1e10, allow_nan=False)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
kinds = st.sampled_from([InvalidInput, NotFound, Overloaded, Unavailable, NodeFailed, Cancelled])


@st.composite
def errors(draw: st.DrawFn) -> RequestError:
    return draw(kinds)(draw(texts), node=draw(texts), row=draw(st.none() | st.integers(0, 9)))


@st.composite
def reports(draw: st.DrawFn) -> call_pb2.CallReport:
    return call_pb2.CallReport(node_timings=[call_pb2.NodeTiming(rows=draw(st.integers(1, 9)))])


attempts = st.builds(
    Attempt,
    number=st.integers(1, 99),
    worker=texts,
    start_time=times,
    end_time=st.none() | times,
    error=st.none() | errors(),
)
jobs = st.builds(
    Job,
    id=texts,
    graph=texts,
    state=st.sampled_from(JobState),
    lane=st.sampled_from(RUNS),
    submit_time=times,
    deadline=st.none() | times,
    next_attempt_time=st.none() | times,
    end_time=st.none() | times,
    expire_time=st.none() | times,
    attempts=st.lists(attempts, max_size=3).map(tuple),
    attempt_count=st.integers(0, 1 << 30),
    rows=st.integers(0, 1 << 40),
    outputs=tensors.map(lambda drawn: drawn or None),
    report=st.none() | reports(),
    error=st.none() | errors(),
    replay_of=texts,
    request_id=texts,
)


def over_the_wire(job: Job) -> Job:
    return decode_job(job_service_pb2.Job.FromString(encode_job(job).SerializeToString()))


@given(jobs)
def test_a_job_comes_back_equal(job: Job) -> None:
    assert over_the_wire(job) == job


@given(times)
def test_a_time_of_day_comes_back_as_the_same_number(time: float) -> None:
    message = timestamp(time)
    assert 0 <= message.nanos < 10**9
    assert instant(message) == time


@given(st.integers(0, 9), texts.filter(bool), tensors)
def test_what_a_branch_gives_comes_back_equal(attempt: int, node: str, given: Tensors) -> None:
    progress = Progress(attempt, node, given)
    assert decode_event(encode_event(progress)) == progress


def test_a_branch_that_ran_on_some_rows_says_which() -> None:
    progress = Progress(2, "large", Tensors({"y": [1.0, 2.0]}, sources=[0, 3]))
    found = decode_event(encode_event(progress))
    assert isinstance(found, Progress)
    assert isinstance(found.outputs, Tensors)
    assert found.outputs.sources is not None
    assert found.outputs.sources.tolist() == [0, 3]


@pytest.mark.parametrize("named", ["", "left"])
def test_a_branch_that_failed_is_named_with_its_error(named: str) -> None:
    found = decode_event(encode_event(Progress(1, "left", Overloaded("full", node=named, retry_after_s=0.5))))
    assert found == Progress(1, "left", Overloaded("full", node="left", retry_after_s=0.5))


def test_every_state_and_priority_has_a_number_of_its_own() -> None:
    assert len({encode_state(state) for state in JobState}) == len(JobState)
    assert [decode_state(encode_state(state)) for state in JobState] == list(JobState)
    assert [decode_priority(encode_priority(lane)) for lane in RUNS] == list(RUNS)
    assert decode_priority(job_service_pb2.JOB_PRIORITY_UNSPECIFIED) is Lane.NORMAL
    assert encode_priority(Lane.SHARD) == job_service_pb2.JOB_PRIORITY_UNSPECIFIED


@pytest.mark.parametrize("decode", [decode_state, decode_priority])
def test_a_number_that_nobody_knows_is_refused(decode: object) -> None:
    assert callable(decode)
    with pytest.raises(InvalidInput, match="number 17"):
        decode(17)


def test_no_state_is_none() -> None:
    with pytest.raises(InvalidInput, match="number 0"):
        decode_state(job_service_pb2.JOB_STATE_UNSPECIFIED)


@pytest.mark.parametrize("callback", [Callback(url="https://a.example/x"), Callback(listener="grpc://a.example:1")])
def test_callbacks_come_back_equal(callback: Callback) -> None:
    assert decode_callback(encode_callback(callback)) == callback


def test_a_callback_to_nobody_is_to_nobody() -> None:
    assert decode_callback(job_service_pb2.JobCallback()) == Callback()


@pytest.mark.parametrize(
    ("ended", "error", "told"),
    [(None, None, JobState.QUEUED), (5.0, None, JobState.DONE), (5.0, NodeFailed("broken"), JobState.FAILED)],
)
def test_a_state_that_only_a_newer_mesh_knows_is_told_by_the_next_best(
    ended: float | None, error: RequestError | None, told: JobState
) -> None:
    message = encode_job(
        Job(id="a", graph="g", state=JobState.RUNNING, lane=Lane.LOW, submit_time=1.0, end_time=ended, error=error)
    )
    message.state = 99  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    assert decode_job(message).state is told


def test_an_event_that_only_a_newer_mesh_knows_is_none() -> None:
    assert decode_event(job_service_pb2.WatchJobResponse()) is None


def test_outputs_that_are_not_what_they_say_are_refused() -> None:
    job = Job(id="a", graph="g", state=JobState.DONE, lane=Lane.LOW, submit_time=1.0)
    message = encode_job(replace(job, outputs=Tensors({"y": np.zeros(3, np.float32)})))
    message.outputs[0].data = b"x"
    with pytest.raises(InvalidInput, match="'y' has 1 bytes"):
        decode_job(message)
