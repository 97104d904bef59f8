"""What our client does beyond grpc.aio's, or says more clearly, against both servers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import mesh.wire
from tests.unit.wire.client.handlers import Hanging, chat, count, echo, join
from tests.unit.wire.client.pairs import WIRE_CLIENT, Code, pair

pytestmark = WIRE_CLIENT


async def test_initial_metadata_is_there_before_the_response(engines: str) -> None:
    let_go = asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-soon", "yes"),))
        await let_go.wait()
        return b"late"

    async with pair(engines, unary_unary=slow) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")
        assert (await call.initial_metadata())["x-soon"] == "yes"
        assert not call.done()
        let_go.set()
        assert await call == b"late"


@pytest.mark.parametrize("timeout", [0, -1])
async def test_a_deadline_that_has_passed(engines: str, timeout: float) -> None:
    async with pair(engines, unary_unary=echo) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/test/unary_unary")(b"", timeout=timeout)
        assert raised.value.code() is Code.DEADLINE_EXCEEDED


async def test_a_stream_that_nobody_holds_is_cancelled(engines: str) -> None:
    hanging = Hanging()
    async with pair(engines, unary_stream=hanging.stream) as channel:

        async def first() -> Any:
            async for one in channel.unary_stream("/test/unary_stream")(b""):
                return one

        assert await first() == b"one"
        gc.collect()
        async with asyncio.timeout(10):
            await hanging.ended.wait()


async def test_a_cancelled_call_says_so_to_whoever_iterates_or_waits(engines: str) -> None:
    async with pair(engines, stream_stream=chat) as channel:
        call = channel.stream_stream("/test/stream_stream")()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.wait_for_connection()
        with pytest.raises(asyncio.CancelledError):
            _ = [one async for one in call]


async def test_a_unary_call_makes_no_task(engines: str) -> None:
    async with pair(engines, unary_unary=echo) as channel:
        method = channel.unary_unary("/test/unary_unary")
        await method(b"warm")
        made: list[Any] = []

        def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **_: Any) -> asyncio.Task[Any]:
            made.append(coroutine.cr_code.co_filename)
            return asyncio.Task(coroutine, loop=loop)

        loop = asyncio.get_running_loop()
        loop.set_task_factory(make)
        try:
            answer = await method(b"x", timeout=10)
        finally:
            loop.set_task_factory(None)
        assert answer == b"x"
        assert [one for one in made if "client" in one] == []


async def test_a_flood_of_deadlines_leaves_nothing_behind(engines: str) -> None:
    async with pair(engines, unary_unary=echo) as channel:
        method = channel.unary_unary("/test/unary_unary")
        for number in range(50):
            await asyncio.gather(*[method(b"x", timeout=100 + number) for _ in range(10)])
        core: Any = channel._core  # pyright: ignore[reportAttributeAccessIssue]
        assert core.deadlines.held == 0
        assert not core.line


@pytest.mark.parametrize(
    "metadata",
    [
        (("Upper", "x"),),
        (("grpc-mine", "x"),),
        (("k", "\n"),),
        (("k", "ü"),),
        (("", "x"),),
        ((":path", "/elsewhere"),),
        (("connection", "close"),),
    ],
)
async def test_metadata_that_cannot_be_sent_is_refused_by_its_key(engines: str, metadata: Any) -> None:
    async with pair(engines, unary_unary=echo) as channel:
        with pytest.raises(ValueError, match=r"metadata key|value of 'k'"):
            channel.unary_unary("/test/unary_unary")(b"", metadata=metadata)


async def test_what_is_not_supported_is_refused_by_name(engines: str) -> None:
    async with pair(engines, unary_unary=echo, unary_stream=count, stream_unary=join, stream_stream=chat) as channel:
        token = grpc.access_token_call_credentials("secret")
        for method in (
            channel.unary_unary("/test/unary_unary"),
            channel.unary_stream("/test/unary_stream"),
            channel.stream_unary("/test/stream_unary"),
            channel.stream_stream("/test/stream_stream"),
        ):
            made: Any = method
            with pytest.raises(ValueError, match="credentials of a single call"):
                made(b"", credentials=token)
            with pytest.raises(ValueError, match="Deflate"):
                made(b"", compression=grpc.Compression.Deflate)
        with pytest.raises(TypeError, match="bytes, not str"):
            channel.unary_unary("/test/unary_unary")("text")


async def test_after_close_nothing_begins(engines: str) -> None:
    async with pair(engines, unary_unary=echo) as channel:
        method = channel.unary_unary("/test/unary_unary")
        assert await method(b"x") == b"x"
        await channel.close()
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
        with pytest.raises(grpc.aio.UsageError, match=r"Channel is closed\."):
            method(b"x")
        with pytest.raises(grpc.aio.UsageError):
            await channel.channel_ready()
        await channel.close()


async def test_close_cancels_what_is_under_way(engines: str) -> None:
    hanging = Hanging()
    async with pair(engines, unary_unary=hanging.unary, unary_stream=Hanging().stream) as channel:
        call = channel.unary_unary("/test/unary_unary")(b"")
        stream = channel.unary_stream("/test/unary_stream")(b"")
        assert await stream.read() == b"one"
        await hanging.began.wait()
        await channel.close()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(asyncio.CancelledError):
            await stream.read()
        async with asyncio.timeout(10):
            await hanging.ended.wait()


async def test_close_with_grace_lets_calls_end(engines: str) -> None:
    let_go, began = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        began.set()
        await let_go.wait()
        return request

    async with pair(engines, unary_unary=slow) as channel:
        method = channel.unary_unary("/test/unary_unary")
        call = method(b"x")
        await began.wait()
        closing = asyncio.create_task(channel.close(grace=30))
        await asyncio.sleep(0)
        with pytest.raises(grpc.aio.UsageError):
            method(b"y")
        let_go.set()
        assert await call == b"x"
        async with asyncio.timeout(10):
            await closing
        with pytest.raises(ValueError, match="grace"):
            await channel.close(grace=-1)


async def test_a_channel_that_nobody_holds_is_closed(engines: str) -> None:
    hanging = Hanging()
    async with pair(engines, unary_unary=hanging.unary) as channel:
        target: str = channel._core.target.text  # pyright: ignore[reportAttributeAccessIssue]
        other = mesh.wire.insecure_channel(target)
        call = other.unary_unary("/test/unary_unary")(b"")
        await hanging.began.wait()
        del other
        gc.collect()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_large_requests_are_kept_apart_by_flow_control(engines: str) -> None:
    async def sizes(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield b"%d" % len(request)

    async with pair(
        engines, [("grpc.max_receive_message_length", -1)], unary_unary=echo, stream_stream=sizes
    ) as channel:
        chatting = channel.stream_stream("/test/stream_stream")(iter([bytes(1 << 20)] * 20))
        method = channel.unary_unary("/test/unary_unary")
        assert await asyncio.gather(*[method(b"%d" % one) for one in range(50)]) == [b"%d" % one for one in range(50)]
        assert [one async for one in chatting] == [b"1048576"] * 20
