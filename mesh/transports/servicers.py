"""The generated servicers of `mesh.v1`, answering for the endpoints of one listener."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import grpc
from grpc_status.rpc_status import to_status

from mesh.context import Context
from mesh.errors import InvalidInput, RequestError
from mesh.handler import Branches
from mesh.tensors import Tensors
from mesh.transports.admission import Admission
from mesh.transports.codec import context_of, decode_tensors, encode_report, encode_tensors
from mesh.transports.contract import GRAPH, Endpoint, GraphHandler
from mesh.transports.description import encode_description
from mesh.transports.status import decode_error, encode_error, status_of
from mesh.v1 import (
    aggregate_service_pb2,
    aggregate_service_pb2_grpc,
    call_pb2,
    graph_service_pb2,
    graph_service_pb2_grpc,
    predict_service_pb2,
    predict_service_pb2_grpc,
    preprocess_service_pb2,
    preprocess_service_pb2_grpc,
    tensor_pb2,
)

__all__ = ["SERVICES", "add_servicers"]

Call = grpc.aio.ServicerContext[Any, Any]


class _Arrival:
    """A call that arrived: its context, and when that was."""

    __slots__ = ("_started", "context")

    def __init__(self, context: Context) -> None:
        self.context = context
        self._started = time.perf_counter()

    def report(self) -> call_pb2.CallReport | None:
        """Where the time went so far; None unless the caller asked."""
        return encode_report(self.context, time.perf_counter() - self._started)


class _Servicer:
    """What all of them do: find the endpoint, make a context, run, and end the call with a typed error."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def arrival(self, options: call_pb2.CallOptions, call: Call) -> _Arrival:
        # The stubs say float, but a call without a deadline gives None.
        remaining = cast("float | None", call.time_remaining())
        if remaining is None:
            remaining = self._admission.limits.default_timeout_s
        return _Arrival(context_of(options, remaining))

    async def answer(
        self, kind: str, name: str, inputs: Iterable[tensor_pb2.Tensor], options: call_pb2.CallOptions, call: Call
    ) -> tuple[Tensors, _Arrival]:
        """The endpoint's answer, or the end of the call."""
        try:
            endpoint = self._admission.find(kind, name)
            return await self.run(endpoint, inputs, self.arrival(options, call))
        except RequestError as error:
            error.request_id = error.request_id or options.request_id
            await call.abort_with_status(to_status(status_of(error)))
            raise AssertionError("abort_with_status returned") from error

    async def run(
        self, endpoint: Endpoint, inputs: Iterable[tensor_pb2.Tensor], arrival: _Arrival
    ) -> tuple[Tensors, _Arrival]:
        context = arrival.context
        try:
            request = decode_tensors(inputs)
        except InvalidInput as error:
            # A tensor that cannot be read is told of in the same way as one that does not fit.
            error.locate(node="" if endpoint.kind == GRAPH else endpoint.name, request_id=context.request_id)
            raise
        return await self._admission.run(endpoint.handler, request, context), arrival


class PreprocessServicer(_Servicer, preprocess_service_pb2_grpc.PreprocessServiceServicer):
    """`mesh.v1.PreprocessService`."""

    async def Preprocess(
        self, request: preprocess_service_pb2.PreprocessRequest, context: Call
    ) -> preprocess_service_pb2.PreprocessResponse:
        """One batch."""
        outputs, used = await self.answer("preprocess", request.node, request.inputs, request.options, context)
        return preprocess_service_pb2.PreprocessResponse(outputs=encode_tensors(outputs), report=used.report())


class PredictServicer(_Servicer, predict_service_pb2_grpc.PredictServiceServicer):
    """`mesh.v1.PredictService`."""

    async def Predict(
        self, request: predict_service_pb2.PredictRequest, context: Call
    ) -> predict_service_pb2.PredictResponse:
        """One batch."""
        outputs, used = await self.answer("predict", request.node, request.inputs, request.options, context)
        return _predicted(outputs, used)

    async def PredictStream(
        self, request_iterator: AsyncIterator[predict_service_pb2.PredictStreamRequest], context: Call
    ) -> AsyncIterator[predict_service_pb2.PredictStreamResponse]:
        """Many batches, several at once, each answered as soon as it is ready."""
        bound = self._admission.limits.max_stream_in_flight
        # As many answers can wait as batches have room, and the end beside them: put_nowait never fails.
        answers: asyncio.Queue[predict_service_pb2.PredictStreamResponse | None] = asyncio.Queue(bound + 1)
        room = asyncio.Semaphore(bound)

        async def one(request: predict_service_pb2.PredictRequest) -> None:
            answers.put_nowait(await self._predict_one(request, context))

        async def read() -> None:
            try:
                async with asyncio.TaskGroup() as batches:
                    async for message in request_iterator:
                        # Held until the answer has been sent: a caller that does not read is not read either.
                        await room.acquire()
                        batches.create_task(one(message.request))
            finally:
                answers.put_nowait(None)

        reading = asyncio.ensure_future(read())
        try:
            while (answer := await answers.get()) is not None:
                yield answer
                room.release()
            await reading
        finally:
            reading.cancel()

    async def _predict_one(
        self, request: predict_service_pb2.PredictRequest, call: Call
    ) -> predict_service_pb2.PredictStreamResponse:
        request_id = request.options.request_id
        try:
            endpoint = self._admission.find("predict", request.node)
            arrival = self.arrival(request.options, call)
            request_id = arrival.context.request_id
            outputs, used = await self.run(endpoint, request.inputs, arrival)
        except RequestError as error:
            error.request_id = error.request_id or request_id
            return predict_service_pb2.PredictStreamResponse(request_id=request_id, error=encode_error(error))
        return predict_service_pb2.PredictStreamResponse(request_id=request_id, response=_predicted(outputs, used))


