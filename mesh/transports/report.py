"""How a call went, to `mesh.v1` messages and back: where its time went, and who answered in its joins."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.context import BranchOutcome, BranchState, Context, JoinOutcome, NodeTiming
from mesh.transports.codec import duration, seconds
from mesh.transports.status import decode_error, encode_error
from mesh.v1 import call_pb2

__all__ = ["encode_report", "note_report"]

_STATES: Mapping[BranchState, call_pb2.BranchState.ValueType] = {
    BranchState.ANSWERED: call_pb2.BRANCH_STATE_ANSWERED,
    BranchState.FAILED: call_pb2.BRANCH_STATE_FAILED,
    BranchState.LATE: call_pb2.BRANCH_STATE_LATE,
    BranchState.WITHOUT_ROWS: call_pb2.BRANCH_STATE_WITHOUT_ROWS,
}
_BY_NUMBER = {number: state for state, number in _STATES.items()}


def encode_report(context: Context, elapsed_s: float) -> call_pb2.CallReport | None:
    """A context's report as a message; None where there is nothing to tell."""
    if context.timings is None:
        return call_pb2.CallReport(joins=map(_encode_join, context.joins)) if context.joins else None
    timings = [
        call_pb2.NodeTiming(
            node=timing.node,
            worker=timing.worker,
            pid=timing.pid,
            rows=timing.rows,
            queue=duration(timing.queue_s),
            compute=duration(timing.compute_s),
            wire=duration(timing.wire_s),
        )
        for timing in context.timings
    ]
    joins = map(_encode_join, context.joins or ())
    return call_pb2.CallReport(elapsed=duration(elapsed_s), node_timings=timings, joins=joins)


def note_report(report: call_pb2.CallReport, elapsed_s: float, context: Context) -> None:
    """Add the report of a far worker to the context of a caller that waited `elapsed_s` seconds for it.

    What the worker does not account for was spent between the two; it is told at the first node of the report.
    """
    if context.joins is not None and report.joins:
        context.joins.extend(map(_decode_join, report.joins))
    if context.timings is None:
        return
    wire_s = max(0.0, elapsed_s - seconds(report.elapsed))
    context.timings.extend(
        NodeTiming(
            node=message.node,
            worker=message.worker,
            pid=message.pid,
            rows=message.rows,
            queue_s=seconds(message.queue),
            compute_s=seconds(message.compute),
            wire_s=seconds(message.wire) + (wire_s if index == 0 else 0.0),
        )
        for index, message in enumerate(report.node_timings)
    )


def _encode_join(join: JoinOutcome) -> call_pb2.JoinReport:
    branches = [
        call_pb2.BranchReport(
            branch=one.branch,
            state=_STATES[one.state],
            rows=one.rows,
            error=None if one.error is None else encode_error(one.error),
        )
        for one in join.branches
    ]
    return call_pb2.JoinReport(node=join.node, branches=branches)


def _decode_join(message: call_pb2.JoinReport) -> JoinOutcome:
    return JoinOutcome(message.node, tuple(map(_decode_branch, message.branches)))


def _decode_branch(message: call_pb2.BranchReport) -> BranchOutcome:
    error = decode_error(message.error) if message.HasField("error") else None
    # A state that a newer mesh may have is told by the next best word.
    state = _BY_NUMBER.get(message.state, BranchState.ANSWERED if error is None else BranchState.FAILED)
    return BranchOutcome(message.branch, state, message.rows, error)
