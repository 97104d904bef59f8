"""grpcio's own packages on our server: health, reflection, rich statuses, and servicers as its compiler writes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from grpc_status._async import from_call

from mesh.wire.server import WireServer, server

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


def as_any(value: Any) -> Any:
    """What the packages' types leave out."""
    return value


@asynccontextmanager
async def channel_to(made: WireServer) -> AsyncGenerator[grpc.aio.Channel]:
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await made.stop(None)


async def test_health() -> None:
    made, servicer = server(), HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, made)
    async with channel_to(made) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="mine"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        await servicer.set("mine", health_pb2.HealthCheckResponse.SERVING)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await servicer.enter_graceful_shutdown()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_reflection() -> None:
    made = server()
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), made)
    reflection.enable_server_reflection([HEALTH, reflection.SERVICE_NAME], made)
    async with channel_to(made) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(as_any(channel))
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=HEALTH),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="nothing"),
        ]
        services, file, nothing = [one async for one in stub.ServerReflectionInfo(iter(asked))]
        assert {one.name for one in services.list_services_response.service} == {HEALTH, reflection.SERVICE_NAME}
        assert file.file_descriptor_response.file_descriptor_proto
        assert nothing.error_response.error_code == code_pb2.NOT_FOUND


async def test_rich_statuses() -> None:
    class Failing(health_pb2_grpc.HealthServicer):
        async def Check(self, request: Any, context: Any) -> Any:
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.RetryInfo(retry_delay={"seconds": 7}))
            status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="später", details=[detail])
            await context.abort_with_status(rpc_status.to_status(status))

    made = server()
    health_pb2_grpc.add_HealthServicer_to_server(Failing(), made)
    async with channel_to(made) as channel:
        call = as_any(health_pb2_grpc.HealthStub(channel)).Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status: Any = await from_call(call)
        assert status.message == "später"
        found = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(found)
        assert found.retry_delay.seconds == 7


async def test_a_servicer_whose_method_is_not_written_is_unimplemented() -> None:
    made = server()
    health_pb2_grpc.add_HealthServicer_to_server(health_pb2_grpc.HealthServicer(), made)
    async with channel_to(made) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await as_any(health_pb2_grpc.HealthStub(channel)).Check(health_pb2.HealthCheckRequest())
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_that_is_no_message_is_internal() -> None:
    made = server()
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), made)
    async with channel_to(made) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary(f"/{HEALTH}/Check")(b"\xff\xff\xff")
        assert (raised.value.code(), raised.value.details()) == (
            grpc.StatusCode.INTERNAL,
            "Exception deserializing request!",
        )
