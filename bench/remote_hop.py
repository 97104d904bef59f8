"""(c) One hop to another process: a mesh's link against a bare grpc.aio echo of the same message."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np

from bench.measure import paired_async
from mesh.context import Context
from mesh.tensors import Tensors
from mesh.transports import Endpoint, GrpcTransport, Limits
from mesh.transports.codec import encode_tensors
from mesh.v1 import preprocess_service_pb2, preprocess_service_pb2_grpc

__all__ = ["run"]

SIZES = {"256 B": 64, "602 kB": 150_528}
CALLS = {"256 B": 300, "602 kB": 60}
START_TIMEOUT_S = 20.0


class Echo(preprocess_service_pb2_grpc.PreprocessServiceServicer):
    """The least a grpc.aio servicer can do: give back what came, without looking at it."""

    async def Preprocess(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the proto file
        """Echo."""
        return preprocess_service_pb2.PreprocessResponse(outputs=request.inputs)


async def echo(request: Tensors, context: Context) -> Tensors:
    """The same as a mesh's endpoint: decoded, admitted, timed, encoded."""
    return request


async def serve(kind: str, path: str) -> None:
    """Listen in this process until it is killed."""
    if kind == "bare":
        options = [("grpc.max_receive_message_length", 1 << 26), ("grpc.max_send_message_length", 1 << 26)]
        server = grpc.aio.server(options=options)
        preprocess_service_pb2_grpc.add_PreprocessServiceServicer_to_server(Echo(), server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
    else:
        endpoint = Endpoint(kind="preprocess", name="echo", handler=echo)
        listener = await GrpcTransport().listen(f"unix:{path}", [endpoint], Limits())
        assert listener.address  # held: a server that nobody holds stops
    await asyncio.Event().wait()


def _start(kind: str, path: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "bench.remote_hop", kind, path])


async def run() -> dict[str, Any]:
    """Time a call, one in flight and 16, by message size."""
    found: dict[str, Any] = {"target_ratio": 1.25, "cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: f"{folder}/{kind}.sock" for kind in ("mesh", "bare")}
        servers = [_start(kind, path) for kind, path in paths.items()]
        try:
            await _measure(paths, found["cases"])
        finally:
            for server in servers:
                server.kill()
                server.wait()
    return found


async def _measure(paths: dict[str, str], cases: dict[str, Any]) -> None:
    await _listening(list(paths.values()))
    link = await GrpcTransport().dial(f"unix:{paths['mesh']}", Limits())
    ask = link.handler("preprocess", "echo")
    options = [("grpc.max_receive_message_length", 1 << 26), ("grpc.max_send_message_length", 1 << 26)]
    async with grpc.aio.insecure_channel(f"unix:{paths['bare']}", options=options) as channel:
        stub: Any = preprocess_service_pb2_grpc.PreprocessServiceStub(channel)
        for size, count in SIZES.items():
            request = Tensors({"x": np.arange(count, dtype=np.float32).reshape(1, -1)})
            message = preprocess_service_pb2.PreprocessRequest(node="echo", inputs=encode_tensors(request))
            for in_flight in (1, 16):

                async def ours(request: Tensors = request) -> object:
                    return await ask(request, Context().within(30.0))

                async def bare(message: Any = message) -> object:
                    return await stub.Preprocess(message, timeout=30.0)

                measured = await paired_async(
                    _repeat(ours, CALLS[size], in_flight), _repeat(bare, CALLS[size], in_flight), rounds=11
                )
                cases[f"{size}, {in_flight} in flight"] = measured.to_json()
    await link.close()


def _repeat(call: Callable[[], Awaitable[object]], calls: int, in_flight: int) -> Callable[[], Awaitable[int]]:
    async def caller() -> None:
        for _ in range(calls // in_flight):
            await call()

    async def all_of_them() -> int:
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return calls // in_flight * in_flight

    return all_of_them


async def _listening(paths: list[str]) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while not all(os.path.exists(path) for path in paths):  # noqa: ASYNC110, ASYNC240 - another process makes them
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
