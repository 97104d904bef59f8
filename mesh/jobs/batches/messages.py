"""Batches to `mesh.v1` messages and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.context import Context
from mesh.errors import InvalidInput, RequestError
from mesh.jobs.messages import instant, timestamp
from mesh.jobs.records import Job, JobState
from mesh.topology.graph_jobs import GraphBatch
from mesh.transports.codec import context_of, encode_options
from mesh.transports.status import decode_error, encode_error
from mesh.v1 import batch_service_pb2 as pb
from mesh.v1.batch_record_pb2 import BatchRecord
from mesh.v1.call_pb2 import CallOptions

__all__ = ["Batch", "batch_of", "decode_batch", "encode_batch", "read_spec", "write_spec"]

_MOST_TEXT = 4096
_MOST_NAMES = 4096
_MOST_ROWS = 1 << 40

_STATES: Mapping[JobState, pb.BatchState.ValueType] = {
    JobState.QUEUED: pb.BATCH_STATE_QUEUED,
    JobState.RUNNING: pb.BATCH_STATE_RUNNING,
    JobState.DONE: pb.BATCH_STATE_DONE,
    JobState.FAILED: pb.BATCH_STATE_FAILED,
    JobState.CANCELLED: pb.BATCH_STATE_CANCELLED,
}
_BY_STATE: Mapping[int, JobState] = {number: state for state, number in _STATES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch as it stands. Times in seconds since 1970-01-01 UTC."""

    id: str
    state: JobState
    """Not EXPIRED: of one that is, nothing is told."""
    spec: GraphBatch | None = None
    """What was asked; None in the moment in which only that it was asked is stored."""
    rows: int = 0
    """Of the input; 0 until they are counted."""
    rows_done: int = 0
    """That are answered: those of shards under way included, while it runs."""
    rows_failed: int = 0
    shards: int = 0
    shards_done: int = 0
    submit_time: float = 0.0
    start_time: float | None = None
    """When its first shard began."""
    end_time: float | None = None
    error: RequestError | None = None
    """Why it failed."""
    schedule: str = ""
    due_time: float | None = None
    graph: str = field(default="", compare=False)

    @property
    def over(self) -> bool:
        """Whether nothing will be done for it any more."""
        return self.state not in (JobState.QUEUED, JobState.RUNNING)


def read_spec(spec: pb.BatchSpec) -> GraphBatch:
    """What is to be run over what.

    Raises:
        InvalidInput: Something in it is out of bounds, or a path is not absolute.
    """
    for what, path in (("input", spec.input), ("output", spec.output)):
        if not path:
            raise InvalidInput(f"the batch's {what} is missing")
        if not os.path.isabs(path) or "\0" in path or len(path) > _MOST_TEXT:
            raise InvalidInput(f"the batch's {what} has to be an absolute path, and not {path[:100]!r}")
    for what, count in (("shard_rows", spec.shard_rows), ("request_rows", spec.request_rows)):
        if not 0 <= count <= _MOST_ROWS:
            raise InvalidInput(f"{what} has to be at least 1, or 0 for the default, and not {count}")
    if len(spec.columns) + len(spec.keep) + len(spec.outputs) > _MOST_NAMES:
        raise InvalidInput(f"the batch names more than {_MOST_NAMES} columns and outputs")
    policy = spec.on_error.WhichOneof("policy")
    if policy == "stop_after" and spec.on_error.stop_after < 0:
        raise InvalidInput(f"stop_after has to be at least 0, and not {spec.on_error.stop_after}")
    parameters = context_of(CallOptions(parameters=spec.parameters), None).parameters
    return GraphBatch(
        input=spec.input,
        input_format=spec.input_format,
        columns=dict(spec.columns),
        output=spec.output,
        keep=tuple(spec.keep),
        outputs=tuple(spec.outputs),
        shard_rows=spec.shard_rows,
        request_rows=spec.request_rows,
        stop_after=spec.on_error.stop_after if policy == "stop_after" else None,
        parameters=dict(parameters),
    )


def write_spec(batch: GraphBatch, graph: str = "") -> pb.BatchSpec:
    """The same as a message."""
    keep_going = pb.BatchOnError(keep_going=True)
    return pb.BatchSpec(
        graph=graph,
        input=batch.input,
        input_format=batch.input_format,
        columns=batch.columns,
        output=batch.output,
        keep=batch.keep,
        outputs=batch.outputs,
        shard_rows=batch.shard_rows,
        request_rows=batch.request_rows,
        on_error=keep_going if batch.stop_after is None else pb.BatchOnError(stop_after=batch.stop_after),
        parameters=encode_options(Context(parameters=batch.parameters)).parameters,
    )


def batch_of(job: Job, record: BatchRecord | None) -> Batch:
    """A batch out of its job, and of what was written down of it last."""
    record = record or BatchRecord()
    told = record.task
    return Batch(
        id=job.id,
        state=job.state,
        spec=read_spec(told.spec) if told.HasField("spec") else None,
        rows=record.rows,
        rows_done=record.rows_done,
        rows_failed=record.rows_failed,
        shards=record.shards,
        shards_done=record.shards_done,
        submit_time=job.submit_time,
        start_time=record.start_time if record.HasField("start_time") else None,
        end_time=job.end_time,
        error=job.error,
        schedule=told.schedule,
        due_time=told.due_time if told.HasField("due_time") else None,
        graph=job.graph,
    )


def encode_batch(batch: Batch) -> pb.Batch:
    """A batch as a message."""
    return pb.Batch(
        id=batch.id,
        spec=None if batch.spec is None else write_spec(batch.spec, batch.graph),
        state=_STATES[batch.state],
        rows=batch.rows,
        rows_done=batch.rows_done,
        rows_failed=batch.rows_failed,
        shards=batch.shards,
        shards_done=batch.shards_done,
        submit_time=timestamp(batch.submit_time),
        start_time=None if batch.start_time is None else timestamp(batch.start_time),
        end_time=None if batch.end_time is None else timestamp(batch.end_time),
        error=None if batch.error is None else encode_error(batch.error),
        schedule=batch.schedule,
        due_time=None if batch.due_time is None else timestamp(batch.due_time),
    )


def decode_batch(message: pb.Batch) -> Batch:
    """The same, back.

    Raises:
        InvalidInput: Its state is none.
    """
    state = _BY_STATE.get(message.state)
    if state is None:
        raise InvalidInput(f"no state of a batch has the number {message.state}")
    return Batch(
        id=message.id,
        state=state,
        spec=read_spec(message.spec) if message.HasField("spec") else None,
        rows=message.rows,
        rows_done=message.rows_done,
        rows_failed=message.rows_failed,
        shards=message.shards,
        shards_done=message.shards_done,
        submit_time=instant(message.submit_time),
        start_time=instant(message.start_time) if message.HasField("start_time") else None,
        end_time=instant(message.end_time) if message.HasField("end_time") else None,
        error=decode_error(message.error) if message.HasField("error") else None,
        schedule=message.schedule,
        due_time=instant(message.due_time) if message.HasField("due_time") else None,
        graph=message.spec.graph,
    )
