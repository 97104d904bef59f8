"""What grpcio's packages generate and bring along takes our channel: stubs, health, reflection, rich statuses."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

import mesh.wire
from tests.unit.wire.client.pairs import WIRE_CLIENT, pair
from tests.unit.wire.server.engines import SERVERS


@pytest.mark.parametrize("engine", list(SERVERS))
async def test_health_and_reflection(engine: str) -> None:
    server = SERVERS[engine]()
    servicer = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(("grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    async with mesh.wire.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=""))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watching = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watching.cancel()
        untyped: Any = channel
        reflected: Any = reflection_pb2_grpc.ServerReflectionStub(untyped)
        asking = reflected.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = [one.name async for answer in asking for one in answer.list_services_response.service]
        assert "grpc.health.v1.Health" in listed
    await server.stop(None)


@WIRE_CLIENT
async def test_rich_statuses(engines: str) -> None:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo())
    rich = status_pb2.Status(code=code_pb2.ABORTED, message="again", details=[detail])

    async def refuse(request: bytes, context: Any) -> bytes:
        await context.abort_with_status(rpc_status.to_status(rich))
        return b""

    async with pair(engines, unary_unary=refuse) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        found = dict(raised.value.trailing_metadata())["grpc-status-details-bin"]
        assert status_pb2.Status.FromString(found) == rich  # pyright: ignore[reportArgumentType]
        assert await rpc_status.aio.from_call(call) == rich  # pyright: ignore[reportAttributeAccessIssue]