def _predicted(outputs: Tensors, used: _Arrival) -> predict_service_pb2.PredictResponse:
    return predict_service_pb2.PredictResponse(outputs=encode_tensors(outputs), report=used.report())


class AggregateServicer(_Servicer, aggregate_service_pb2_grpc.AggregateServiceServicer):
    """`mesh.v1.AggregateService`."""

    async def Aggregate(
        self, request: aggregate_service_pb2.AggregateRequest, context: Call
    ) -> aggregate_service_pb2.AggregateResponse:
        """The branches of one request."""
        try:
            endpoint = self._admission.find("aggregate", request.node)
            used = self.arrival(request.options, context)
            branches = _branches(request, endpoint.name)
            outputs = await self._admission.run(endpoint.handler, branches, used.context)
        except RequestError as error:
            error.request_id = error.request_id or request.options.request_id
            await context.abort_with_status(to_status(status_of(error)))
            raise AssertionError("abort_with_status returned") from error
        return aggregate_service_pb2.AggregateResponse(outputs=encode_tensors(outputs), report=used.report())


def _branches(request: aggregate_service_pb2.AggregateRequest, node: str) -> Branches:
    branches: dict[str, Tensors | RequestError] = {}
    for branch in request.branches:
        if branch.name in branches or not branch.name:
            raise InvalidInput(f"branch {branch.name!r} needs a name of its own", node=node)
        match branch.WhichOneof("result"):
            case "answer":
                branches[branch.name] = decode_tensors(branch.answer.tensors)
            case "error":
                branches[branch.name] = decode_error(branch.error)
            case _:
                raise InvalidInput(f"branch {branch.name!r} has neither answer nor error", node=node)
    return branches


class GraphServicer(_Servicer, graph_service_pb2_grpc.GraphServiceServicer):
    """`mesh.v1.GraphService`."""

    async def Run(self, request: graph_service_pb2.RunRequest, context: Call) -> graph_service_pb2.RunResponse:
        """One batch, answered as a whole."""
        outputs, used = await self.answer(GRAPH, request.graph, request.inputs, request.options, context)
        return graph_service_pb2.RunResponse(
            outputs=encode_tensors(outputs), report=used.report(), request_id=used.context.request_id
        )

    async def RunStream(
        self, request: graph_service_pb2.RunStreamRequest, context: Call
    ) -> AsyncIterator[graph_service_pb2.RunStreamResponse]:
        """One batch, answered node by node."""
        run = request.request
        try:
            handler = cast("GraphHandler", self._admission.find(GRAPH, run.graph).handler)
            used = self.arrival(run.options, context)
            inputs = decode_tensors(run.inputs)
            async for node, result in self._admission.stream(handler, inputs, used.context):
                if isinstance(result, RequestError):
                    yield graph_service_pb2.RunStreamResponse(error=encode_error(result))
                else:
                    outputs = graph_service_pb2.NodeOutputs(node=node, outputs=encode_tensors(result))
                    yield graph_service_pb2.RunStreamResponse(outputs=outputs)
        except RequestError as error:
            error.request_id = error.request_id or run.options.request_id
            await context.abort_with_status(to_status(status_of(error)))
            raise AssertionError("abort_with_status returned") from error
        finished = graph_service_pb2.RunFinished(request_id=used.context.request_id, report=used.report())
        yield graph_service_pb2.RunStreamResponse(finished=finished)

    async def Describe(
        self, request: graph_service_pb2.DescribeRequest, context: Call
    ) -> graph_service_pb2.DescribeResponse:
        """What the graph takes, gives and is made of."""
        try:
            endpoint = self._admission.find(GRAPH, request.graph)
        except RequestError as error:
            await context.abort_with_status(to_status(status_of(error)))
            raise AssertionError("abort_with_status returned") from error
        if endpoint.description is None:
            return graph_service_pb2.DescribeResponse(graph=endpoint.name)
        return encode_description(endpoint.description)


SERVICES = {
    "preprocess": "mesh.v1.PreprocessService",
    "predict": "mesh.v1.PredictService",
    "aggregate": "mesh.v1.AggregateService",
    GRAPH: "mesh.v1.GraphService",
}
"""Kind of endpoint -> full name of the gRPC service that answers for it."""


def add_servicers(server: grpc.aio.Server, admission: Admission) -> list[str]:
    """Put a servicer for each kind that is served on `server`; returns the services' names."""
    kinds = admission.kinds
    if "preprocess" in kinds:
        preprocess_service_pb2_grpc.add_PreprocessServiceServicer_to_server(PreprocessServicer(admission), server)
    if "predict" in kinds:
        predict_service_pb2_grpc.add_PredictServiceServicer_to_server(PredictServicer(admission), server)
    if "aggregate" in kinds:
        aggregate_service_pb2_grpc.add_AggregateServiceServicer_to_server(AggregateServicer(admission), server)
    if GRAPH in kinds:
        graph_service_pb2_grpc.add_GraphServiceServicer_to_server(GraphServicer(admission), server)
    return [SERVICES[kind] for kind in SERVICES if kind in kinds]
