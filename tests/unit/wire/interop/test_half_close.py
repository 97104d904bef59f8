"""Who ends first: the client's half, the server's half, both at once; and ends without a head, which are trailers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.unit.wire.interop.matrix import KINDS, Code, as_grpcio, ask, ending, handler, pair

STREAMS_IN = ["stream_unary", "stream_stream"]


async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


@pytest.mark.parametrize("kind", STREAMS_IN)
@as_grpcio
async def test_the_client_ends_before_it_has_said_anything(engines: str, kind: str) -> Any:
    async with pair(engines, **handler(kind, echo)) as channel:
        call = getattr(channel, kind)(f"/test/{kind}")()
        await call.done_writing()
        return await ending(call)


@pytest.mark.parametrize("kind", STREAMS_IN)
@as_grpcio
async def test_the_client_ends_and_the_server_goes_on(engines: str, kind: str) -> Any:
    async def after(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        heard = [request async for request in requests]
        for number in range(50):
            yield b"%d of %d" % (number, len(heard))

    async with pair(engines, **handler(kind, after)) as channel:
        call = getattr(channel, kind)(f"/test/{kind}")()
        await call.write(b"one")
        await call.done_writing()
        return await ending(call)


@pytest.mark.parametrize("code", [Code.OK, Code.ABORTED])
@pytest.mark.parametrize("kind", STREAMS_IN)
@as_grpcio
async def test_the_server_ends_first(engines: str, kind: str, code: grpc.StatusCode) -> Any:
    async def early(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        context.set_code(code)
        yield b"enough"

    async with pair(engines, **handler(kind, early)) as channel:
        call = getattr(channel, kind)(f"/test/{kind}")()
        found = await ending(call)
        # What is said to nobody is told to whoever says it.
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"late")
        await call.done_writing()
        after = await ending(ask(channel, kind))
    return found, after


@pytest.mark.parametrize("kind", STREAMS_IN)
@as_grpcio
async def test_the_server_ends_first_and_the_client_ends_then(engines: str, kind: str) -> Any:
    async def one(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
            return

    async with pair(engines, **handler(kind, one)) as channel:
        call = getattr(channel, kind)(f"/test/{kind}")()
        await call.write(b"one")
        found = await ending(call)
        await call.done_writing()
        return found, await call.code()


@as_grpcio
async def test_both_talk_at_once_and_end_by_themselves(engines: str) -> Any:
    heard: list[bytes] = []
    over = asyncio.Event()

    async def talk(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async def listen() -> None:
            async for request in requests:
                heard.append(request)  # noqa: PERF401
            over.set()

        listening = asyncio.ensure_future(listen())
        for number in range(100):
            yield b"%d" % number
        await listening

    async with pair(engines, **handler("stream_stream", talk)) as channel:
        found = await ending(ask(channel, "stream_stream", [b"%d" % number for number in range(100)]))
        await over.wait()
    assert len(heard) == 100
    return found, heard


@as_grpcio
async def test_the_server_speaks_first(engines: str) -> Any:
    async def greet(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield b"hello"
        async for request in requests:
            yield request

    async with pair(engines, **handler("stream_stream", greet)) as channel:
        call = channel.stream_stream("/test/stream_stream")()
        first = await call.read()
        await call.write(b"and you")
        second = await call.read()
        await call.done_writing()
        return first, second, await call.read() is grpc.aio.EOF, await call.code()


@pytest.mark.parametrize("code", [Code.OK, Code.NOT_FOUND])
@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
@as_grpcio
async def test_no_answer_at_all(engines: str, kind: str, code: grpc.StatusCode) -> Any:
    async def silent(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        context.set_code(code)
        context.set_trailing_metadata((("x-last", "1"),))
        async for _ in requests:
            pass
        return
        yield b""

    async with pair(engines, **handler(kind, silent)) as channel:
        found = await ending(ask(channel, kind))
    assert (found.messages, found.code, found.trailing) == ((), code, (("x-last", "1"),))
    return found


@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_trailers_alone(engines: str, kind: str) -> Any:
    async def refuse(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            pass
        await context.abort(Code.RESOURCE_EXHAUSTED, "not now", (("x-last", "1"), ("x-last-bin", b"\0")))
        yield b""

    async with pair(engines, **handler(kind, refuse)) as channel:
        call = ask(channel, kind)
        head = tuple(await call.initial_metadata())
        found = await ending(call)
    assert (head, found.initial) == ((), ())
    return found
