"""Jobs to `mesh.v1` messages and back: what a service tells is what its client's records say.

Times of day are whole nanoseconds on the wire; a time that a clock gave comes back as the very same number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import InvalidInput, RequestError
from mesh.jobs.records import Attempt, Callback, Job, JobState, Lane, Progress
from mesh.tensors import Tensors
from mesh.transports.codec import decode_sources, decode_tensors, encode_sources, encode_tensors
from mesh.transports.status import decode_error, encode_error
from mesh.v1 import graph_service_pb2, job_service_pb2

__all__ = [
    "decode_callback",
    "decode_event",
    "decode_job",
    "decode_priority",
    "decode_state",
    "encode_callback",
    "encode_event",
    "encode_job",
    "encode_priority",
    "encode_state",
    "instant",
    "timestamp",
]

_STATES: Mapping[JobState, job_service_pb2.JobState.ValueType] = {
    JobState.QUEUED: job_service_pb2.JOB_STATE_QUEUED,
    JobState.RUNNING: job_service_pb2.JOB_STATE_RUNNING,
    JobState.DONE: job_service_pb2.JOB_STATE_DONE,
    JobState.FAILED: job_service_pb2.JOB_STATE_FAILED,
    JobState.CANCELLED: job_service_pb2.JOB_STATE_CANCELLED,
    JobState.EXPIRED: job_service_pb2.JOB_STATE_EXPIRED,
}
_BY_STATE: Mapping[int, JobState] = {number: state for state, number in _STATES.items()}
_PRIORITIES: Mapping[Lane, job_service_pb2.JobPriority.ValueType] = {
    Lane.HIGH: job_service_pb2.JOB_PRIORITY_HIGH,
    Lane.NORMAL: job_service_pb2.JOB_PRIORITY_NORMAL,
    Lane.LOW: job_service_pb2.JOB_PRIORITY_LOW,
}
_BY_PRIORITY: Mapping[int, Lane] = {
    job_service_pb2.JOB_PRIORITY_UNSPECIFIED: Lane.NORMAL,
    **{number: lane for lane, number in _PRIORITIES.items()},
}
_NANOS = 10**9


def timestamp(time: float) -> Timestamp:
    """Seconds since 1970-01-01 UTC as a message, to the nanosecond."""
    whole = math.floor(time)
    # Apart, because all in one is more digits than a float has.
    carried, nanos = divmod(round((time - whole) * _NANOS), _NANOS)
    return Timestamp(seconds=whole + carried, nanos=nanos)


def instant(message: Timestamp) -> float:
    """A message in seconds since 1970-01-01 UTC."""
    return message.seconds + message.nanos / _NANOS


def encode_state(state: JobState) -> job_service_pb2.JobState.ValueType:
    """A state as its number."""
    return _STATES[state]


def decode_state(number: int) -> JobState:
    """The state of a number.

    Raises:
        InvalidInput: There is none.
    """
    state = _BY_STATE.get(number)
    if state is None:
        raise InvalidInput(f"no state of a job has the number {number}")
    return state


def encode_priority(lane: Lane) -> job_service_pb2.JobPriority.ValueType:
    """The priority of those who wait in a lane; unspecified where nobody chose it, as of shards."""
    return _PRIORITIES.get(lane, job_service_pb2.JOB_PRIORITY_UNSPECIFIED)


def decode_priority(number: int) -> Lane:
    """The lane that a priority means; the normal one where none is given.

    Raises:
        InvalidInput: There is no such priority.
    """
    lane = _BY_PRIORITY.get(number)
    if lane is None:
        raise InvalidInput(f"no priority has the number {number}")
    return lane


def encode_callback(callback: Callback) -> job_service_pb2.JobCallback:
    """Who is told of a job's end, as a message."""
    if callback.listener:
        return job_service_pb2.JobCallback(listener=callback.listener)
    return job_service_pb2.JobCallback(url=callback.url)


def decode_callback(message: job_service_pb2.JobCallback) -> Callback:
    """The same, back. Neither of the two is set where the message has none."""
    return Callback(url=message.url, listener=message.listener)


