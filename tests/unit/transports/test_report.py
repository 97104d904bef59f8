"""Reports as messages: where the time went, who answered in joins."""

from __future__ import annotations

from typing import Any

from mesh.context import BranchOutcome, BranchState, Context, JoinOutcome, NodeTiming
from mesh.errors import NodeFailed
from mesh.transports.report import encode_report, note_report
from mesh.v1 import call_pb2

JOIN = JoinOutcome(
    "join",
    (BranchOutcome("a", BranchState.ANSWERED, 2), BranchOutcome("b", BranchState.FAILED, 0, NodeFailed("x", node="b"))),
)


def resent(context: Context, elapsed_s: float) -> call_pb2.CallReport:
    sent = encode_report(context, elapsed_s)
    assert sent is not None
    return call_pb2.CallReport.FromString(sent.SerializeToString())


def test_a_report_tells_the_first_node_of_the_time_between_the_two() -> None:
    told = [
        NodeTiming(node="a", worker="w", pid=7, rows=2, queue_s=0.25, compute_s=0.5),
        NodeTiming(node="b", worker="w", pid=7, rows=2, wire_s=0.125),
    ]
    sent = resent(Context(timings=told), 1.5)
    found: list[NodeTiming] = []
    note_report(sent, 2.0, Context(timings=found))
    assert found[0] == NodeTiming(node="a", worker="w", pid=7, rows=2, queue_s=0.25, compute_s=0.5, wire_s=0.5)
    assert found[1] == told[1]
    found.clear()
    note_report(sent, 1.0, Context(timings=found))
    assert found[0].wire_s == 0.0, "clocks of two hosts may differ: never below zero"


def test_no_report_is_made_that_nobody_asked_for() -> None:
    assert encode_report(Context(), 1.0) is None
    assert encode_report(Context(joins=[]), 1.0) is None


def test_joins_are_told_without_the_times_that_nobody_asked_for() -> None:
    sent = resent(Context(joins=[JOIN]), 1.0)
    assert not sent.HasField("elapsed")
    assert not sent.node_timings
    context = Context(joins=[])
    note_report(sent, 2.0, context)
    assert context.joins == [JOIN]
    assert context.timings is None


def test_joins_are_not_kept_for_a_caller_who_does_not_look() -> None:
    context = Context(timings=[])
    note_report(resent(Context(timings=[], joins=[JOIN]), 1.0), 2.0, context)
    assert context.joins is None


def test_a_state_that_is_not_known_here_is_told_by_whether_there_is_an_error() -> None:
    sent = resent(Context(joins=[JOIN]), 1.0)
    unknown: Any = 77
    for branch in sent.joins[0].branches:
        branch.state = unknown
    context = Context(joins=[])
    note_report(sent, 2.0, context)
    assert context.joins == [JOIN]
