"""(g) A hit through the gateway, beside an empty echo on the same engine: the same bytes both ways, the same client."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.wire.child import Child
from mesh import Context, Predict, Signature, Tensors, wire
from mesh.layers import LAYERS
from mesh.runtime import LocalMesh
from mesh.runtime.loop import loop_factory
from mesh.topology import compile_text
from mesh.transports import ENGINES, GrpcTransport, Limits
from mesh.transports.codec import encode_options, encode_tensors
from mesh.transports.message import encode_answer, encode_call
from mesh.v1 import graph_service_pb2, graph_service_pb2_grpc

__all__ = ["Known", "run"]

WIDTH = 64
CALLS = {1: 600, 64: 300}
IN_FLIGHT = 16
ROUNDS = 9
TARGET = 1.3
METHOD = "/mesh.v1.GraphService/Run"
KINDS = {
    "cached": "a gateway whose node has a cache: a hit",
    "uncached": "the same without the cache: a node that gives what it has",
    "typed": "an empty servicer of the same service, by generated code",
    "echo": "an empty echo: bytes in, as many bytes out as the gateway's answer has",
}
FILE = """
mesh: v1
name: known
inputs:
  x: {{datatype: FP32, shape: [-1, {width}]}}
{caches}
nodes:
  known: {{uses: "bench.cached_hop:Known", inputs: {{x: x}}, layers: [{layers}]}}
outputs: {{label: known.label, probabilities: known.probabilities}}
"""
TOPOLOGIES = {
    "cached": FILE.format(width=WIDTH, caches='caches: {hot: {backend: "memory://"}}', layers="cache: {in: hot}"),
    "uncached": FILE.format(width=WIDTH, caches="", layers=""),
}


def answer(rows: int) -> Tensors:
    """As a classifier of ten classes gives it."""
    return Tensors({"label": np.arange(rows), "probabilities": np.full((rows, 10), 0.1, np.float32)})


ANSWERS = {rows: answer(rows) for rows in CALLS}


class Known(Predict):
    """A classifier that knows its answers."""

    signature = Signature.parse(f"x: FP32[rows, {WIDTH}] -> label: INT64[rows], probabilities: FP32[rows, 10]")

    async def predict(self, inputs: Tensors, context: Context) -> Tensors:
        """By the number of rows."""
        return ANSWERS[inputs.rows]


class Typed(graph_service_pb2_grpc.GraphServiceServicer):
    """The least that generated code can do: the request is read, the answer made anew."""

    async def Run(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the proto file
        """Answer."""
        rows = request.inputs[0].shape[0]
        return graph_service_pb2.RunResponse(outputs=encode_tensors(ANSWERS[rows]), request_id="bench-1")


def asked(rows: int) -> bytes:
    """A request, as it is written."""
    given = np.random.default_rng(rows).random((rows, WIDTH), dtype=np.float32)
    return encode_call("", Tensors({"x": given}), encode_options(Context(request_id="bench-1")))


async def run() -> dict[str, Any]:
    """The server's processor time and the client's wait, a call; by rows and calls in flight."""
    found: dict[str, Any] = {"target_ratio": TARGET, "kinds": KINDS, "cases": {}}
    for engine in ENGINES:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
            paths = {kind: f"{folder}/{kind}.sock" for kind in KINDS}
            servers = {
                kind: running.enter_context(Child("bench.cached_hop", kind, engine, path))
                for kind, path in paths.items()
            }
            channels = [wire.insecure_channel(f"unix:{path}") for path in paths.values()]
            calls: dict[str, Any] = {
                kind: channel.unary_unary(METHOD) for kind, channel in zip(paths, channels, strict=True)
            }
            for rows, count in CALLS.items():
                for in_flight in (1, IN_FLIGHT):
                    name = f"{engine}: {rows} {'row' if rows == 1 else 'rows'}, {in_flight} in flight"
                    found["cases"][name] = await _measure(servers, calls, asked(rows), count, in_flight)
            for channel in channels:
                await channel.close()
    return found


async def _measure(
    servers: dict[str, Child], calls: dict[str, Any], message: bytes, count: int, in_flight: int
) -> dict[str, Any]:
    cpu: dict[str, list[float]] = {kind: [] for kind in servers}
    wall: dict[str, list[float]] = {kind: [] for kind in servers}
    for _ in range(ROUNDS + 1):
        for kind, server in servers.items():

            async def caller(call: Any = calls[kind]) -> None:
                for _ in range(count // in_flight):
                    await call(message, timeout=30.0)

            before, began = float(server.ask()), time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(in_flight)))
            units = count // in_flight * in_flight
            wall[kind].append((time.perf_counter() - began) / units * 1e6)
            cpu[kind].append((float(server.ask()) - before) / units * 1e6)
    return {"server_cpu_us": _told(cpu), "wall_us": _told(wall)}


def _told(samples: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and ratios within a round; the first round warms up."""
    told: dict[str, Any] = {kind: round(statistics.median(values[1:]), 1) for kind, values in samples.items()}
    for other in ("echo", "typed", "uncached"):
        pairs = zip(samples["cached"][1:], samples[other][1:], strict=True)
        told[f"cached / {other}"] = round(statistics.median(ours / theirs for ours, theirs in pairs), 2)
    return told


# The servers.


async def _serve(kind: str, engine: str, path: str) -> None:
    over = asyncio.Event()
    threading.Thread(target=_answer, args=(asyncio.get_running_loop(), over), daemon=True).start()
    if kind in TOPOLOGIES:
        plan = compile_text(TOPOLOGIES[kind], LAYERS, file=f"{kind}.yaml", folder=Path(path).parent).plan("fused")
        async with LocalMesh(plan, transport=GrpcTransport(engine), address=f"unix:{path}"):
            print("listening", flush=True)
            await over.wait()
        return
    server = ENGINES[engine]().server(Limits())
    if kind == "typed":
        graph_service_pb2_grpc.add_GraphServiceServicer_to_server(Typed(), server)  # pyright: ignore[reportAbstractUsage]
    else:
        server.add_generic_rpc_handlers((_Echo(),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print("listening", flush=True)
    await over.wait()


class _Echo(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._answers = {len(asked(rows)): encode_answer(ANSWERS[rows], None, "bench-1") for rows in CALLS}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)  # type: ignore[arg-type]

    async def _answer(self, request: bytes, context: Any) -> bytes:
        return self._answers[len(request)]


def _answer(loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    """Every line asks for the CPU seconds that the system has counted for this process."""
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
    loop.call_soon_threadsafe(over.set)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(*sys.argv[1:]))
