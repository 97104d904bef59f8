from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.context import Parameter
from mesh.errors import InvalidInput, NodeFailed, Overloaded, Unavailable
from mesh.jobs.records import KEPT_ATTEMPTS, Attempt, Callback, Job, JobState, Lane, Progress, Work
from mesh.jobs.store.codec import (
    decode_inputs,
    decode_outputs,
    decode_progress,
    decode_work,
    digest_of,
    encode_inputs,
    encode_outputs,
    encode_progress,
    encode_work,
    job_of,
    kept,
    parsed,
    queued,
    stored_job,
)
from mesh.tensors import Tensors
from mesh.v1.call_pb2 import CallReport
from mesh.v1.job_record_pb2 import StoredHead, StoredJob, StoredWork
from tests.unit.jobs.store_given import large, tensors, work

times = st.floats(0, 1e11)
names = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
parameters: st.SearchStrategy[dict[str, Parameter]] = st.dictionaries(
    names, st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | names, max_size=4
)
callbacks = st.none() | st.builds(Callback, url=names.filter(bool)) | st.builds(Callback, listener=names.filter(bool))
works = st.builds(
    Work,
    lane=st.sampled_from(Lane),
    graph=names.filter(bool),
    inputs=st.none() | st.integers(1, 3).map(tensors),
    parameters=parameters,
    request_id=names,
    report=st.booleans(),
    deadline=st.none() | times,
    callback=callbacks,
    replay_of=names,
    task=st.binary(max_size=20),
)
errors = st.sampled_from(
    [NodeFailed("broken", node="a", row=3, request_id="r"), Overloaded("full", retry_after_s=1.5), Unavailable("gone")]
)
attempts = st.builds(
    Attempt,
    number=st.integers(1, 1000),
    worker=names,
    start_time=times,
    end_time=st.none() | times,
    error=st.none() | errors,
)
jobs = st.builds(
    Job,
    id=st.just("an-id"),
    graph=names,
    state=st.sampled_from([state for state in JobState if state is not JobState.EXPIRED]),
    lane=st.sampled_from(Lane),
    submit_time=times,
    deadline=st.none() | times,
    next_attempt_time=st.none() | times,
    end_time=st.none() | times,
    expire_time=st.none() | times,
    attempts=st.lists(attempts, max_size=KEPT_ATTEMPTS).map(tuple),
    attempt_count=st.integers(0, 1000),
    rows=st.integers(0, 2**40),
    outcome=st.binary(max_size=20),
    error=st.none() | errors,
    replay_of=names,
    request_id=names,
)


@given(works, times)
def test_work_comes_back_as_it_was(given_work: Work, time: float) -> None:
    stored = encode_work(given_work, graph="other", submit_time=time, claim="a claim")
    read = parsed(StoredWork(), stored.SerializeToString())
    assert decode_work(read, given_work.lane, given_work.inputs) == given_work
    assert read.head.submit_time == time
    assert read.claim == "a claim"


def test_work_for_no_graph_is_for_the_stores_own() -> None:
    assert encode_work(work(), graph="mine", submit_time=0.0).head.graph == "mine"


@given(jobs)
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    head = StoredHead(
        graph=job.graph,
        submit_time=job.submit_time,
        deadline=job.deadline,
        rows=job.rows,
        replay_of=job.replay_of,
        request_id=job.request_id,
    )
    stored = parsed(StoredJob(), stored_job(head, job).SerializeToString())
    assert job_of(job.id, job.lane, stored) == job


@given(st.integers(0, 40))
def test_the_first_and_the_last_attempts_are_kept(count: int) -> None:
    history: tuple[Attempt, ...] = ()
    for number in range(1, count + 1):
        history = kept((*history, Attempt(number=number, worker="w", start_time=0.0)))
    numbers = [attempt.number for attempt in history]
    half = KEPT_ATTEMPTS // 2
    expected = list(range(1, count + 1))
    assert numbers == (expected if count <= KEPT_ATTEMPTS else expected[:half] + expected[-half:])


@pytest.mark.parametrize("inputs", [tensors(3), large(), Tensors({}), Tensors({"t": np.array([b"a", b""], object)})])
def test_payloads_come_back_bit_for_bit_and_are_written_in_one_way(inputs: Tensors) -> None:
    assert decode_inputs(encode_inputs(inputs)) == inputs
    assert encode_inputs(inputs) == encode_inputs(inputs)


def test_results_come_back_with_their_report() -> None:
    report = CallReport()
    report.elapsed.seconds = 2
    assert decode_outputs(encode_outputs(tensors(), report)) == (tensors(), report)
    assert decode_outputs(encode_outputs(tensors(), None)) == (tensors(), None)


@pytest.mark.parametrize("outputs", [tensors(2), NodeFailed("broken", node="a"), large()])
def test_what_a_branch_gave_comes_back(outputs: Tensors | NodeFailed) -> None:
    progress = Progress(3, "branch", outputs)
    assert decode_progress(encode_progress(progress, 7)) == (progress, 7)


@given(works)
def test_deadline_and_request_id_are_not_what_is_asked_for(given_work: Work) -> None:
    other = replace(given_work, deadline=1.0, request_id="other")
    assert digest_of(other, graph="g") == digest_of(given_work, graph="g")


@pytest.mark.parametrize(
    "changes",
    [
        {"lane": Lane.HIGH},
        {"graph": "other"},
        {"inputs": tensors(1, 1.0)},
        {"inputs": tensors(2)},
        {"inputs": None},
        {"inputs": Tensors({"y": np.zeros((1, 4), np.float32)})},
        {"inputs": Tensors({"x": np.zeros((1, 4), np.int32)})},
        {"inputs": Tensors({"x": np.zeros((1, 2, 2), np.float32)})},
        {"parameters": {"a": 1}},
        {"parameters": {"a": True}},
        {"parameters": {"a": 1.0}},
        {"parameters": {"a": "1"}},
        {"parameters": {"b": 1}},
        {"report": True},
        {"callback": Callback(url="http://a")},
        {"callback": Callback(listener="http://a")},
        {"replay_of": "another"},
        {"task": b"t"},
    ],
)
def test_anything_else_is_another_request(changes: dict[str, Any]) -> None:
    plain = work(graph="g")
    others = [work(1, **{"graph": "g", **changes}), work(graph="g", parameters={"a": -1})]
    digests = {digest_of(one, graph="g") for one in (plain, *others)}
    assert len(digests) == 3


@given(st.dictionaries(names, st.integers(0, 3), max_size=5))
def test_the_order_of_parameters_does_not_matter(values: dict[str, Parameter]) -> None:
    backwards = dict(reversed(values.items()))
    one, other = work(parameters=values), work(parameters=backwards)
    assert digest_of(one, graph="g") == digest_of(other, graph="g")


@given(st.binary(max_size=50))
def test_bytes_that_are_no_record_are_refused_or_read(raw: bytes) -> None:
    try:
        job_of("id", Lane.LOW, parsed(StoredJob(), raw))
        decode_progress(raw)
    except InvalidInput:
        pass


def test_a_job_of_which_nothing_is_known_waits() -> None:
    job = queued("id", Lane.HIGH, encode_work(work(3, deadline=5.0), graph="g", submit_time=1.0).head)
    assert job == Job(
        id="id",
        graph="g",
        state=JobState.QUEUED,
        lane=Lane.HIGH,
        submit_time=1.0,
        deadline=5.0,
        rows=3,
        request_id="asked",
    )
