"""PredictStream and RunStream through the generated stubs, as any gRPC client would use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from mesh.context import Context
from mesh.errors import InvalidInput, NodeFailed, NotFound, Overloaded, RequestError
from mesh.tensors import Tensors
from mesh.testing import ScriptedHandler, settle
from mesh.transports import Endpoint, GrpcTransport, Limits
from mesh.transports.codec import decode_tensors, encode_tensors
from mesh.transports.contract import Event
from mesh.transports.status import decode_error, error_of_call
from mesh.v1 import call_pb2, graph_service_pb2, graph_service_pb2_grpc, predict_service_pb2, predict_service_pb2_grpc


@asynccontextmanager
async def serving(endpoint: Endpoint, limits: Limits | None = None) -> AsyncGenerator[grpc.aio.Channel, None]:
    listener = await GrpcTransport().listen("grpc://127.0.0.1:0", [endpoint], limits or Limits())
    async with grpc.aio.insecure_channel(listener.address.removeprefix("grpc://")) as channel:
        yield channel
    await listener.drain(0)


def batch(name: str, node: str = "") -> predict_service_pb2.PredictStreamRequest:
    inputs = encode_tensors(Tensors({"x": [[float(len(name))]]}))
    options = call_pb2.CallOptions(request_id=name, report_timings=True)
    request = predict_service_pb2.PredictRequest(node=node, inputs=inputs, options=options)
    return predict_service_pb2.PredictStreamRequest(request=request)


def predict_stream(channel: grpc.aio.Channel) -> Any:
    return predict_service_pb2_grpc.PredictServiceStub(channel).PredictStream()


async def test_answers_of_a_stream_come_as_they_are_ready() -> None:
    script = ScriptedHandler()
    async with serving(Endpoint(kind="predict", name="n", handler=script)) as channel:
        stream = predict_stream(channel)
        for name in ("a", "bb"):
            await stream.write(batch(name))
        calls = [await script.request() for _ in range(2)]
        for call in reversed(calls):
            call.echo()
            answer = await stream.read()
            assert answer.request_id == call.context.request_id
            assert decode_tensors(answer.response.outputs) == call.request
            assert answer.response.HasField("report")
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_bad_batch_is_answered_with_its_error_and_the_stream_goes_on() -> None:
    script = ScriptedHandler()
    async with serving(Endpoint(kind="predict", name="n", handler=script)) as channel:
        stream = predict_stream(channel)
        broken = batch("broken")
        broken.request.inputs[0].data = b"x"
        await stream.write(broken)
        answer = await stream.read()
        assert (answer.request_id, answer.error.code, answer.error.node) == ("broken", "INVALID_ARGUMENT", "n")
        await stream.write(batch("lost", node="nobody"))
        assert type(decode_error((await stream.read()).error)) is NotFound
        await stream.write(batch("full"))
        (await script.request()).fail(Overloaded("full", retry_after_s=0.5))
        found = decode_error((await stream.read()).error)
        assert found == Overloaded("full", node="n", request_id="full", retry_after_s=0.5)
        await stream.write(batch("raised"))
        (await script.request()).fail(ValueError("/secret"))
        found = decode_error((await stream.read()).error)
        assert (type(found), "secret" in found.text) == (NodeFailed, False)
        await stream.write(batch("good"))
        (await script.request()).echo()
        assert (await stream.read()).request_id == "good"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_a_stream_works_on_as_many_batches_as_it_may_and_reads_no_further() -> None:
    script = ScriptedHandler()
    endpoint = Endpoint(kind="predict", name="n", handler=script)
    async with serving(endpoint, Limits(max_stream_in_flight=2)) as channel:
        stream = predict_stream(channel)
        for index in range(5):
            await stream.write(batch("x" * (index + 1)))
        calls = [await script.request() for _ in range(2)]
        await settle(200)
        assert script.pending == 0
        for call in calls:
            call.echo()
        for _ in range(3):
            assert (await stream.read()).request_id
            (await script.request()).echo()
        await stream.done_writing()
        assert [bool(await stream.read()) for _ in range(2)] == [True, True]
        assert await stream.read() is grpc.aio.EOF


async def test_a_caller_that_leaves_a_stream_cancels_its_batches() -> None:
    script = ScriptedHandler()
    async with serving(Endpoint(kind="predict", name="n", handler=script)) as channel:
        stream = predict_stream(channel)
        for name in ("a", "b"):
            await stream.write(batch(name))
        calls = [await script.request() for _ in range(2)]
        stream.cancel()
        for call in calls:
            await call.ended()
            assert call.cancelled


class Graph:
    """A graph whose events a test puts in."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | RequestError | None] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def __call__(self, request: Tensors, context: Context, /) -> Tensors:
        return request

    async def stream(self, request: Tensors, context: Context, /) -> AsyncGenerator[Event, None]:
        try:
            while (event := await self.events.get()) is not None:
                if isinstance(event, RequestError):
                    raise event
                yield event
        finally:
            self.closed.set()


