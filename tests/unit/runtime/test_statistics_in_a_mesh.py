"""A mesh counts the same in every placement and over every kind of link, and tells who answered in its joins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.context import BranchOutcome, BranchState, Context, JoinOutcome
from mesh.errors import DeadlineExceeded, InvalidInput, NodeFailed, Unavailable
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.runtime.statistics import WorkerCounters
from mesh.runtime.telling import Telling
from mesh.tensors import Tensors
from mesh.topology import Plan, compile_text
from mesh.transports import Limits, Link
from mesh.transports.statistics import GraphStatistics, NodeStatistics, Statistics, WorkerTold
from tests.harness.meshes import LINKS

NODES = "tests.unit.runtime.sample_nodes"
TEXT = f"""
mesh: v1
name: counted
inputs: {{x: {{datatype: FP32, shape: [-1]}}}}
nodes:
  small: {{uses: "{NODES}:Affine", inputs: {{x: x}}}}
  large:
    uses: {NODES}:Affine
    with: {{times: 10}}
    inputs: {{x: small.x}}
    when: small.x < 3
    layers: [{{retry: {{}}}}, {{batch: {{max_rows: 2}}}}]
  first: {{uses: "nodes.aggregate:FirstOf", inputs: [large, small]}}
  faulty: {{uses: "{NODES}:Faulty", with: {{how: raises, at: 7}}, inputs: {{x: small.x}}}}
  some: {{uses: "nodes.aggregate:Mean", inputs: [first, faulty], join: {{quorum: 1, deadline: 20s}}}}
  left: {{uses: "{NODES}:Affine", inputs: {{x: some.x}}, split: {{group: ab, weight: 50}}}}
  right: {{uses: "{NODES}:Affine", inputs: {{x: some.x}}, split: {{group: ab, weight: 50}}}}
  out: {{uses: "nodes.aggregate:FirstOf", inputs: [left, right]}}
  shade: {{uses: "{NODES}:Affine", with: {{plus: 1}}, inputs: {{x: some.x}}, shadow: left}}
outputs: {{x: out.x}}
placements:
  two:
    front: {{nodes: [small, some, shade]}}
    back: {{nodes: [large, first, faulty, left, right, out]}}
