"""Statistics as values: of several workers together, and as messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import Unavailable
from mesh.transports.statistics import (
    BUCKETS,
    ArmStatistics,
    BranchStatistics,
    GraphStatistics,
    MissingWorker,
    NodeStatistics,
    ShadowStatistics,
    Statistics,
    WorkerTold,
    together,
)
from mesh.transports.statistics_codec import decode_statistics, encode_statistics
from mesh.v1 import graph_service_pb2

COUNTS = st.integers(0, 1 << 40)
# Whole sixteenths of a second: sums of them are exact, and so is their way over the wire.
TIMES = st.integers(0, 1 << 20).map(lambda sixteenths: sixteenths / 16)
ERRORS = st.dictionaries(st.sampled_from(["INTERNAL", "CANCELLED", "UNAVAILABLE"]), COUNTS)
NAMES = st.sampled_from("abc")
BATCHES = st.lists(COUNTS, max_size=len(BUCKETS) + 1).map(tuple)


def some(of: type[Any], *names: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Several of one kind, no two of the same name."""
    every = st.builds(of, **dict.fromkeys(names, NAMES), **fields)
    by_name: Callable[[Any], tuple[str, ...]] = lambda one: tuple(getattr(one, name) for name in names)  # noqa: E731
    return st.lists(every, max_size=3, unique_by=by_name).map(tuple)


WORKERS = st.builds(
    Statistics,
    graphs=some(GraphStatistics, "graph", requests=COUNTS, rows=COUNTS, errors=ERRORS, elapsed_s=TIMES),
    nodes=some(
        NodeStatistics,
        "node",
        requests=COUNTS,
        rows=COUNTS,
        rows_skipped=COUNTS,
        in_flight=COUNTS,
        errors=ERRORS,
        elapsed_s=TIMES,
        queue_s=TIMES,
        compute_s=TIMES,
        wire_s=TIMES,
        batches=COUNTS,
        batch_rows=BATCHES,
    ),
    branches=some(
        BranchStatistics,
        "node",
        "branch",
        answered=COUNTS,
        failed=COUNTS,
        late=COUNTS,
        without_rows=COUNTS,
        behind_s=TIMES,
        max_behind_s=TIMES,
    ),
    shadows=some(
        ShadowStatistics, "node", "target", rows_alike=COUNTS, rows_unlike=COUNTS, failed=COUNTS, dropped=COUNTS
    ),
    arms=some(ArmStatistics, "split", "node", rows=COUNTS),
    workers=st.just((WorkerTold("w", 7, 1.5),)),
    missing=st.just((MissingWorker("v", 1, Unavailable("gone", retry_after_s=0.25)),)),
)


@settings(max_examples=50)
@given(WORKERS)
def test_statistics_cross_the_wire_unchanged(told: Statistics) -> None:
    wire = encode_statistics(told).SerializeToString()
    assert decode_statistics(graph_service_pb2.GraphServiceStatsResponse.FromString(wire)) == told


@settings(max_examples=50)
@given(WORKERS, WORKERS, WORKERS)
def test_it_does_not_matter_in_which_order_workers_are_put_together(
    one: Statistics, other: Statistics, third: Statistics
) -> None:
    assert together([one, together([other, third])]) == together([together([one, other]), third])
    backwards, forwards = together([other, one]), together([one, other])
    for kind in ("graphs", "nodes", "branches", "shadows", "arms"):
        assert {str(part) for part in getattr(backwards, kind)} == {str(part) for part in getattr(forwards, kind)}


def test_replicas_of_one_node_are_added_up_and_the_longest_of_their_waits_is_kept() -> None:
    one = Statistics(
        nodes=(NodeStatistics(node="a", requests=5, in_flight=1, errors={"INTERNAL": 1}, batch_rows=(3, 0, 1)),),
        branches=(BranchStatistics(node="j", branch="a", behind_s=2.0, max_behind_s=1.5),),
        workers=(WorkerTold("w", 1, 3.0),),
    )
    other = Statistics(
        graph="g",
        nodes=(
            NodeStatistics(node="b"),
            NodeStatistics(node="a", requests=7, errors={"CANCELLED": 2, "INTERNAL": 1}, batch_rows=(1,)),
        ),
        branches=(BranchStatistics(node="j", branch="a", behind_s=1.0, max_behind_s=1.0),),
        workers=(WorkerTold("w", 2, 4.0),),
    )
    found = together([one, other])
    errors = {"CANCELLED": 2, "INTERNAL": 2}
    node = NodeStatistics(node="a", requests=12, in_flight=1, errors=errors, batch_rows=(4, 0, 1))
    assert found.nodes == (node, NodeStatistics(node="b"))
    assert (node.failed, node.answered) == (4, 7)
    assert found.branches == (BranchStatistics(node="j", branch="a", behind_s=3.0, max_behind_s=1.5),)
    assert found.workers == (*one.workers, *other.workers)
    assert found.graph == "g"
