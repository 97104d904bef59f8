"""The same graph in one process, in processes and as a job: for scripts/measure_patterns.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mesh.cli.connect import connect
from mesh.context import Context, NodeTiming
from mesh.handler import Handler
from mesh.jobs.client import JobClient
from mesh.jobs.records import JobState, Progress
from mesh.layers import LAYERS
from mesh.load import LoadPlan, Report, run_load
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import compile_file
from scripts.record_golden import GOLDEN, Golden
from tests.harness.processes import StartMesh, mesh_processes

__all__ = ["as_jobs", "placed"]

ROOT = Path(__file__).resolve().parent.parent
TOPOLOGIES = ROOT / "topologies"
PLACED = {
    "web_single": "fused",
    "synchronous": "apart",
    "prep_pred_simple": "simple",
    "prep_pred_microservice": "microservice",
}
"""Topology -> its own placement."""
IN_FLIGHT = 16
MEASURED_S = 2.0
WARM_UP_S = 0.5
JOBS = {"asynchronous": ("reading-apart", 10), "asynchronous_parallel": ("dear-apart", 100)}
"""Topology -> its placement, and how many calls and jobs."""
WARM_UP = 3
"""Calls and jobs that are not counted."""


def recorded(name: str) -> Tensors:
    """The first request that the topology's answers were recorded of."""
    return Golden.read(GOLDEN / f"{name}.json").cases[0].request


def milliseconds(seconds: Sequence[float]) -> float:
    """The median, in milliseconds."""
    return round(float(np.median(seconds)) * 1e3, 2)


# ===== In one process, and in processes =====


async def placed() -> dict[str, Any]:
    """Rows of the recorded request, one a request, in turn: of a mesh in this process, and of `mesh up`."""
    found: dict[str, Any] = {}
    for name, placement in PLACED.items():
        rows = recorded(name)
        requests = [rows.take(row, row + 1) for row in range(rows.rows)]
        fused = LocalMesh(compile_file(TOPOLOGIES / f"{name}.yaml", LAYERS).plan("fused"))
        with mesh_processes() as start:
            address = await launched(start, name, placement)
            async with fused as mesh, connect(address, "") as served:
                # In turn, so that other work on the machine tells on both.
                few, few_up = [await _load(ask, requests, 1) for ask in (mesh, served.handler)]
                many, many_up = [await _load(ask, requests, IN_FLIGHT) for ask in (mesh, served.handler)]
        ways = {"in this process": _told(few, many), "mesh up": _told(few_up, many_up)}
        found[name] = {"placement": placement, **ways}
    return found


async def launched(start: StartMesh, name: str, placement: str, *arguments: str) -> str:
    """The address of a topology in processes of its own, once it is ready."""
    return await asyncio.to_thread(start(str(TOPOLOGIES / f"{name}.yaml"), "--placement", placement, *arguments).ready)


def _told(few: Report, many: Report) -> dict[str, float]:
    assert few.latency is not None
    return {
        "p50_ms": round(few.latency.p50 * 1e3, 2),
        "p99_ms": round(few.latency.p99 * 1e3, 2),
        "per_s": round(many.answered_per_s, 1),
    }


async def _load(handler: Handler[Tensors], requests: Sequence[Tensors], in_flight: int) -> Report:
    plan = LoadPlan(concurrency=in_flight, duration_s=MEASURED_S, warm_up_s=WARM_UP_S)

    async def send(index: int) -> Sequence[NodeTiming]:
        timings: list[NodeTiming] = []
        await handler(requests[index % len(requests)], Context(timings=timings).within(plan.timeout_s))
        return timings

    report = await run_load(send, plan)
    if report.failed or not report.answered:
        raise AssertionError(f"{report.failed} requests failed: {report.errors}")
    return report


# ===== As a job =====


async def as_jobs() -> dict[str, Any]:
    """The recorded request, as a call and as a job in turn, of a mesh in processes: medians, as a caller sees them."""
    found: dict[str, Any] = {}
    for name, (placement, times) in JOBS.items():
        request = recorded(name)
        took: dict[str, list[float]] = {}
        with TemporaryDirectory(prefix="mesh-") as data, mesh_processes() as start:
            address = await launched(start, name, placement, "--data", data)
            async with connect(address, "") as served, JobClient(address) as jobs:
                for index in range(WARM_UP + times):
                    one = {"call": await _call(served.handler, request)} | await _job(jobs, request)
                    for event, seconds in one.items() if index >= WARM_UP else ():
                        took.setdefault(event, []).append(seconds)
        found[name] = {"rows": request.rows, "ms": {event: milliseconds(seconds) for event, seconds in took.items()}}
    return found


async def _call(handler: Handler[Tensors], request: Tensors) -> float:
    began = time.perf_counter()
    await handler(request, Context())
    return time.perf_counter() - began


async def _job(jobs: JobClient, request: Tensors) -> dict[str, float]:
    """From asking for a job: until its id was here, each branch's event, and its end, as one who watches sees them."""
    began = time.perf_counter()
    job, _ = await jobs.submit(request)
    at = {"submitted": time.perf_counter() - began}
    async with aclosing(jobs.watch(job.id)) as events:
        async for event in events:
            if isinstance(event, Progress):
                at.setdefault(event.node, time.perf_counter() - began)
            elif event.over:
                at["over"] = time.perf_counter() - began
                if event.state is not JobState.DONE:
                    raise AssertionError(f"the job ended {event.state.name}: {event.error}")
    return at
