"""The gateway's share, held a second time by a worker on jobs: asked with everybody else, and the same answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mesh.context import Context
from mesh.keeping import CacheAnswer, CacheCall
from mesh.layers import LAYERS
from mesh.runtime.worker import Worker
from mesh.tensors import Tensors
from mesh.topology import compile_text
from mesh.topology.jobs import JOB_WORKER
from mesh.transports import InprocTransport, Limits, Link
from mesh.transports.contract import CACHE, CACHES
from tests.unit.runtime.cached_nodes import CALLS

NODES = "tests.unit.runtime.cached_nodes"
FILE = f"""\
mesh: v1
name: cached
inputs:
  x: {{datatype: FP32, shape: [-1, 2]}}
caches:
  hot: {{backend: "memory://", max_bytes: 1MiB}}
nodes:
  first:
    uses: {NODES}:Counting
    with: {{name: first}}
    inputs: {{x: x}}
    layers: [cache: {{in: hot}}]
outputs:
  x: first.x
"""
ASKED = Tensors({"x": np.zeros((3, 2), np.float32)})


@asynccontextmanager
async def held_twice() -> AsyncGenerator[tuple[Worker, Worker, Link]]:
    """A gateway, a worker on jobs, and a link to the gateway."""
    CALLS.clear()
    plan = compile_text(FILE, LAYERS, folder=Path(__file__).parent).plan("fused")
    transport = InprocTransport()
    transports = {"inproc": transport}
    beside = Worker(plan, "gateway", listen=["inproc://jobs"], dial={}, transports=transports, called="jobs-0")
    gateway = Worker(
        plan,
        "gateway",
        listen=["inproc://front"],
        dial={JOB_WORKER: ["inproc://jobs"]},
        transports=transports,
    )
    async with beside, gateway:
        link = await transport.dial("inproc://front", Limits())
        yield gateway, beside, link
        await link.close()


async def answers(worker: Worker) -> Tensors:
    assert worker.counted is not None
    return await worker.counted(ASKED, Context())


async def control(link: Link, **call: Any) -> CacheAnswer:
    handler: Any = link.handler(CACHE, CACHES)
    return await handler(CacheCall(**call), Context())


async def test_both_answer_the_same_and_what_they_count_is_told_together() -> None:
    async with held_twice() as (gateway, beside, link):
        assert await answers(gateway) == await answers(beside)
        told = await link.stats(5.0)
        assert [(one.graph, one.requests, one.rows) for one in told.graphs] == [("cached", 2, 6)]
        assert [(one.node, one.requests) for one in told.nodes] == [("first", 2)]
        assert sorted(one.worker for one in told.workers) == ["gateway", "jobs-0"]
        own = await link.stats(5.0, own=True)
        assert [one.requests for one in own.graphs] == [1]


async def test_a_gateway_tells_of_a_worker_on_jobs_that_it_cannot_ask() -> None:
    async with held_twice() as (_, beside, link):
        await beside.listeners[0].drain(0.0)
        told = await link.stats(5.0)
        assert [(one.worker, one.replica) for one in told.missing] == [(JOB_WORKER, 0)]


async def test_what_is_cleared_is_cleared_in_both() -> None:
    async with held_twice() as (gateway, beside, link):
        for _ in range(2):
            await answers(gateway)
            await answers(beside)
        assert CALLS == {"first": [0.0, 0.0]}, "each has a cache of its own"
        assert (await control(link, verb="clear", cache="hot")).count == 2
        await answers(gateway)
        await answers(beside)
        assert CALLS == {"first": [0.0] * 4}


async def test_what_is_fetched_ahead_is_there_in_both() -> None:
    async with held_twice() as (gateway, beside, link):
        await control(link, verb="prefetch", node="first", inputs=ASKED)
        assert CALLS == {"first": [0.0, 0.0]}
        await answers(gateway)
        await answers(beside)
        assert CALLS == {"first": [0.0, 0.0]}