def encode_job(job: Job) -> job_service_pb2.Job:
    """A job as a message, with its outputs where it has them.

    Raises:
        InvalidInput: A tensor has a name that UTF-8 cannot spell.
    """
    message = job_service_pb2.Job(
        id=job.id,
        graph=job.graph,
        state=encode_state(job.state),
        priority=encode_priority(job.lane),
        submit_time=_told(job.submit_time or None),
        deadline=_told(job.deadline),
        next_attempt_time=_told(job.next_attempt_time),
        end_time=_told(job.end_time),
        expire_time=_told(job.expire_time),
        attempts=map(_encode_attempt, job.attempts),
        attempt_count=job.attempt_count,
        rows=job.rows,
        report=job.report,
        error=None if job.error is None else encode_error(job.error),
        replay_of=job.replay_of,
        request_id=job.request_id,
    )
    if job.outputs is not None:
        message.outputs.extend(encode_tensors(job.outputs))
    return message


def decode_job(message: job_service_pb2.Job) -> Job:
    """The job that a message tells of.

    A state that a newer mesh may have is told by the next best word.

    Raises:
        InvalidInput: Its outputs are not what they say.
    """
    state = _BY_STATE.get(message.state)
    if state is None:
        ended = JobState.FAILED if message.HasField("error") else JobState.DONE
        state = ended if message.HasField("end_time") else JobState.QUEUED
    return Job(
        id=message.id,
        graph=message.graph,
        state=state,
        lane=_BY_PRIORITY.get(message.priority, Lane.NORMAL),
        submit_time=instant(message.submit_time),
        deadline=_heard(message, "deadline"),
        next_attempt_time=_heard(message, "next_attempt_time"),
        end_time=_heard(message, "end_time"),
        expire_time=_heard(message, "expire_time"),
        attempts=tuple(map(_decode_attempt, message.attempts)),
        attempt_count=message.attempt_count,
        rows=message.rows,
        outputs=decode_tensors(message.outputs) if message.outputs else None,
        report=message.report if message.HasField("report") else None,
        error=decode_error(message.error) if message.HasField("error") else None,
        replay_of=message.replay_of,
        request_id=message.request_id,
    )


def encode_event(event: Job | Progress) -> job_service_pb2.WatchJobResponse:
    """What a job comes to, as a message."""
    if isinstance(event, Job):
        return job_service_pb2.WatchJobResponse(job=encode_job(event))
    if isinstance(event.outputs, RequestError):
        # The node stands in the error, as in RunStream.
        detail = encode_error(event.outputs)
        detail.node = detail.node or event.node
        failed = job_service_pb2.JobBranchFailed(attempt=event.attempt, error=detail)
        return job_service_pb2.WatchJobResponse(failed=failed)
    outputs = graph_service_pb2.NodeOutputs(node=event.node, outputs=encode_tensors(event.outputs))
    if event.outputs.sources is not None:
        outputs.sources.CopyFrom(encode_sources(event.outputs.sources))
    return job_service_pb2.WatchJobResponse(outputs=job_service_pb2.JobOutputs(attempt=event.attempt, outputs=outputs))


def decode_event(message: job_service_pb2.WatchJobResponse) -> Job | Progress | None:
    """The same, back; None where it is something that only a newer mesh tells.

    Raises:
        InvalidInput: A tensor in it is not what it says.
    """
    match message.WhichOneof("event"):
        case "job":
            return decode_job(message.job)
        case "outputs":
            given = message.outputs.outputs
            tensors: Tensors = decode_tensors(given.outputs)
            if given.HasField("sources"):
                tensors = decode_sources(tensors, given.sources)
            return Progress(message.outputs.attempt, given.node, tensors)
        case "failed":
            error = decode_error(message.failed.error)
            return Progress(message.failed.attempt, error.node, error)
        case _:
            return None


def _encode_attempt(attempt: Attempt) -> job_service_pb2.JobAttempt:
    return job_service_pb2.JobAttempt(
        number=attempt.number,
        worker=attempt.worker,
        start_time=timestamp(attempt.start_time),
        end_time=_told(attempt.end_time),
        error=None if attempt.error is None else encode_error(attempt.error),
    )


def _decode_attempt(message: job_service_pb2.JobAttempt) -> Attempt:
    return Attempt(
        number=message.number,
        worker=message.worker,
        start_time=instant(message.start_time),
        end_time=instant(message.end_time) if message.HasField("end_time") else None,
        error=decode_error(message.error) if message.HasField("error") else None,
    )


def _told(time: float | None) -> Timestamp | None:
    return None if time is None else timestamp(time)


def _heard(message: job_service_pb2.Job, field: str) -> float | None:
    # The stubs list the fields by their literals.
    return instant(getattr(message, field)) if message.HasField(field) else None  # pyright: ignore[reportArgumentType]
