"""gRPC services beside endpoints: called by generated stubs, told by health and reflection, sent away by draining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mesh.context import Context
from mesh.errors import PlacementError
from mesh.tensors import Tensors
from mesh.transports import ENGINES, Endpoint, GrpcTransport, InprocTransport, Limits
from mesh.v1 import job_service_pb2, job_service_pb2_grpc


async def echo(request: Tensors, context: Context, /) -> Tensors:
    return request


NODE = Endpoint(kind="predict", name="node", handler=echo)


class Jobs:
    """Knows every job, and lets whoever watches wait until it leaves."""

    name = "mesh.v1.JobService"

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.watched = asyncio.Event()

    def add(self, server: Any) -> None:
        methods: dict[str, Any] = {
            "GetJob": grpc.unary_unary_rpc_method_handler(
                self.get,
                request_deserializer=job_service_pb2.GetJobRequest.FromString,
                response_serializer=job_service_pb2.GetJobResponse.SerializeToString,
            ),
            "WatchJob": grpc.unary_stream_rpc_method_handler(
                self.watch,
                request_deserializer=job_service_pb2.WatchJobRequest.FromString,
                response_serializer=job_service_pb2.WatchJobResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.name, methods),))

    def leave(self) -> None:
        self.left.set()

    async def get(self, request: job_service_pb2.GetJobRequest, context: Any) -> job_service_pb2.GetJobResponse:
        return job_service_pb2.GetJobResponse(job=job_service_pb2.Job(id=request.id))

    async def watch(
        self, request: job_service_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[job_service_pb2.WatchJobResponse]:
        yield job_service_pb2.WatchJobResponse(job=job_service_pb2.Job(id=request.id))
        self.watched.set()
        await self.left.wait()


@pytest.mark.parametrize("engine", sorted(ENGINES))
async def test_a_service_answers_beside_the_nodes_and_is_told_of(engine: str) -> None:
    listener = await GrpcTransport(engine).listen("grpc://127.0.0.1:0", [NODE], Limits(), services=[Jobs()])
    link = await GrpcTransport(engine).dial(listener.address, Limits())
    one = Tensors({"x": [1.0]})
    assert await link.handler("predict", "node")(one, Context()) == one
    async with grpc.aio.insecure_channel(listener.address.removeprefix("grpc://")) as opened:
        channel: Any = opened
        jobs: Any = job_service_pb2_grpc.JobServiceStub(channel)
        assert (await jobs.GetJob(job_service_pb2.GetJobRequest(id="a"))).job.id == "a"
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=Jobs.name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        talk = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        told = [service.name async for found in talk for service in found.list_services_response.service]
        assert {Jobs.name, "mesh.v1.PredictService", "grpc.health.v1.Health"} <= set(told)
    await link.close()
    await listener.drain(0)


@pytest.mark.parametrize("engine", sorted(ENGINES))
async def test_draining_sends_those_away_who_would_watch_for_longer(engine: str, tmp_path: Path) -> None:
    jobs = Jobs()
    listener = await GrpcTransport(engine).listen(f"unix:{tmp_path / 'a'}", [NODE], Limits(), services=[jobs])
    async with grpc.aio.insecure_channel(listener.address) as opened:
        channel: Any = opened
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        watching = stub.WatchJob(job_service_pb2.WatchJobRequest(id="a"))

        async def watch() -> list[str]:
            return [event.job.id async for event in watching]

        seen = asyncio.ensure_future(watch())
        await jobs.watched.wait()
        async with asyncio.timeout(60):
            await listener.drain(3600.0)
        assert await seen == ["a"]


async def test_a_listener_within_a_process_refuses_what_nobody_could_call() -> None:
    with pytest.raises(PlacementError, match=r"inproc://a cannot answer for mesh[.]v1[.]JobService"):
        await InprocTransport().listen("inproc://a", [NODE], Limits(), services=[Jobs()])
