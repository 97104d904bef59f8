"""Schedules to `mesh.v1` messages and back: their records in the store, and what BatchService tells of them."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.jobs.messages import instant, timestamp
from mesh.jobs.schedules.firing import Firing, FiringState, Record, Skip
from mesh.jobs.schedules.schedule import ScheduleTold
from mesh.transports.codec import duration, seconds
from mesh.v1 import batch_service_pb2 as pb
from mesh.v1.schedule_record_pb2 import ScheduleRecord

__all__ = ["decode_record", "decode_told", "encode_record", "encode_told"]

_STATES: Mapping[FiringState, pb.ScheduleRunState.ValueType] = {
    FiringState.BEGINNING: pb.SCHEDULE_RUN_STATE_BEGINNING,
    FiringState.RUNNING: pb.SCHEDULE_RUN_STATE_RUNNING,
    FiringState.DONE: pb.SCHEDULE_RUN_STATE_DONE,
    FiringState.FAILED: pb.SCHEDULE_RUN_STATE_FAILED,
    FiringState.CANCELLED: pb.SCHEDULE_RUN_STATE_CANCELLED,
    FiringState.FORGOTTEN: pb.SCHEDULE_RUN_STATE_FORGOTTEN,
}
_BY_STATE: Mapping[int, FiringState] = {number: state for state, number in _STATES.items()}


def encode_record(record: Record) -> bytes:
    """A record as a document."""
    current = record.current
    message = ScheduleRecord(
        cron=record.cron,
        timezone=record.timezone,
        handled=record.handled,
        current=None if current is None else _encode_firing(current),
        waiting=record.waiting,
        runs=map(_encode_firing, record.runs),
        skips=map(_encode_skip, record.skips),
    )
    if current is not None and current.spec:
        message.current_spec.ParseFromString(current.spec)
    return message.SerializeToString()


def decode_record(data: bytes) -> Record:
    """The record that a document holds. Documents are ours alone: one that is none raises whatever it will."""
    message = ScheduleRecord.FromString(data)
    current = None
    if message.HasField("current"):
        spec = message.current_spec.SerializeToString() if message.HasField("current_spec") else b""
        current = _decode_firing(message.current, spec)
    return Record(
        cron=message.cron,
        timezone=message.timezone,
        handled=message.handled,
        current=current,
        waiting=tuple(message.waiting),
        runs=tuple(map(_decode_firing, message.runs)),
        skips=tuple(map(_decode_skip, message.skips)),
    )


def encode_told(told: ScheduleTold) -> pb.Schedule:
    """What is told of a schedule, as a message."""
    return pb.Schedule(
        name=told.name,
        cron=told.cron,
        timezone=told.timezone,
        window=None if told.window_s is None else duration(told.window_s),
        overlap=told.overlap,
        catch_up=told.catch_up,
        spec=told.spec,
        next_times=map(timestamp, told.next_times),
        current=None if told.current is None else _encode_firing(told.current),
        waiting_times=map(timestamp, told.waiting),
        runs=map(_encode_firing, told.runs),
        skips=map(_encode_skip, told.skips),
    )


def decode_told(message: pb.Schedule) -> ScheduleTold:
    """The same, back."""
    return ScheduleTold(
        name=message.name,
        cron=message.cron,
        timezone=message.timezone,
        window_s=seconds(message.window) if message.HasField("window") else None,
        overlap=message.overlap,
        catch_up=message.catch_up,
        spec=message.spec,
        next_times=tuple(map(instant, message.next_times)),
        current=_decode_firing(message.current) if message.HasField("current") else None,
        waiting=tuple(int(instant(one)) for one in message.waiting_times),
        runs=tuple(map(_decode_firing, message.runs)),
        skips=tuple(map(_decode_skip, message.skips)),
    )


def _encode_firing(firing: Firing) -> pb.ScheduleRun:
    return pb.ScheduleRun(
        due_time=timestamp(firing.due),
        state=_STATES[firing.state],
        batch_id=firing.batch,
        claim_time=timestamp(firing.claim_time),
        end_time=timestamp(firing.end_time) if firing.end_time else None,
        ending=firing.ending,
        error=firing.error,
    )


def _decode_firing(message: pb.ScheduleRun, spec: bytes = b"") -> Firing:
    return Firing(
        due=message.due_time.seconds,
        # Of a state that only a newer mesh knows nothing is known here.
        state=_BY_STATE.get(message.state, FiringState.FORGOTTEN),
        claim_time=instant(message.claim_time),
        batch=message.batch_id,
        spec=spec,
        end_time=instant(message.end_time) if message.HasField("end_time") else 0.0,
        ending=message.ending,
        error=message.error,
    )


def _encode_skip(skip: Skip) -> pb.ScheduleSkip:
    return pb.ScheduleSkip(due_time=timestamp(skip.due), reason=skip.reason, and_before=skip.and_before)


def _decode_skip(message: pb.ScheduleSkip) -> Skip:
    return Skip(message.due_time.seconds, message.reason, message.and_before)
