"""Every topology as real processes, in its most distributed placement, by the command a user types."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from mesh.context import Context
from mesh.topology import Plan
from scripts.record_golden import GOLDEN, REQUEST_ID, Golden
from tests.harness.asking import asking, assert_alike, result_of
from tests.harness.meshes import TOPOLOGIES, compiled
from tests.harness.outside import outside
from tests.harness.processes import MeshUp, StartMesh

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel whether a process is gone by pidfd"),
]

FILES = {path.stem: path for path in sorted(TOPOLOGIES.glob("*.yaml"))}


def most_distributed(name: str) -> Plan:
    """The plan with the most processes, of those that can run on one host without ports of their own."""
    found = compiled(FILES[name])
    plans = [found.plan(placement) for placement in found.placements]
    local = [plan for plan in plans if not any(worker.address for worker in plan.workers)]
    return max(local, key=lambda plan: sum(worker.replicas for worker in plan.workers))


@pytest.mark.parametrize("name", FILES)
async def test_answers_as_recorded_and_leaves_nothing_behind(name: str, start_mesh: StartMesh, tmp_path: Path) -> None:
    plan = most_distributed(name)
    data = ("--data", str(tmp_path)) if plan.graph.jobs else ()
    with outside(FILES[name]) as file:
        await asks(start_mesh(str(file), "--placement", plan.placement, *data), name, plan)


async def asks(mesh: MeshUp, name: str, plan: Plan) -> None:
    """Every recorded case; then the end."""
    address = await asyncio.to_thread(mesh.ready)
    golden = Golden.read(GOLDEN / f"{name}.json")
    async with asking(address, plan.graph.name) as ask:
        for case in golden.cases:
            context = Context(request_id=REQUEST_ID, timings=[]).within(30.0)
            assert_alike(await result_of(ask, case.request, context), case.result, golden.tolerance)
            for timing in context.timings or ():
                worker = next(worker for worker in plan.workers if timing.node in worker.nodes)
                assert timing.worker == worker.name
                assert timing.pid in mesh.pids(worker.name)
    mesh.signal(signal.SIGTERM)
    assert await asyncio.to_thread(mesh.wait) == 0
    assert mesh.all_gone()
    assert list(mesh.folder.iterdir()) == []
