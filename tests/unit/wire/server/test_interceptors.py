"""grpc.aio's server interceptors, on our server and on grpcio's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from tests.unit.wire.server.engines import BOTH, up
from tests.unit.wire.server.test_calls import chat, count, echo, ending, join

pytestmark = BOTH
Code = grpc.StatusCode
Onwards = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Noting(grpc.aio.ServerInterceptor):
    """Writes down what passes."""

    def __init__(self, name: str, notes: list[Any]) -> None:
        self._name = name
        self._notes = notes

    async def intercept_service(self, continuation: Onwards, handler_call_details: Any) -> Any:
        self._notes.append(
            (self._name, handler_call_details.method, dict(handler_call_details.invocation_metadata).get("key"))
        )
        await asyncio.sleep(0)
        return await continuation(handler_call_details)


class Guarding(grpc.aio.ServerInterceptor):
    """Lets nobody in who does not know the word."""

    async def intercept_service(self, continuation: Onwards, handler_call_details: Any) -> Any:
        if dict(handler_call_details.invocation_metadata).get("word") == "friend":
            return await continuation(handler_call_details)

        async def refuse(request: Any, context: Any) -> Any:
            await context.abort(Code.UNAUTHENTICATED, "say the word")

        handler = await continuation(handler_call_details)
        if handler is not None and handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)


class Changing(grpc.aio.ServerInterceptor):
    """Does something to each answer."""

    async def intercept_service(self, continuation: Onwards, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)

        async def changed(request: bytes, context: Any) -> bytes:
            return b"<" + await handler.unary_unary(request, context) + b">"

        return grpc.unary_unary_rpc_method_handler(changed)


class Failing(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Onwards, handler_call_details: Any) -> Any:
        raise ValueError("broken")


async def test_interceptors_are_asked_in_their_order_for_every_cardinality(engine: str) -> None:
    notes: list[Any] = []
    given = {"interceptors": [Noting("outer", notes), Noting("inner", notes)]}
    async with up(
        engine, given, unary_unary=echo, unary_stream=count, stream_unary=join, stream_stream=chat
    ) as channel:
        metadata = (("key", "value"),)
        assert await channel.unary_unary("/test/unary_unary")(b"x", metadata=metadata) == b"x"
        assert [one async for one in channel.unary_stream("/test/unary_stream")(b"2", metadata=metadata)] == [
            b"0",
            b"1",
        ]
        assert await channel.stream_unary("/test/stream_unary")(iter([b"a", b"b"]), metadata=metadata) == b"ab"
        call = channel.stream_stream("/test/stream_stream")(iter([b"a", b"b"]), metadata=metadata)
        assert [one async for one in call] == [b"a", b"b"]
        assert (await ending(channel.unary_unary("/test/none")(b"")))[0] is Code.UNIMPLEMENTED
    methods = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
    expected = [(name, f"/test/{method}", "value") for method in methods for name in ("outer", "inner")]
    assert notes == [*expected, ("outer", "/test/none", None), ("inner", "/test/none", None)]


async def test_an_interceptor_may_refuse(engine: str) -> None:
    async with up(engine, {"interceptors": [Guarding()]}, unary_unary=echo, stream_stream=chat) as channel:
        ask = channel.unary_unary("/test/unary_unary")
        assert await ask(b"x", metadata=(("word", "friend"),)) == b"x"
        assert await ending(ask(b"x")) == (Code.UNAUTHENTICATED, "say the word")
        assert await ending(channel.stream_stream("/test/stream_stream")()) == (Code.UNAUTHENTICATED, "say the word")


async def test_an_interceptor_may_change_the_handler(engine: str) -> None:
    async with up(engine, {"interceptors": [Changing()]}, unary_unary=echo) as channel:
        assert await asyncio.gather(*[channel.unary_unary("/test/unary_unary")(b"%d" % n) for n in range(20)]) == [
            b"<%d>" % n for n in range(20)
        ]


async def test_an_interceptor_that_raises_ends_the_call(engine: str) -> None:
    async with up(engine, {"interceptors": [Failing()]}, unary_unary=echo) as channel:
        code, _ = await ending(channel.unary_unary("/test/unary_unary")(b"", timeout=5))
        assert code is Code.UNKNOWN


async def test_a_client_that_leaves_while_an_interceptor_thinks(engine: str) -> None:
    thinking = asyncio.Event()

    class Thinking(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Onwards, handler_call_details: Any) -> Any:
            if not thinking.is_set():
                thinking.set()
                await asyncio.sleep(0.05)
            return await continuation(handler_call_details)

    async with up(engine, {"interceptors": [Thinking()]}, unary_unary=echo) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"x")
        async with asyncio.timeout(5):
            await asyncio.gather(thinking.wait(), asyncio.sleep(0))
        call.cancel()
        assert await channel.unary_unary("/test/unary_unary")(b"y") == b"y"
