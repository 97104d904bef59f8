from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mesh.context import Context
from mesh.errors import NotFound, PlacementError, Unavailable
from mesh.signature import Signature
from mesh.tensors import Tensors
from mesh.testing import ScriptedHandler
from mesh.transports import Endpoint, GrpcTransport, Limits, Link
from mesh.transports.contract import GRAPH, Description, NodeDescription
from mesh.transports.grpc import GrpcLink, target_of


async def echo(request: Tensors, context: Context, /) -> Tensors:
    return request


ONE = Tensors({"x": [1.0]})
NODE = Endpoint(kind="predict", name="node", handler=echo)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("grpc://127.0.0.1:7001", "127.0.0.1:7001"),
        ("grpc://[::1]:7001", "[::1]:7001"),
        ("grpc://host.name:0", "host.name:0"),
        ("unix:/run/mesh.sock", "unix:/run/mesh.sock"),
    ],
)
def test_addresses_are_told_to_grpc(address: str, target: str) -> None:
    assert target_of(address) == target


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host:1",
        "http://host:1",
        "grpc://host",
        "grpc://:1",
        "grpc://host:",
        "grpc://host:x",
        "grpc://host:65536",
        "grpc://host:-1",
        "unix:relative.sock",
        "unix://run/mesh.sock",
        "inproc://x",
    ],
)
async def test_what_is_no_address_is_refused_by_listen_and_dial(address: str) -> None:
    transport = GrpcTransport()
    with pytest.raises(PlacementError, match="no address"):
        await transport.listen(address, [NODE], Limits())
    with pytest.raises(PlacementError, match="no address"):
        await transport.dial(address, Limits())


async def test_a_socket_file_that_nobody_listens_at_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    listener = await GrpcTransport().listen(f"unix:{path}", [NODE], Limits())
    link = await GrpcTransport().dial(listener.address, Limits())
    assert await link.handler("predict", "node")(ONE, Context()) == ONE
    await link.close()
    await listener.drain(0)


async def test_unix_paths_that_cannot_be_bound_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (f"{tmp_path}/{'long' * 40}", f"{tmp_path}/missing/a.sock", f"{tmp_path}/file"):
        with pytest.raises(PlacementError, match="cannot be bound") as caught:
            await GrpcTransport().listen(f"unix:{path}", [NODE], Limits())
        assert "Success" not in str(caught.value)
    assert (tmp_path / "file").exists(), "what is no socket is not removed"


async def test_a_port_that_another_program_has_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PlacementError, match="in use"):
            await GrpcTransport().listen(f"grpc://127.0.0.1:{other.getsockname()[1]}", [NODE], Limits())


async def test_a_listener_answers_tools_for_health_and_reflection() -> None:
    listener = await GrpcTransport().listen("grpc://127.0.0.1:0", [NODE], Limits())
    channel: Any = grpc.aio.insecure_channel(listener.address.removeprefix("grpc://"))
    async with channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "mesh.v1.PredictService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest
        talk = stub.ServerReflectionInfo(
            iter([asked(list_services=""), asked(file_containing_symbol="mesh.v1.PredictService")])
        )
        services, files = [answer async for answer in talk]
        listed = {service.name for service in services.list_services_response.service}
        assert {"mesh.v1.PredictService", "grpc.health.v1.Health"} <= listed
        found = FileDescriptorProto.FromString(files.file_descriptor_response.file_descriptor_proto[0])
        assert found.name == "mesh/v1/predict_service.proto"
    await listener.drain(0)


async def test_a_kind_that_is_not_served_is_not_found() -> None:
    listener = await GrpcTransport().listen("grpc://127.0.0.1:0", [NODE], Limits())
    link = await GrpcTransport().dial(listener.address, Limits())
    with pytest.raises(NotFound):
        await link.handler("preprocess", "node")(ONE, Context())
    with pytest.raises(ValueError, match="nonsense"):
        link.handler("nonsense", "node")
    await link.close()
    await listener.drain(0)


