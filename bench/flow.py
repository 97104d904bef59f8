"""(e) What flow costs: a condition and a join in one process; joins of branches in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import paired_async
from mesh.context import Context
from mesh.errors import DeadlineExceeded
from mesh.handler import Handler
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.tensors import Tensors
from mesh.topology import compile_text
from mesh.transports import GrpcTransport, Limits
from mesh.transports.contract import GRAPH

__all__ = ["run"]

ROOT = Path(__file__).resolve().parent.parent
HEAD = "mesh: v1\nname: flow\ninputs: {x: {datatype: FP32, shape: [-1, 10]}}\nnodes:\n"
ROWS = 64
CALLS = 200
"""A round, in one process."""
BRANCHES_MS = (5, 10, 20)
DEADLINE_MS = 12
REMOTE_CALLS = 20
"""A round, over processes."""
ALONE_CALLS = 200
"""For a 99th percentile."""
PAUSE_S = 0.04
"""Between those: a model that lost runs to its end all the same, and would be in the way of the next call."""
START_TIMEOUT_S = 60.0


def _scale(name: str, feed: str, rest: str = "") -> str:
    return f"  {name}: {{uses: nodes.tabular:Scale, with: {{divide_by: 2}}, inputs: {{x: {feed}}}{rest}}}\n"


def _joined(how: str, branches: str = "b, a", rest: str = "") -> str:
    return f"  out: {{uses: nodes.aggregate:{how}, inputs: [{branches}]{rest}}}\noutputs: {{x: out.x}}\n"


_CHAIN = _scale("a", "x") + _scale("b", "a.x") + _joined("FirstOf")
_FAN = _scale("a", "x") + _scale("b", "x")
_APART = _FAN + "outputs: {x: a.x, y: b.x}\n"
_SPLIT = ", split: {group: g, weight: 50}"
FUSED = {
    "a `when` that holds for half of the rows": (
        _scale("a", "x") + _scale("b", "a.x", ", when: 'max(a.x) < 0.47'") + _joined("FirstOf"),
        _CHAIN,
    ),
    "a join by `FirstOf`": (_FAN + _joined("FirstOf"), _APART),
    "a join by `Mean`": (_FAN + _joined("Mean"), _APART),
    "a join by `Mean`, with a quorum and a deadline": (
        _FAN + _joined("Mean", rest=", join: {quorum: 2, deadline: 1s}"),
        _APART,
    ),
    "a split in two by content": (
        _scale("a", "x", _SPLIT) + _scale("b", "x", _SPLIT) + _joined("FirstOf"),
        _FAN + _joined("FirstOf"),
    ),
}
"""What is measured -> a graph with it, and the same graph without."""


async def run() -> dict[str, Any]:
    """Overheads in one process, then latencies of joins over processes."""
    request = Tensors({"x": np.random.default_rng(0).random((ROWS, 10), dtype=np.float32)})
    found: dict[str, Any] = {"rows": ROWS, "target_us": 50, "fused": {}, "branches_ms": BRANCHES_MS, "joins": {}}
    for name, (text, without) in FUSED.items():
        found["fused"][name] = await _fused(text, without, request)
    for kind in ("Waiting", "Busy"):
        found["joins"][kind.lower()] = await _joins(kind, request)
    return found


async def _fused(text: str, without: str, request: Tensors) -> dict[str, Any]:
    async with AsyncExitStack() as lifetime:
        plans = [compile_text(HEAD + one, LAYERS, folder=ROOT).plan("fused") for one in (text, without)]
        ours, other = [await lifetime.enter_async_context(LocalMesh(plan)) for plan in plans]
        measured = await paired_async(_repeated(ours.root, request), _repeated(other.root, request), rounds=25)
    return {**measured.to_json(), "overhead_us": round(measured.ours_us - measured.other_us, 1)}


def _repeated(handler: Handler[Tensors], request: Tensors, calls: int = CALLS) -> Any:
    async def ask() -> int:
        for _ in range(calls):
            await handler(request, Context().within(30.0))
        return calls

    return ask


async def _joins(kind: str, request: Tensors) -> dict[str, Any]:
    """Joins of branches that each have a process, beside the slowest branch by itself in such a process."""
    names = {ms: f"ms{ms}" for ms in BRANCHES_MS}
    nodes = "".join(f"  {names[ms]}: {_node(kind, ms)}\n" for ms in BRANCHES_MS)
    workers = "".join(f"    w{ms}: {{nodes: [{names[ms]}]}}\n" for ms in BRANCHES_MS)
    branches = ", ".join(names.values())
    slowest, fastest = max(BRANCHES_MS), min(BRANCHES_MS)
    alone = HEAD + f"  one: {_node(kind, slowest)}\noutputs: {{x: one.x}}\nplacements:\n  apart:\n"
    alone += "    front: {nodes: []}\n    far: {nodes: [one]}\n"

    def joined(rest: str) -> str:
        front = "placements:\n  apart:\n    front: {nodes: [out]}\n"
        return f"{HEAD}{nodes}{_joined('Mean', branches, rest)}{front}{workers}"

    async with _mesh_up(joined("")) as every, _mesh_up(alone) as one:
        ask, ask_one = _repeated(every, request, REMOTE_CALLS), _repeated(one, request, REMOTE_CALLS)
        together = await paired_async(ask, ask_one, rounds=15)
    async with _mesh_up(joined(", join: first")) as first:
        of_first = await _latencies_ms(first, request)
    async with _mesh_up(joined(f", join: {{deadline: {DEADLINE_MS}ms}}")) as deadline:
        of_deadline = await _latencies_ms(deadline, request)
    return {
        "all": {**together.to_json(), "target_ratio": 1.1},
        "first": {**of_first, "due_ms": fastest, "target_p99_ms": fastest + 5},
        "deadline": {**of_deadline, "due_ms": DEADLINE_MS, "target_p99_ms": DEADLINE_MS + 5},
        "bound_ms": round(max(slowest, sum(BRANCHES_MS) / _cores()) if kind == "Busy" else slowest, 1),
    }


def _node(kind: str, ms: int) -> str:
    return f"{{uses: bench.flow_nodes:{kind}, with: {{ms: {ms}}}, inputs: {{x: x}}}}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def _latencies_ms(handler: Handler[Tensors], request: Tensors) -> dict[str, float]:
    took: list[float] = []
    missed = 0
    for _ in range(ALONE_CALLS):
        started = time.perf_counter()
        try:
            await handler(request, Context().within(30.0))
        except DeadlineExceeded:
            missed += 1  # not even the fastest was there, which only a machine with other work does
        took.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(PAUSE_S)
    return {
        "p50_ms": _percentile(took, 50),
        "p99_ms": _percentile(took, 99),
        "max_ms": round(max(took), 2),
        "without_answer": missed,
    }


def _percentile(took: Sequence[float], percent: int) -> float:
    return round(float(np.percentile(took, percent)), 2)


@asynccontextmanager
async def _mesh_up(text: str) -> AsyncGenerator[Handler[Tensors]]:
    """The graph of a topology whose workers are processes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "flow.yaml"
        file.write_text(text)
        command = ["-m", "mesh.cli", "up", str(file), "--placement", "apart", "--listen", "grpc://127.0.0.1:0"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                link = await GrpcTransport().dial(await _address(process), Limits())
            try:
                yield link.handler(GRAPH, "")
            finally:
                await link.close()
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said: list[str] = []
    async for line in process.stderr:
        said.append(line.decode())
        if "answers at " in said[-1]:
            return said[-1].partition("answers at ")[2].strip()
    raise RuntimeError("the mesh did not start:\n" + "".join(said))
