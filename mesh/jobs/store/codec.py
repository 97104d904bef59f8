"""Records to the messages that the store keeps, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from blake3 import blake3
from google.protobuf.message import DecodeError, Message

from mesh.context import Context, Parameter
from mesh.errors import InvalidInput, RequestError
from mesh.jobs.messages import decode_callback, decode_state, encode_callback, encode_state
from mesh.jobs.records import KEPT_ATTEMPTS, Attempt, Job, JobState, Lane, Progress, Work
from mesh.tensors import Tensors, datatype_of
from mesh.transports.codec import context_of, encode_data, encode_options
from mesh.transports.message import decode_answer, decode_call, encode_answer, encode_call
from mesh.transports.status import decode_error, encode_error
from mesh.v1.call_pb2 import CallOptions, CallReport
from mesh.v1.job_record_pb2 import (
    StoredAttempt,
    StoredHead,
    StoredJob,
    StoredProgress,
    StoredWork,
)

__all__ = [
    "decode_inputs",
    "decode_outputs",
    "decode_progress",
    "decode_work",
    "digest_of",
    "encode_inputs",
    "encode_outputs",
    "encode_progress",
    "encode_work",
    "job_of",
    "kept",
    "parsed",
    "queued",
    "stored_job",
]

M = TypeVar("M", bound=Message)


def encode_inputs(inputs: Tensors) -> bytes:
    """Inputs as the bytes of a payload: the same for the same inputs."""
    return encode_call("", inputs, CallOptions())


def decode_inputs(raw: bytes) -> Tensors:
    """The same, back.

    Raises:
        InvalidInput: The bytes are no such payload.
    """
    _, inputs, _ = decode_call(raw)
    if isinstance(inputs, InvalidInput):
        raise inputs
    return inputs


def encode_outputs(outputs: Tensors, report: CallReport | None) -> bytes:
    """Outputs, and how the attempt went that gave them, as the bytes of a payload."""
    return encode_answer(outputs, report)


def decode_outputs(raw: bytes) -> tuple[Tensors, CallReport | None]:
    """The same, back.

    Raises:
        InvalidInput: The bytes are no such payload.
    """
    outputs, report = decode_answer(raw)
    return outputs, report if report.ByteSize() else None


def encode_work(work: Work, *, graph: str, submit_time: float, claim: str = "") -> StoredWork:
    """What is to be done, without its inputs.

    Raises:
        InvalidInput: A parameter, a name or an address is nothing that can be kept.
    """
    context = Context(
        request_id=work.request_id, parameters=work.parameters, timings=[] if work.report else None, joins=[]
    )
    options = encode_options(context)
    try:
        head = StoredHead(
            graph=work.graph or graph,
            submit_time=submit_time,
            deadline=work.deadline,
            rows=0 if work.inputs is None else work.inputs.rows,
            replay_of=work.replay_of,
            request_id=work.request_id,
        )
        callback = None if work.callback is None else encode_callback(work.callback)
        return StoredWork(head=head, options=options, callback=callback, task=work.task, claim=claim)
    except ValueError:
        raise InvalidInput("the job has a name or an address that UTF-8 cannot spell") from None


def decode_work(stored: StoredWork, lane: Lane, inputs: Tensors | None) -> Work:
    """The same, back, with its inputs.

    Raises:
        InvalidInput: There are more parameters, or longer names, than are taken.
    """
    head, options = stored.head, stored.options
    # Without an id of its own, `context_of` would make one up.
    context = context_of(CallOptions(request_id="-", parameters=options.parameters), None)
    return Work(
        lane=lane,
        graph=head.graph,
        inputs=inputs,
        parameters=context.parameters,
        request_id=options.request_id,
        report=options.report_timings,
        deadline=head.deadline if head.HasField("deadline") else None,
        callback=decode_callback(stored.callback) if stored.HasField("callback") else None,
        replay_of=head.replay_of,
        task=stored.task,
    )


def digest_of(work: Work, *, graph: str) -> bytes:
    """BLAKE3 of what is asked for. Two works that differ only in their deadline and request id have the same."""
    hasher = blake3()

    def add(part: bytes | memoryview) -> None:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)

    def text(value: object) -> None:
        add(str(value).encode(errors="surrogatepass"))

    for value in (work.graph or graph, work.lane.name, work.report, work.replay_of, work.inputs is None):
        text(value)
    callback = work.callback
    for value in ("", "") if callback is None else (callback.url, callback.listener):
        text(value)
    add(work.task)
    _add_parameters(work.parameters, text)
    for name, array in () if work.inputs is None else work.inputs.items():
        text(name)
        text(datatype_of(array))
        text(array.shape)
        add(encode_data(array))
    return hasher.digest()


def _add_parameters(parameters: Mapping[str, Parameter], text: Callable[[object], None]) -> None:
    text(len(parameters))
    for name, value in sorted(parameters.items(), key=lambda item: item[0]):
        text(name)
        # 1, 1.0, True and "1" are four things to ask for.
        text(type(value).__name__)
        text(repr(value))


# Jobs.


def queued(id: str, lane: Lane, head: StoredHead) -> Job:  # noqa: A002
    """A job of which nothing is known but that it waits."""
    return Job(
        id=id,
        graph=head.graph,
        state=JobState.QUEUED,
        lane=lane,
        submit_time=head.submit_time,
        deadline=head.deadline if head.HasField("deadline") else None,
        rows=head.rows,
        replay_of=head.replay_of,
        request_id=head.request_id,
    )


def job_of(id: str, lane: Lane, stored: StoredJob) -> Job:  # noqa: A002
    """A job from its record, without its outputs and their report.

    Raises:
        InvalidInput: The record has a state that is not known here.
    """
    return replace(
        queued(id, lane, stored.head),
        state=decode_state(stored.state),
        next_attempt_time=stored.next_attempt_time if stored.HasField("next_attempt_time") else None,
        end_time=stored.end_time if stored.HasField("end_time") else None,
        expire_time=stored.expire_time if stored.HasField("expire_time") else None,
        attempts=tuple(map(_attempt_of, stored.attempts)),
        attempt_count=stored.attempt_count,
        outcome=stored.outcome,
        error=decode_error(stored.error) if stored.HasField("error") else None,
    )


def _attempt_of(stored: StoredAttempt) -> Attempt:
    return Attempt(
        number=stored.number,
        worker=stored.worker,
        start_time=stored.start_time,
        end_time=stored.end_time if stored.HasField("end_time") else None,
        error=decode_error(stored.error) if stored.HasField("error") else None,
    )


def _stored_attempts(attempts: tuple[Attempt, ...]) -> list[StoredAttempt]:
    return [
        StoredAttempt(
            number=attempt.number,
            worker=attempt.worker,
            start_time=attempt.start_time,
            end_time=attempt.end_time,
            error=None if attempt.error is None else encode_error(attempt.error),
        )
        for attempt in attempts
    ]


def kept(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Those attempts that are told of a job: its first and its last ones."""
    half = KEPT_ATTEMPTS // 2
    return attempts if len(attempts) <= KEPT_ATTEMPTS else (*attempts[:half], *attempts[-half:])