async def test_describe_tells_a_graph_through_a_link() -> None:
    told = Signature.parse("x: FP32[rows, n] -> y: BYTES[rows, 3]")
    node = NodeDescription(
        name="n", kind="predict", uses="m:C", worker="w", inputs=told.inputs, outputs=told.outputs, after=["before"]
    )
    description = Description(graph="g", digest="d", inputs=told.inputs, outputs=told.outputs, nodes=[node])
    endpoint = Endpoint(kind=GRAPH, name="g", handler=echo, description=description)
    listener = await GrpcTransport().listen("grpc://127.0.0.1:0", [endpoint], Limits())
    link = await GrpcTransport().dial(listener.address, Limits())
    assert isinstance(link, GrpcLink)
    found = await link.describe()
    assert (found.graph, found.digest) == ("g", "d")
    assert {name: str(spec) for name, spec in found.inputs.items()} == {"x": "FP32[rows, ?]"}
    assert {name: str(spec) for name, spec in found.nodes[0].outputs.items()} == {"y": "BYTES[rows, 3]"}
    assert (found.nodes[0].uses, found.nodes[0].worker, found.nodes[0].after) == ("m:C", "w", ["before"])
    with pytest.raises(NotFound):
        await link.describe("other")
    await link.close()
    with pytest.raises(Unavailable):
        await link.describe()
    await listener.drain(0)


@asynccontextmanager
async def through_a_wire(address: str) -> AsyncGenerator[tuple[str, asyncio.Event], None]:
    """A relay before a listener; setting the event cuts every connection, as the death of the listener would."""
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    cut = asyncio.Event()
    relays: set[asyncio.Task[Any] | None] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.add(asyncio.current_task())
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        tasks = [
            asyncio.ensure_future(work) for work in (pump(reader, far_writer), pump(far_reader, writer), cut.wait())
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, far_writer):
            one.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in (writer, far_writer):
            with suppress(OSError):
                await one.wait_closed()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"grpc://127.0.0.1:{server.sockets[0].getsockname()[1]}", cut
        cut.set()
        await asyncio.gather(*(relay for relay in relays if relay is not None))


async def test_a_connection_that_breaks_ends_calls_in_flight_at_once_and_the_link_comes_back() -> None:
    script = ScriptedHandler()
    listener = await GrpcTransport().listen(
        "grpc://127.0.0.1:0", [Endpoint(kind="predict", name="node", handler=script)], Limits()
    )
    async with through_a_wire(listener.address) as (address, cut):
        link = await GrpcTransport().dial(address, Limits())
        handler = link.handler("predict", "node")
        asked = [asyncio.ensure_future(handler(ONE, Context(request_id=str(index)))) for index in range(3)]
        calls = [await script.request() for _ in asked]
        cut.set()
        ended = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
        assert ended == [
            Unavailable("the worker cannot be reached", node="node", request_id=str(index)) for index in range(3)
        ]
        for call in calls:
            await call.ended()
            assert call.cancelled, "nobody waits for it any more"
        cut.clear()
        await _ready(link)
        again = asyncio.ensure_future(handler(ONE, Context()))
        (await script.request()).echo()
        assert await again == ONE
        await link.close()
    await listener.drain(0)


async def _ready(link: Link) -> None:
    for _ in range(1000):
        if await link.ready():
            return
        await asyncio.sleep(0.01)


_WORKER = """
import asyncio, sys
from mesh.transports import Endpoint, GrpcTransport, Limits

async def hang(request, context, /):
    print("arrived", flush=True)
    await asyncio.Event().wait()

async def main():
    node = Endpoint(kind="predict", name="node", handler=hang)
    listener = await GrpcTransport().listen(sys.argv[1], [node], Limits())
    print(listener.address, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_worker_that_is_killed_ends_calls_in_flight_as_unavailable(kind: str, tmp_path: Path) -> None:
    address = "grpc://127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/w.sock"
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, address, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert worker.stdout is not None
    link = await GrpcTransport().dial((await worker.stdout.readline()).decode().strip(), Limits())
    asked = asyncio.ensure_future(link.handler("predict", "node")(ONE, Context(request_id="r")))
    assert await worker.stdout.readline() == b"arrived\n"
    worker.send_signal(signal.SIGKILL)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable) as caught:
            await asked
    assert caught.value.request_id == "r"
    await worker.wait()
    await link.close()