"""
REQUESTS = ([1, 2, 3, 4], [7, 1], [5], [0, 1, 2])
"""Rows of one request each: the second fails in `faulty`, the third has no row for `large`."""


def numbers(given: list[int]) -> Tensors:
    return Tensors({"x": np.array(given, np.float32)})


def plan_of(placement: str) -> Plan:
    return compile_text(TEXT, LAYERS).plan(placement)


@asynccontextmanager
async def running(placement: str, link: str, folder: Path) -> AsyncGenerator[tuple[LocalMesh, Link]]:
    kind = LINKS[link]
    transport = kind.transport()
    address = kind.address.format(folder, "{0}", "{1}")
    async with LocalMesh(plan_of(placement), transport=transport, address=address) as mesh:
        gateway = await transport.dial(mesh.gateway_address, Limits())
        yield mesh, gateway
        await gateway.close()


def counts(told: Statistics) -> dict[str, Any]:
    """What has to be the same wherever nodes run: everything but times, and how parts are called."""
    still: dict[str, Any] = {"elapsed_s": 0.0, "queue_s": 0.0, "compute_s": 0.0, "wire_s": 0.0}
    return {
        "nodes": [replace(node, **still) for node in told.nodes],
        "branches": [replace(branch, behind_s=0.0, max_behind_s=0.0) for branch in told.branches],
        "shadows": told.shadows,
        "arms": told.arms,
    }


async def counted(placement: str, link: str, folder: Path) -> tuple[Statistics, list[JoinOutcome]]:
    """Ask everything, and then what was counted."""
    joins: list[JoinOutcome] = []
    async with running(placement, link, folder) as (mesh, gateway):
        for given in REQUESTS:
            await mesh(numbers(given), Context(request_id="r", joins=joins))
        for shadow in mesh.root.shadows:
            await shadow.settled()
        return await gateway.stats(10.0), joins


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    told, _ = asyncio.run(counted("fused", "inproc", tmp_path_factory.mktemp("fused")))
    return told


def test_a_mesh_counts_what_went_through_it(fused: Statistics) -> None:
    found = {node.node: node for node in fused.nodes}
    assert (fused.graph, fused.graphs[0].graph) == ("counted", "counted")
    assert (fused.graphs[0].requests, fused.graphs[0].rows, fused.graphs[0].failed) == (4, 10, 0)
    assert (found["small"].requests, found["small"].rows, found["small"].batch_rows) == (4, 10, (1, 1, 2))
    # Requests of 2, 1 and 3 rows, the last of which is given to the node in two pieces.
    large = found["large"]
    assert (large.requests, large.rows, large.rows_skipped, large.batches) == (3, 6, 4, 4)
    assert large.batch_rows == (2, 2)
    assert found["faulty"].errors == {"INTERNAL": 1}
    branches = {(one.node, one.branch): one for one in fused.branches}
    assert (branches["some", "faulty"].answered, branches["some", "faulty"].failed) == (3, 1)
    assert (branches["first", "large"].answered, branches["first", "large"].without_rows) == (3, 1)
    arms = {one.node: one.rows for one in fused.arms}
    assert arms == {"left": found["left"].rows, "right": found["right"].rows}
    assert sum(arms.values()) == 10
    (shade,) = fused.shadows
    assert (shade.target, shade.rows_alike, shade.rows_unlike) == ("left", 0, found["left"].rows)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("placement", ["two", "processes"])
async def test_counts_and_joins_are_the_same_in_every_placement(
    placement: str, link: str, fused: Statistics, tmp_path: Path
) -> None:
    told, joins = await counted(placement, link, tmp_path)
    assert counts(told) == counts(fused)
    assert not told.missing
    assert {one.worker for one in told.workers} == {worker.name for worker in plan_of(placement).workers}
    error = NodeFailed("the node raised RuntimeError; the worker's log has the cause", node="faulty", request_id="r")
    assert joins == [
        JoinOutcome(
            "some",
            (BranchOutcome("first", BranchState.ANSWERED, 2), BranchOutcome("faulty", BranchState.FAILED, 0, error)),
        )
    ]


@pytest.mark.parametrize("placement", ["fused", "two", "processes"])
async def test_a_report_tells_of_every_join_where_it_was_asked_for(placement: str, tmp_path: Path) -> None:
    async with running(placement, "wire", tmp_path) as (mesh, _):
        context = Context(joins=[], timings=[])
        await mesh(numbers([5, 1]), context)
        found = {
            join.node: [(one.branch, one.state.value, one.rows) for one in join.branches]
            for join in context.joins or ()
        }
        assert found["first"] == [("large", "answered", 1), ("small", "answered", 2)]
        assert found["some"] == [("first", "answered", 2), ("faulty", "answered", 2)]
        assert list(found) == ["first", "some", "out"]


async def test_times_are_told_where_they_are_spent(tmp_path: Path) -> None:
    told, _ = await counted("processes", "wire", tmp_path)
    found = {node.node: node for node in told.nodes}
    assert all(node.compute_s > 0 and node.wire_s > 0 for node in told.nodes if node.node != "shade")
    assert all(node.elapsed_s >= node.compute_s for node in told.nodes if not node.errors)
    assert found["large"].queue_s > 0
    assert all(node.queue_s == 0 for node in told.nodes if node.node != "large")
    assert told.graphs[0].elapsed_s > found["small"].elapsed_s + found["small"].wire_s


async def test_a_worker_by_itself_tells_of_its_own_nodes_and_a_gateway_too_if_asked(tmp_path: Path) -> None:
    kind = LINKS["wire"]
    async with running("two", "wire", tmp_path) as (mesh, gateway):
        await mesh(numbers([1, 2]))
        link = await kind.transport().dial(kind.address.format(tmp_path, "back", 0), Limits())
        told = await link.stats(10.0)
        await link.close()
        assert {node.node for node in told.nodes} == {"large", "first", "faulty", "left", "right", "out"}
        assert [one.worker for one in told.workers] == ["back"]
        assert told.graph == ""
        own = await gateway.stats(10.0, own=True)
        assert [one.worker for one in own.workers] == ["front"]
        assert own.graph == "counted"


# Asking workers, some of which do not tell.


class Silent:
    """A link to a worker that tells when it is let, or never."""

    def __init__(self) -> None:
        self.asked = 0
        self.told: asyncio.Future[Statistics] = asyncio.get_running_loop().create_future()

    async def stats(self, timeout_s: float, *, own: bool = False) -> Statistics:
        assert own
        assert timeout_s <= 2.0
        self.asked += 1
        return await asyncio.shield(self.told)


def telling(counters: WorkerCounters, **links: Any) -> Telling:
    return Telling(plan_of("processes"), counters, {name: [link] for name, link in links.items()}, gateway=True)


async def test_a_worker_that_does_not_tell_is_told_of_and_the_others_are_there() -> None:
    gone, late, there = Silent(), Silent(), Silent()
    gone.told.set_exception(Unavailable("gone"))
    late.told.set_exception(DeadlineExceeded("the deadline passed"))
    there.told.set_result(
        Statistics(nodes=(NodeStatistics(node="small", requests=3),), workers=(WorkerTold("small", 7, 1.0),))
    )
    told = await telling(WorkerCounters("gateway"), large=gone, left=late, small=there)(False)
    assert [(one.worker, one.replica, one.error.code) for one in told.missing] == [
        ("large", 0, "UNAVAILABLE"),
        ("left", 0, "DEADLINE_EXCEEDED"),
    ]
    assert [one.worker for one in told.workers] == ["gateway", "small"]
    assert {node.node: node.requests for node in told.nodes}["small"] == 3


async def test_however_many_ask_at_once_the_workers_are_asked_once() -> None:
    worker = Silent()
    tell = telling(WorkerCounters("gateway"), small=worker)
    asking = [asyncio.create_task(tell(False)) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    worker.told.set_result(Statistics())
    told = await asyncio.gather(*asking[1:])
    assert all(one == told[0] for one in told)
    assert worker.asked == 1
    await tell(False)
    assert worker.asked == 2


async def test_nobody_is_asked_once_it_is_closed() -> None:
    worker = Silent()
    tell = telling(WorkerCounters("gateway"), small=worker)
    asking = asyncio.create_task(tell(False))
    await asyncio.sleep(0)
    await tell.close()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize(
    ("served", "wire_s"),
    [
        (NodeStatistics(node="small", requests=4, elapsed_s=2.0), 4 * 0.25),
        (NodeStatistics(node="small", requests=1, elapsed_s=0.5), 4 * 0.25),
        (NodeStatistics(node="small", requests=400, elapsed_s=200.0), 4 * 0.25),
        (NodeStatistics(node="small", requests=4, elapsed_s=40.0), 0.0),
        (NodeStatistics(node="small"), 0.0),
    ],
    ids=["as called", "started again", "called by others too", "slower than it looks", "just started"],
)
async def test_what_calls_take_beyond_their_worker_is_the_wires(served: NodeStatistics, wire_s: float) -> None:
    counters = WorkerCounters("gateway")
    part = next(part for part in plan_of("processes").partitions if part.exit == "small")
    called = counters.link(part.name)
    called.requests, called.elapsed_s = 4, 3.0
    worker = Silent()
    worker.told.set_result(Statistics(nodes=(served,), graphs=(GraphStatistics(graph="other"),)))
    told = await telling(counters, small=worker)(False)
    assert {node.node: node.wire_s for node in told.nodes}["small"] == wire_s


async def test_attempts_that_layers_of_callers_made_are_not_taken_for_requests() -> None:
    counters = WorkerCounters("gateway")
    counter = counters.node("large")
    counter.layered, counter.link = True, counters.link("large/large")
    counter.calls.requests, counter.calls.rows, counter.calls.row_s = 3, 6, 2.0
    counter.link.row_s = 1.5
    worker = Silent()
    at_worker = NodeStatistics(node="large", requests=5, rows=10, batches=5, errors={"UNAVAILABLE": 2}, queue_s=0.25)
    worker.told.set_result(Statistics(nodes=(at_worker,)))
    told = await telling(counters, large=worker)(False)
    assert told.nodes == (NodeStatistics(node="large", requests=3, rows=6, batches=5, queue_s=0.25 + 0.5),)


async def test_what_a_request_is_refused_for_is_counted_at_the_graph(tmp_path: Path) -> None:
    async with running("fused", "wire", tmp_path) as (mesh, gateway):
        with pytest.raises(InvalidInput):
            await mesh(Tensors({"x": np.zeros(1)}))
        told = await gateway.stats(10.0)
    assert told.graphs[0].errors == {"INVALID_ARGUMENT": 1}
