"""The services of `mesh.v1`, answering for the endpoints of one listener."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import grpc
from grpc_status.rpc_status import to_status

from mesh.context import Context
from mesh.errors import InvalidInput, NotFound, RequestError
from mesh.handler import Branches
from mesh.tensors import Tensors
from mesh.transports.admission import Admission
from mesh.transports.cache_codec import CACHE_VERBS
from mesh.transports.cache_codec import decode_call as decode_cache_call
from mesh.transports.cache_codec import encode_answer as encode_cache_answer
from mesh.transports.codec import (
    context_of,
    decode_branch,
    decode_tensors,
    encode_sources,
    encode_tensors,
)
from mesh.transports.contract import CACHE, GRAPH, UNCOUNTED, Endpoint
from mesh.transports.description import encode_description
from mesh.transports.message import decode_call, encode_answer
from mesh.transports.report import encode_report
from mesh.transports.statistics import Tell
from mesh.transports.statistics_codec import encode_statistics
from mesh.transports.status import decode_error, encode_error, status_of
from mesh.v1 import (
    aggregate_service_pb2,
    call_pb2,
    graph_service_pb2,
    predict_service_pb2,
)

__all__ = ["SERVICES", "add_servicers"]

Call = grpc.aio.ServicerContext[Any, Any]


class Servicer:
    """Answers for the endpoints of one listener: finds the endpoint, makes a context, runs, ends with a typed error."""

    def __init__(self, admission: Admission, tell: Tell | None = None) -> None:
        self._admission = admission
        self._tell = tell

    def unary(self, kind: str) -> Callable[[bytes, Call], Awaitable[bytes]]:
        """One batch for a node or graph of `kind`; bytes to bytes, see `mesh.transports.message`."""
        admission, named = self._admission, kind == GRAPH

        async def answer(raw: bytes, call: Call) -> bytes:
            request_id = ""
            try:
                name, request, options = decode_call(raw)
                request_id = options.request_id
                endpoint = admission.find(kind, name)
                context, began = _arrived(options, call)
                outputs = await admission.run(endpoint, _readable(request, endpoint, context), context)
                return encode_answer(outputs, _report(context, began), context.request_id if named else "")
            except RequestError as error:
                return await end_with(error, request_id, call)

        return answer

    async def predict_stream(
        self, request_iterator: AsyncIterator[predict_service_pb2.PredictStreamRequest], call: Call
    ) -> AsyncIterator[predict_service_pb2.PredictStreamResponse]:
        """Many batches, several at once, each answered as soon as it is ready."""
        bound = self._admission.limits.max_stream_in_flight
        # As many answers can wait as batches have room, and the end beside them: put_nowait never fails.
        answers: asyncio.Queue[predict_service_pb2.PredictStreamResponse | None] = asyncio.Queue(bound + 1)
        room = asyncio.Semaphore(bound)

        async def one(request: predict_service_pb2.PredictRequest) -> None:
            answers.put_nowait(await self._predict_one(request, call))

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
            context, began = _arrived(request.options, call)
            request_id = context.request_id
            inputs = _readable(_inputs(request), endpoint, context)
            outputs = await self._admission.run(endpoint, inputs, context)
        except RequestError as error:
            error.request_id = error.request_id or request_id
            return predict_service_pb2.PredictStreamResponse(request_id=request_id, error=encode_error(error))
        response = predict_service_pb2.PredictResponse(outputs=encode_tensors(outputs), report=_report(context, began))
        if outputs.sources is not None:
            response.sources.CopyFrom(encode_sources(outputs.sources))
        return predict_service_pb2.PredictStreamResponse(request_id=request_id, response=response)

    async def aggregate(self, request: aggregate_service_pb2.AggregateRequest, call: Call) -> bytes:
        """The branches of one request."""
        try:
            endpoint = self._admission.find("aggregate", request.node)
            context, began = _arrived(request.options, call)
            branches = _branches(request, endpoint.name)
            outputs = await self._admission.run(endpoint, branches, context)
            return encode_answer(outputs, _report(context, began))
        except RequestError as error:
            return await end_with(error, request.options.request_id, call)

    def cache(self, verb: Any) -> Callable[[Any, Call], Awaitable[Any]]:
        """One call of a cache node, or of whoever answers for caches."""

        async def answer(request: Any, call: Call) -> Any:
            options = request.options if verb == "prefetch" else call_pb2.CallOptions()
            try:
                asked = decode_cache_call(verb, request)
                context, _ = _arrived(options, call)
                found: Any = await self._admission.run(self._admission.find_cache(asked.cache), asked, context)
                return encode_cache_answer(verb, found)
            except RequestError as error:
                return await end_with(error, options.request_id, call)

        return answer

    async def run_stream(
        self, request: graph_service_pb2.RunStreamRequest, call: Call
    ) -> AsyncIterator[graph_service_pb2.RunStreamResponse]:
        """One batch, answered node by node."""
        run = request.request
        try:
            endpoint = self._admission.find(GRAPH, run.graph)
            context, began = _arrived(run.options, call)
            inputs = decode_tensors(run.inputs)
            async with aclosing(self._admission.stream(endpoint, inputs, context)) as events:
                async for node, result in events:
                    yield _event(node, result)
        except RequestError as error:
            await end_with(error, run.options.request_id, call)
            return
        finished = graph_service_pb2.RunFinished(request_id=context.request_id, report=_report(context, began))
        yield graph_service_pb2.RunStreamResponse(finished=finished)

    async def describe(
        self, request: graph_service_pb2.DescribeRequest, call: Call
    ) -> graph_service_pb2.DescribeResponse:
        """What the graph takes, gives and is made of."""
        try:
            endpoint = self._admission.find(GRAPH, request.graph)
        except RequestError as error:
            await end_with(error, "", call)
            raise
        if endpoint.description is None:
            return graph_service_pb2.DescribeResponse(graph=endpoint.name)
        return encode_description(endpoint.description)

    async def stats(
        self, request: graph_service_pb2.GraphServiceStatsRequest, call: Call
    ) -> graph_service_pb2.GraphServiceStatsResponse:
        """What was counted here, or in the whole mesh."""
        if self._tell is None:
            await end_with(NotFound(UNCOUNTED), "", call)
            raise NotFound(UNCOUNTED)
        return encode_statistics(await self._tell(request.own))


def _arrived(options: call_pb2.CallOptions, call: Call) -> tuple[Context, float]:
    """The context of a call that arrived, and when that was."""
    # The stubs say float, but a call without a deadline gives None.
    remaining_s = cast("float | None", call.time_remaining())
    return context_of(options, remaining_s), time.perf_counter()


def _report(context: Context, began: float) -> call_pb2.CallReport | None:
    """How a call went so far; None where there is nothing to tell."""
    return encode_report(context, time.perf_counter() - began)


def _readable(request: Tensors | InvalidInput, endpoint: Endpoint, context: Context) -> Tensors:
    """The request; a tensor in it that cannot be read is told of in the same way as one that does not fit."""
    if isinstance(request, InvalidInput):
        request.locate(node=endpoint.node, request_id=context.request_id)
        raise request
    return request


async def end_with(error: RequestError, request_id: str, call: Call) -> bytes:
    """End the call with a typed error. Returns nothing, because ending a call raises."""
    error.request_id = error.request_id or request_id
    await call.abort_with_status(to_status(status_of(error)))
    return b""


def _event(node: str, result: Tensors | RequestError) -> graph_service_pb2.RunStreamResponse:
    if isinstance(result, RequestError):
        return graph_service_pb2.RunStreamResponse(error=encode_error(result))
    outputs = graph_service_pb2.NodeOutputs(node=node, outputs=encode_tensors(result))
    if result.sources is not None:
        outputs.sources.CopyFrom(encode_sources(result.sources))
    return graph_service_pb2.RunStreamResponse(outputs=outputs)


def _inputs(request: predict_service_pb2.PredictRequest) -> Tensors | InvalidInput:
    try:
        return decode_tensors(request.inputs)
    except InvalidInput as error:
        return error


def _branches(request: aggregate_service_pb2.AggregateRequest, node: str) -> Branches:
    branches: dict[str, Tensors | RequestError] = {}
    for branch in request.branches:
        if branch.name in branches or not branch.name:
            raise InvalidInput(f"branch {branch.name!r} needs a name of its own", node=node)
        match branch.WhichOneof("result"):
            case "answer":
                branches[branch.name] = decode_branch(branch.answer)
            case "error":
                branches[branch.name] = decode_error(branch.error)
            case _:
                raise InvalidInput(f"branch {branch.name!r} has neither answer nor error", node=node)
    try:
        return Branches(branches, request.rows if request.HasField("rows") else None)
    except InvalidInput as error:
        error.node = node
        raise


SERVICES = {
    "preprocess": "mesh.v1.PreprocessService",
    "predict": "mesh.v1.PredictService",
    "aggregate": "mesh.v1.AggregateService",
    CACHE: "mesh.v1.CacheService",
    GRAPH: "mesh.v1.GraphService",
}
"""Kind of endpoint -> full name of the gRPC service that answers for it."""


def _handlers(servicer: Servicer) -> dict[str, dict[str, Any]]:
    """By kind and method, what grpcio's generated code would register, but for the codec of unary calls."""
    unary, unary_stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return {
        "preprocess": {"Preprocess": unary(servicer.unary("preprocess"))},
        "predict": {
            "Predict": unary(servicer.unary("predict")),
            "PredictStream": grpc.stream_stream_rpc_method_handler(
                servicer.predict_stream,
                request_deserializer=predict_service_pb2.PredictStreamRequest.FromString,
                response_serializer=predict_service_pb2.PredictStreamResponse.SerializeToString,
            ),
        },
        "aggregate": {
            "Aggregate": unary(
                servicer.aggregate, request_deserializer=aggregate_service_pb2.AggregateRequest.FromString
            )
        },
        CACHE: {
            verb.method: unary(
                servicer.cache(name),
                request_deserializer=verb.request.FromString,
                response_serializer=verb.response.SerializeToString,
            )
            for name, verb in CACHE_VERBS.items()
        },
        GRAPH: {
            "Run": unary(servicer.unary(GRAPH)),
            "RunStream": unary_stream(
                servicer.run_stream,
                request_deserializer=graph_service_pb2.RunStreamRequest.FromString,
                response_serializer=graph_service_pb2.RunStreamResponse.SerializeToString,
            ),
            "Describe": unary(
                servicer.describe,
                request_deserializer=graph_service_pb2.DescribeRequest.FromString,
                response_serializer=graph_service_pb2.DescribeResponse.SerializeToString,
            ),
            "Stats": unary(
                servicer.stats,
                request_deserializer=graph_service_pb2.GraphServiceStatsRequest.FromString,
                response_serializer=graph_service_pb2.GraphServiceStatsResponse.SerializeToString,
            ),
        },
    }


def add_servicers(server: grpc.aio.Server, admission: Admission, tell: Tell | None = None) -> list[str]:
    """Put a servicer for each kind that is served on `server`; returns the services' names.

    The service of graphs is there also where there is none but something to tell.
    """
    handlers = _handlers(Servicer(admission, tell))
    served = admission.kinds if tell is None else admission.kinds | {GRAPH}
    kinds = [kind for kind in SERVICES if kind in served]
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(SERVICES[kind], handlers[kind]) for kind in kinds)
    )
    return [SERVICES[kind] for kind in kinds]
