"""What real peers say: the bytes of grpcio's client and of its server, both ways of one connection.

No binary metadata is among it: by a setting of their own, the two send it to each other as no field may be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

__all__ = ["Recording", "record"]


@dataclass(frozen=True)
class Recording:
    """One connection of grpcio's client to grpcio's server."""

    by_client: bytes
    by_server: bytes


class _Handlers(grpc.GenericRpcHandler):
    def service(self, handler_call_details: Any) -> Any:
        async def echo(request: bytes, context: Any) -> bytes:
            context.set_trailing_metadata((("trailing", "x"), ("other", "y")))
            return request

        async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
            await context.send_initial_metadata((("initial", "y"),))
            for number in range(5):
                yield b"%d" % number

        async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield request

        async def fail(request: bytes, context: Any) -> bytes:
            await context.abort(grpc.StatusCode.NOT_FOUND, "käse % fehlt")
            return b""

        return {
            "/s/echo": grpc.unary_unary_rpc_method_handler(echo),
            "/s/fail": grpc.unary_unary_rpc_method_handler(fail),
            "/s/count": grpc.unary_stream_rpc_method_handler(count),
            "/s/chat": grpc.stream_stream_rpc_method_handler(chat),
        }.get(handler_call_details.method)


async def _calls(channel: grpc.aio.Channel) -> None:
    echo = channel.unary_unary("/s/echo")
    for _ in range(3):
        await echo(b"hello", timeout=30, metadata=(("a", "b"), ("c", "d" * 50)))
    await echo(bytes(16_000), compression=grpc.Compression.Gzip)
    await echo(gzip.compress(bytes(range(256)) * 200))
    for path in ("/s/fail", "/s/none"):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await channel.unary_unary(path)(b"x")
    assert [one async for one in channel.unary_stream("/s/count")(b"")] == [b"%d" % number for number in range(5)]
    chat = channel.stream_stream("/s/chat")()
    for number in range(3):
        await chat.write(b"%d" % number)
        assert await chat.read() == b"%d" % number
    await chat.done_writing()
    assert await chat.read() == grpc.aio.EOF
    left = channel.stream_stream("/s/chat")()
    await left.write(b"x")
    await left.read()
    left.cancel()


async def record() -> Recording:
    """Have grpcio talk to itself through us."""
    heard: dict[bool, bytearray] = {True: bytearray(), False: bytearray()}
    server = grpc.aio.server(handlers=[_Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, by_client: bool) -> None:
        # Either side may be gone before what the other says last has come through.
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                heard[by_client] += data
                writer.write(data)

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        pumps.append(asyncio.create_task(pump(reader, there[1], True)))
        pumps.append(asyncio.create_task(pump(there[0], writer, False)))

    proxy = await asyncio.start_server(between, "127.0.0.1", 0)
    place = proxy.sockets[0].getsockname()[1]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{place}") as channel:
        await _calls(channel)
    await server.stop(None)
    await asyncio.wait(pumps, timeout=5)
    proxy.close()
    await proxy.wait_closed()
    return Recording(bytes(heard[True]), bytes(heard[False]))
