"""`grpc://host:port` and `unix:/path`: links over gRPC.

Every listener also answers `grpc.health.v1.Health` and server reflection, so that the tools people have work on it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mesh.context import Context, cancel_requested
from mesh.errors import PlacementError, RequestError, Unavailable
from mesh.handler import Branches, Handler
from mesh.keeping import CacheAnswer, CacheCall
from mesh.tensors import Tensors
from mesh.transports.admission import Admission, check_request
from mesh.transports.cache_codec import CACHE_VERBS
from mesh.transports.cache_codec import decode_answer as decode_cache_answer
from mesh.transports.cache_codec import encode_call as encode_cache_call
from mesh.transports.codec import (
    decode_sources,
    decode_tensors,
    encode_branch,
    encode_options,
    encode_tensors,
)
from mesh.transports.contract import CACHE, CACHES, GRAPH, Description, Endpoint, Limits, Service, node_named
from mesh.transports.description import decode_description
from mesh.transports.engine import DEFAULT_ENGINE, ENGINES, Engine
from mesh.transports.message import decode_answer, encode_call
from mesh.transports.report import note_report
from mesh.transports.servicers import SERVICES, add_servicers
from mesh.transports.statistics import Statistics, Tell
from mesh.transports.statistics_codec import decode_statistics
from mesh.transports.status import decode_error, encode_error, error_of_call
from mesh.v1 import (
    aggregate_service_pb2,
    graph_service_pb2,
    graph_service_pb2_grpc,
)

__all__ = ["GrpcTransport", "target_of"]

METHODS = {
    "preprocess": f"/{SERVICES['preprocess']}/Preprocess",
    "predict": f"/{SERVICES['predict']}/Predict",
    "aggregate": f"/{SERVICES['aggregate']}/Aggregate",
    GRAPH: f"/{SERVICES[GRAPH]}/Run",
}
"""Kind of endpoint -> the method that one batch is sent to."""
_READY_TIMEOUT_S = 2.0


def target_of(address: str) -> str:
    """What gRPC calls an address.

    Raises:
        PlacementError: Neither `grpc://host:port` nor `unix:/absolute/path`.
    """
    if address.startswith("unix:/") and not address.startswith("unix://"):
        return address
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if scheme != "grpc" or not host or not port.isdigit() or int(port) > 65535:
        raise PlacementError(f"{address!r} is no address: write grpc://host:port or unix:/absolute/path")
    return place


class GrpcTransport:
    """gRPC over an engine.

    Args:
        engine: What speaks it, by its name in `ENGINES` or itself; `DEFAULT_ENGINE` unless said otherwise. The far
            side need not have the same.
    """

    def __init__(self, engine: Engine | str = DEFAULT_ENGINE) -> None:
        self._engine = ENGINES[engine]() if isinstance(engine, str) else engine

    async def listen(
        self,
        address: str,
        endpoints: Sequence[Endpoint],
        limits: Limits,
        tell: Tell | None = None,
        services: Sequence[Service] = (),
    ) -> GrpcListener:
        """Serve `endpoints` and `services`, with health and reflection.

        Raises:
            PlacementError: The address is taken, or cannot be bound.
        """
        target = target_of(address)
        admission = Admission(endpoints, limits)
        server = self._engine.server(limits)
        names = add_servicers(server, admission, tell)
        for service in services:
            service.add(server)
            names.append(service.name)
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        if target.startswith("unix:"):
            _refuse_live_socket(target.removeprefix("unix:"))
        try:
            port = server.add_insecure_port(target)
        except RuntimeError:
            raise PlacementError(f"{address} cannot be bound: it is in use, or not an address of this host") from None
        await server.start()
        for name in ("", *names):
            await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        bound = address if target.startswith("unix:") else f"grpc://{target.rpartition(':')[0]}:{port}"
        return GrpcListener(bound, server, admission, checks, services)

    async def dial(self, address: str, limits: Limits) -> GrpcLink:
        """A link that connects when first used."""
        return GrpcLink(self._engine.channel(target_of(address), limits), limits)


def _refuse_live_socket(path: str) -> None:
    # gRPC unlinks whatever socket it finds and binds its own, which would steal a live worker's address.
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise PlacementError(f"unix:{path} cannot be bound: {why}") from None
    raise PlacementError(f"unix:{path} is in use")


class GrpcListener:
    """A gRPC server that answers for endpoints."""

    def __init__(
        self,
        address: str,
        server: grpc.aio.Server,
        admission: Admission,
        checks: health.aio.HealthServicer,
        services: Sequence[Service] = (),
    ) -> None:
        self._address = address
        self._server = server
        self._admission = admission
        self._checks = checks
        self._services = services

    @property
    def address(self) -> str:
        """Where to dial."""
        return self._address

    async def drain(self, grace_s: float) -> None:
        """Say NOT_SERVING, refuse new calls, finish those in flight for at most `grace_s` seconds."""
        self._admission.close()
        for service in self._services:
            service.leave()
        await self._checks.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def wait_closed(self) -> None:
        """Return once the server has stopped."""
        await self._server.wait_for_termination()


class GrpcLink:
    """A channel whose far side is a `GrpcListener`, or anything else that serves `mesh.v1`."""

    def __init__(self, channel: grpc.aio.Channel, limits: Limits) -> None:
        self._channel = channel
        self._limits = limits
        # The published stubs leave the method out of the type.
        self._health: Any = health_pb2_grpc.HealthStub(channel)

    def handler(self, kind: str, name: str) -> Handler[Any]:
        """The far endpoint as a handler."""
        if kind == CACHE:
            return self._cache(name)
        if kind not in METHODS:
            raise ValueError(f"no kind of endpoint is called {kind!r}")
        method: Any = self._channel.unary_unary(METHODS[kind])
        encode = _encode_branches if kind == "aggregate" else _encode_tensors

        async def call(request: Any, context: Context, /) -> Tensors:
            try:
                check_request(request, self._limits.most_bytes(kind))
                return await self._call(method, encode(name, request, context), context)
            except RequestError as error:
                error.locate(node=node_named(kind, name), request_id=context.request_id)
                raise

        return call

    def _cache(self, name: str) -> Handler[Any]:
        methods: dict[str, Any] = {
            verb: self._channel.unary_unary(
                f"/{SERVICES[CACHE]}/{one.method}",
                request_serializer=one.request.SerializeToString,
                response_deserializer=one.response.FromString,
            )
            for verb, one in CACHE_VERBS.items()
        }

        async def call(request: CacheCall, context: Context, /) -> CacheAnswer:
            request = request if name == CACHES else replace(request, cache=name)
            try:
                check_request(request, self._limits.most_bytes(CACHE))
                message: Any = encode_cache_call(request)
                if request.verb == "prefetch":
                    message.options.CopyFrom(encode_options(context))
                return decode_cache_answer(request, await self._ask(methods[request.verb], message, context))
            except RequestError as error:
                error.locate(node=node_named(CACHE, name), request_id=context.request_id)
                raise

        made: Any = call  # whoever asks a cache knows what it answers
        return made

    async def _call(self, method: Any, message: bytes, context: Context) -> Tensors:
        """Send one message and read the answer; errors come back as they were raised."""
        started = time.perf_counter()
        answer = await self._ask(method, message, context)
        outputs, report = decode_answer(answer)
        note_report(report, time.perf_counter() - started, context)
        return outputs

    async def _ask(self, method: Any, message: Any, context: Context) -> Any:
        remaining_s = context.remaining_s()
        try:
            return await method(message, timeout=self._limits.default_timeout_s if remaining_s is None else remaining_s)
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from None
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # What grpcio says when the channel was closed under a call, or before it.
            if cancel_requested():
                raise
            raise Unavailable("the worker cannot be reached") from None

    async def stream(
        self, graph: str, request: Tensors, context: Context
    ) -> AsyncGenerator[tuple[str, Tensors | RequestError]]:
        """What a graph gives as it comes: (node, what it gives or why it gives nothing). See `GraphHandler.stream`.

        Raises:
            RequestError: The call as a whole failed.
        """
        stub = graph_service_pb2_grpc.GraphServiceStub(self._channel)
        remaining_s = context.remaining_s()
        timeout_s = self._limits.default_timeout_s if remaining_s is None else remaining_s
        run = graph_service_pb2.RunRequest(graph=graph, inputs=encode_tensors(request), options=encode_options(context))
        started = time.perf_counter()
        call: Any = stub.RunStream(graph_service_pb2.RunStreamRequest(request=run), timeout=timeout_s)
        try:
            async for event in call:
                match event.WhichOneof("event"):
                    case "outputs":
                        tensors = decode_tensors(event.outputs.outputs)
                        if event.outputs.HasField("sources"):
                            tensors = decode_sources(tensors, event.outputs.sources)
                        yield event.outputs.node, tensors
                    case "error":
                        error = decode_error(event.error)
                        yield error.node, error
                    case _:
                        note_report(event.finished.report, time.perf_counter() - started, context)
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from None
        finally:
            call.cancel()

    async def describe(self, graph: str = "", timeout_s: float = 5.0) -> Description:
        """What the far graph takes, gives and is made of; an empty name means the gateway's whole graph.

        Raises:
            RequestError: It cannot be reached, or serves no such graph.
        """
        stub = graph_service_pb2_grpc.GraphServiceStub(self._channel)
        try:
            told = await stub.Describe(graph_service_pb2.DescribeRequest(graph=graph), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from None
        except grpc.aio.UsageError:
            raise Unavailable("the link is closed") from None
        return decode_description(told)

    async def stats(self, timeout_s: float = 5.0, *, own: bool = False) -> Statistics:
        """What the far side has counted; at a gateway that of the whole mesh, unless only its `own` is wanted.

        Raises:
            RequestError: It cannot be reached, does not answer in time, or counts nothing.
        """
        stub = graph_service_pb2_grpc.GraphServiceStub(self._channel)
        try:
            told = await stub.Stats(graph_service_pb2.GraphServiceStatsRequest(own=own), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from None
        except grpc.aio.UsageError:
            raise Unavailable("the link is closed") from None
        return decode_statistics(told)

    async def ready(self) -> bool:
        """Whether the far side's health service says SERVING, within two seconds."""
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=_READY_TIMEOUT_S)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()


def _encode_tensors(name: str, request: Tensors, context: Context) -> bytes:
    return encode_call(name, request, encode_options(context))


def _encode_branches(name: str, request: Branches, context: Context) -> bytes:
    branches: list[aggregate_service_pb2.Branch] = []
    for branch, result in request.items():
        if isinstance(result, RequestError):
            branches.append(aggregate_service_pb2.Branch(name=branch, error=encode_error(result)))
        else:
            branches.append(aggregate_service_pb2.Branch(name=branch, answer=encode_branch(result)))
    message = aggregate_service_pb2.AggregateRequest(
        node=name, branches=branches, options=encode_options(context), rows=request.rows
    )
    return message.SerializeToString()