def run_stream(channel: grpc.aio.Channel, data: bytes | None = None) -> Any:
    inputs = encode_tensors(Tensors({"x": [1.0]}))
    if data is not None:
        inputs[0].data = data
    options = call_pb2.CallOptions(request_id="r", report_timings=True)
    run = graph_service_pb2.RunRequest(inputs=inputs, options=options)
    return graph_service_pb2_grpc.GraphServiceStub(channel).RunStream(graph_service_pb2.RunStreamRequest(request=run))


async def read_all(stream: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in stream]


async def test_events_of_a_graph_come_as_they_happen_and_then_a_last_one() -> None:
    graph = Graph()
    async with serving(Endpoint(kind="graph", name="g", handler=graph)) as channel:
        stream = run_stream(channel)
        graph.events.put_nowait(("small", Tensors({"label": np.array([3])})))
        first = await stream.read()
        assert first.outputs.node == "small"
        assert decode_tensors(first.outputs.outputs) == Tensors({"label": np.array([3])})
        graph.events.put_nowait(("large", NodeFailed("broke", node="large", request_id="r")))
        assert decode_error((await stream.read()).error) == NodeFailed("broke", node="large", request_id="r")
        graph.events.put_nowait(None)
        last = await stream.read()
        assert last.finished.request_id == "r"
        assert last.finished.HasField("report")
        assert await stream.read() is grpc.aio.EOF


async def test_a_caller_that_leaves_closes_the_graphs_stream() -> None:
    graph = Graph()
    async with serving(Endpoint(kind="graph", name="g", handler=graph)) as channel:
        stream = run_stream(channel)
        graph.events.put_nowait(("a", Tensors({})))
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(5):
            await graph.closed.wait()


async def test_a_graph_that_fails_as_a_whole_ends_the_stream_with_its_error() -> None:
    graph = Graph()
    async with serving(Endpoint(kind="graph", name="g", handler=graph)) as channel:
        for failure, expected in (
            (InvalidInput("bad"), InvalidInput("bad", request_id="r")),
            (
                Overloaded("full", node="n", retry_after_s=2.0),
                Overloaded("full", node="n", request_id="r", retry_after_s=2),
            ),
        ):
            graph.events.put_nowait(failure)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read_all(run_stream(channel))
            assert error_of_call(caught.value) == expected
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(run_stream(channel, data=b"x"))
        found = error_of_call(caught.value)
        assert (type(found), found.tensor, found.request_id) == (InvalidInput, "x", "r")


async def test_a_deadline_holds_for_the_whole_stream() -> None:
    graph = Graph()
    async with serving(Endpoint(kind="graph", name="g", handler=graph), Limits(default_timeout_s=0.05)) as channel:
        stream = run_stream(channel)
        graph.events.put_nowait(("a", Tensors({})))
        await stream.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert graph.closed.is_set()
