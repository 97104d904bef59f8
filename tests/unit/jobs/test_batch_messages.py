from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidInput, NodeFailed
from mesh.jobs.batches.messages import Batch, batch_of, decode_batch, encode_batch, read_spec, write_spec
from mesh.jobs.records import Job, JobState, Lane
from mesh.topology.graph_jobs import GraphBatch
from mesh.v1 import batch_service_pb2 as pb
from mesh.v1.batch_record_pb2 import BatchRecord, BatchTask

STATES = [state for state in JobState if state is not JobState.EXPIRED]
name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
path = name.filter(lambda text: "\0" not in text).map(lambda text: f"/{text}")
count = st.integers(0, 1 << 40)
time = st.integers(0, 1 << 32).map(float)
batches = st.builds(
    GraphBatch,
    input=path,
    input_format=st.sampled_from(["", "csv", "files"]),
    columns=st.dictionaries(name, name, max_size=3),
    output=path,
    keep=st.lists(name, max_size=3).map(tuple),
    outputs=st.lists(name, max_size=3).map(tuple),
    shard_rows=count,
    request_rows=count,
    stop_after=st.none() | count,
    parameters=st.dictionaries(name, st.booleans() | st.integers(-5, 5) | name, max_size=3),
)


@given(batches)
def test_what_is_asked_comes_back_as_it_was(batch: GraphBatch) -> None:
    assert read_spec(pb.BatchSpec.FromString(write_spec(batch, "graph").SerializeToString())) == batch


@given(
    st.builds(
        Batch,
        id=name,
        state=st.sampled_from(STATES),
        spec=st.none() | batches,
        rows=count,
        rows_done=count,
        rows_failed=count,
        shards=count,
        shards_done=count,
        submit_time=time,
        start_time=st.none() | time,
        end_time=st.none() | time,
        error=st.none() | st.just(NodeFailed("choked", node="model", row=3)),
        schedule=st.just("") | name,
        due_time=st.none() | time,
    )
)
def test_what_is_told_of_a_batch_comes_back_as_it_was(batch: Batch) -> None:
    assert decode_batch(pb.Batch.FromString(encode_batch(batch).SerializeToString())) == batch


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"input": ""}, "the batch's input is missing"),
        ({"output": "out"}, "the batch's output has to be an absolute path, and not 'out'"),
        ({"input": "/a\0b"}, "has to be an absolute path"),
        ({"input": "/" + "a" * 5000}, "has to be an absolute path"),
        ({"shard_rows": -1}, "shard_rows has to be at least 1, or 0 for the default, and not -1"),
        ({"request_rows": 1 << 41}, "request_rows has to be"),
        ({"keep": ["a"] * 5000}, "names more than 4096 columns and outputs"),
        ({"on_error": pb.BatchOnError(stop_after=-1)}, "stop_after has to be at least 0"),
    ],
)
def test_what_is_out_of_bounds_is_refused(changes: dict[str, Any], text: str) -> None:
    told: dict[str, Any] = {"input": "/in", "output": "/out"}
    with pytest.raises(InvalidInput, match=text):
        read_spec(pb.BatchSpec(**told | changes))


def test_a_batch_of_which_only_the_job_is_known_is_told_all_the_same() -> None:
    job = Job(id="b", graph="g", state=JobState.QUEUED, lane=Lane.BATCH, submit_time=5.0)
    assert batch_of(job, None) == Batch(id="b", state=JobState.QUEUED, submit_time=5.0)
    spec = write_spec(GraphBatch(input="/in", output="/out"))
    record = BatchRecord(task=BatchTask(spec=spec, schedule="nightly", due_time=9.0), rows=7, start_time=6.0)
    found = batch_of(job, record)
    assert (found.spec, found.rows, found.start_time) == (GraphBatch(input="/in", output="/out"), 7, 6.0)
    assert (found.schedule, found.due_time) == ("nightly", 9.0)
    assert not found.over


def test_a_state_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no state of a batch has the number 0"):
        decode_batch(pb.Batch(id="b"))