def stored_job(head: StoredHead, job: Job) -> StoredJob:
    """A job's record, without what only its store knows: its lease and where its outputs are."""
    return StoredJob(
        head=head,
        state=encode_state(job.state),
        attempts=_stored_attempts(kept(job.attempts)),
        attempt_count=job.attempt_count,
        next_attempt_time=job.next_attempt_time,
        end_time=job.end_time,
        expire_time=job.expire_time,
        outcome=job.outcome,
        error=None if job.error is None else encode_error(job.error),
    )


# What branches gave.


def encode_progress(progress: Progress, index: int) -> bytes:
    """What a branch gave, as the bytes of a message. `index` is its place among those of its attempt, from 1.

    Raises:
        InvalidInput: A tensor has a name that UTF-8 cannot spell.
    """
    stored = StoredProgress(attempt=progress.attempt, index=index, node=progress.node)
    if isinstance(progress.outputs, RequestError):
        stored.error.CopyFrom(encode_error(progress.outputs))
    else:
        stored.outputs = encode_answer(progress.outputs, None)
    return stored.SerializeToString()


def decode_progress(raw: bytes) -> tuple[Progress, int]:
    """The same, back, with its place.

    Raises:
        InvalidInput: The bytes are no such message.
    """
    stored = parsed(StoredProgress(), raw)
    outputs = decode_error(stored.error) if stored.HasField("error") else decode_answer(stored.outputs)[0]
    return Progress(stored.attempt, stored.node, outputs), stored.index


def parsed(message: M, raw: bytes) -> M:
    """A message, read from its bytes.

    Raises:
        InvalidInput: The bytes are no such message.
    """
    try:
        message.ParseFromString(raw)
    except DecodeError:
        raise InvalidInput("what is stored is no record of its kind") from None
    return message
