"""grpc.aio's client interceptors: every test holds of both clients against both servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import mesh.wire
from tests.unit.wire.client.handlers import Hanging, chat, count, echo, join
from tests.unit.wire.client.pairs import ALL, Code, pair

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
BASES: dict[str, Any] = {
    "unary_unary": grpc.aio.UnaryUnaryClientInterceptor,
    "unary_stream": grpc.aio.UnaryStreamClientInterceptor,
    "stream_unary": grpc.aio.StreamUnaryClientInterceptor,
    "stream_stream": grpc.aio.StreamStreamClientInterceptor,
}
HANDLERS: dict[str, Any] = {"unary_unary": echo, "unary_stream": count, "stream_unary": join, "stream_stream": chat}


def interceptor(kind: str, intercept: Any) -> Any:
    """An interceptor of one kind, made of a function."""

    async def method(self: Any, continuation: Any, details: Any, request: Any) -> Any:
        return await intercept(continuation, details, request)

    return type(f"Of{kind}", (BASES[kind],), {f"intercept_{kind}": method})()


def given(*interceptors: Any) -> dict[str, Any]:
    return {"interceptors": interceptors}


async def ask(channel: Any, kind: str, metadata: Any = None) -> Any:
    """A whole call of one cardinality; everything that it answers."""
    method = getattr(channel, kind)(f"/test/{kind}")
    call = method(b"2" if kind.startswith("unary") else iter([b"1", b"2"]), metadata=metadata)
    return [one async for one in call] if kind.endswith("stream") else await call


@ALL
@pytest.mark.parametrize("kind", KINDS)
async def test_interceptors_are_asked_in_order_and_only_those_of_the_kind(engines: str, kind: str) -> None:
    seen: list[Any] = []

    def noting(kind: str, name: str) -> Any:
        async def note(continuation: Any, details: Any, request: Any) -> Any:
            seen.append((name, details.method, details.timeout))
            return await continuation(details, request)

        return interceptor(kind, note)

    every = [noting(one, f"{name} {one}") for name in ("first", "second") for one in KINDS]
    async with pair(engines, channel=given(*every), **HANDLERS) as channel:
        await ask(channel, kind)
        path = f"/test/{kind}".encode()
        assert seen == [(f"first {kind}", path, None), (f"second {kind}", path, None)]


@ALL
@pytest.mark.parametrize("kind", KINDS)
async def test_an_interceptor_changes_what_is_sent(engines: str, kind: str) -> None:
    seen: list[Any] = []

    async def change(continuation: Any, details: Any, request: Any) -> Any:
        details.metadata.add("added", "yes")
        return await continuation(details._replace(method=b"/test/other_" + kind.encode(), timeout=50), request)

    def noting(handler: Any) -> Any:
        def called(request: Any, context: Any) -> Any:
            seen.append((dict(context.invocation_metadata()).get("added"), round(context.time_remaining())))
            return handler(request, context)

        async def answered(request: Any, context: Any) -> Any:
            return await called(request, context)

        async def streamed(request: Any, context: Any) -> Any:
            async for one in called(request, context):
                yield one

        return streamed if kind.endswith("stream") else answered

    handlers = {f"other_{kind}": noting(HANDLERS[kind])}
    async with pair(engines, channel=given(interceptor(kind, change)), **handlers) as channel:
        await ask(channel, kind, metadata=(("k", "v"),))
        assert seen == [("yes", 50)]


@ALL
async def test_an_interceptor_waits_before_and_looks_after(engines: str) -> None:
    seen: list[Any] = []

    async def around(continuation: Any, details: Any, request: Any) -> Any:
        await asyncio.sleep(0)
        call = await continuation(details, request + b"!")
        seen.append(await call)
        seen.append(await call.code())
        return call

    async with pair(engines, channel=given(interceptor("unary_unary", around)), unary_unary=echo) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"x")
        assert not call.done()
        assert await call == b"x!"
        assert await call == b"x!"
        assert seen == [b"x!", Code.OK]
        assert call.done()
        assert not call.cancelled()
        assert await call.details() == ""
        assert tuple(await call.initial_metadata()) == ()


@ALL
async def test_an_interceptor_answers_by_itself(engines: str) -> None:
    async def answer(continuation: Any, details: Any, request: Any) -> Any:
        return b"mine"

    async def answers(continuation: Any, details: Any, request: Any) -> Any:
        await continuation(details, request)

        async def mine() -> AsyncIterator[bytes]:
            yield b"my"
            yield b"own"

        return mine()

    chain = (interceptor("unary_unary", answer), interceptor("unary_stream", answers))
    async with pair(engines, channel=given(*chain), **HANDLERS) as channel:
        call = channel.unary_unary("/test/nothing")(b"x")
        assert await call == b"mine"
        assert await call.code() is Code.OK
        assert await ask(channel, "unary_stream") == [b"my", b"own"]


@ALL
async def test_an_interceptor_tries_again(engines: str) -> None:
    attempts = 0

    async def flaky(request: bytes, context: Any) -> bytes:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            await context.abort(Code.ABORTED, "not yet")
        return b"%d" % attempts

    async def again(continuation: Any, details: Any, request: Any) -> Any:
        while True:
            call = await continuation(details, request)
            if await call.code() is not Code.ABORTED:
                return call

    async with pair(engines, channel=given(interceptor("unary_unary", again)), unary_unary=flaky) as channel:
        assert await channel.unary_unary("/test/unary_unary")(b"") == b"3"


@ALL
async def test_errors_come_through(engines: str) -> None:
    async def plain(continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)

    async def refuse(continuation: Any, details: Any, request: Any) -> Any:
        raise grpc.aio.AioRpcError(Code.PERMISSION_DENIED, grpc.aio.Metadata(), grpc.aio.Metadata(), "not you")

    for intercept, code in ((plain, Code.UNIMPLEMENTED), (refuse, Code.PERMISSION_DENIED)):
        chain = [interceptor(kind, intercept) for kind in KINDS]
        async with pair(engines, channel=given(*chain)) as channel:
            for kind in ("unary_unary", "unary_stream"):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await ask(channel, kind)
                assert raised.value.code() is code
            call = channel.unary_unary("/test/unary_unary")(b"")
            assert await call.code() is code
            assert call.done()


@ALL
async def test_requests_are_written_through_interceptors(engines: str) -> None:
    async def shout(continuation: Any, details: Any, requests: Any) -> Any:
        async def louder() -> AsyncIterator[bytes]:
            async for one in requests:
                yield one + b"!"

        return await continuation(details, louder())

    chain = (interceptor("stream_unary", shout), interceptor("stream_stream", shout))
    async with pair(engines, channel=given(*chain), **HANDLERS) as channel:
        call = channel.stream_unary("/test/stream_unary")()
        await call.write(b"a")
        await call.write(b"b")
        await call.done_writing()
        assert await call == b"a!b!"
        talk = channel.stream_stream("/test/stream_stream")()
        for word in (b"one", b"two"):
            await talk.write(word)
            assert await talk.read() == word + b"!"
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
        with pytest.raises(asyncio.InvalidStateError):
            await talk.write(b"late")
        with pytest.raises(grpc.aio.UsageError):
            await channel.stream_unary("/test/stream_unary")(iter([b"x"])).write(b"y")


@ALL
async def test_cancelling_before_and_after_the_call_is_made(engines: str) -> None:
    let_go, hanging = asyncio.Event(), Hanging()

    async def wait(continuation: Any, details: Any, request: Any) -> Any:
        await let_go.wait()
        return await continuation(details, request)

    async with pair(engines, channel=given(interceptor("unary_unary", wait)), unary_unary=hanging.unary) as channel:
        method = channel.unary_unary("/test/unary_unary")
        early = method(b"")
        await asyncio.sleep(0)
        assert early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early
        assert early.cancelled()
        assert await early.code() is Code.CANCELLED
        let_go.set()
        late = method(b"")
        await hanging.began.wait()
        assert late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert late.cancelled()
        async with asyncio.timeout(10):
            await hanging.ended.wait()


@ALL
async def test_callbacks_are_given_the_intercepted_call(engines: str) -> None:
    async def plain(continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)

    async with pair(engines, channel=given(interceptor("unary_unary", plain)), unary_unary=echo) as channel:
        told: asyncio.Queue[Any] = asyncio.Queue()
        call = channel.unary_unary("/test/unary_unary")(b"x")
        call.add_done_callback(told.put_nowait)
        assert await call == b"x"
        assert await told.get() is call
        call.add_done_callback(told.put_nowait)
        assert await told.get() is call


async def test_what_is_no_interceptor_is_refused() -> None:
    wrong: Any = object()
    with pytest.raises(ValueError, match="four kinds"):
        mesh.wire.insecure_channel("localhost:1", interceptors=[wrong])
