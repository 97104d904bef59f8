"""gzip both ways: on a channel, a call, a server, an answer. What the wire carries is counted between the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.unit.wire.client.pairs import CLIENTS, service
from tests.unit.wire.interop.matrix import KINDS, STREAMED, as_grpcio, ask, ending, handler

MESSAGE = b"again and again " * 6_250
"""100 kB that become less than one."""
SMALL = 20_000
GZIP = grpc.Compression.Gzip


class Counted:
    """Bytes that went either way."""

    def __init__(self) -> None:
        self.up = self.down = 0

    def compressed(self) -> tuple[bool, bool]:
        return self.up < SMALL, self.down < SMALL


@asynccontextmanager
async def counted(target: str) -> AsyncGenerator[tuple[str, Counted]]:
    """Stand between a client and a server, and count."""
    found = Counted()
    host, _, port = target.rpartition(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        while data := await reader.read(65_536):
            setattr(found, way, getattr(found, way) + len(data))
            writer.write(data)
            await writer.drain()
        writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(copy(reader, far_writer, "up"), copy(far_reader, writer, "down"))
        except ConnectionError:
            pass  # a side that hangs up without a word ends both
        finally:
            far_writer.close()
            writer.close()

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", found


async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def compressing(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    context.set_compression(GZIP)
    async for request in requests:
        yield request


async def next_one_plain(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    context.set_compression(GZIP)
    context.disable_next_message_compression()
    async for request in requests:
        yield request


@asynccontextmanager
async def through(engines: str, channel: dict[str, Any], **handlers: Any) -> AsyncGenerator[tuple[Any, Counted]]:
    client, _, server = engines.partition(" to ")
    async with (
        service(server, **handlers) as target,
        counted(target) as (front, found),
        CLIENTS[client](front, **channel) as made,
    ):
        yield made, found


@pytest.mark.parametrize("where", ["channel", "call", "nowhere"])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_requests(engines: str, kind: str, where: str) -> Any:
    on_channel = {"compression": GZIP} if where == "channel" else {}
    on_call = {"compression": GZIP} if where == "call" else {}
    async with through(engines, on_channel, **handler(kind, echo)) as (channel, found):
        ended = await ending(ask(channel, kind, [MESSAGE], **on_call))
        assert ended.messages == (MESSAGE,)
        assert found.compressed() == (where != "nowhere", False)
        return ended, found.compressed()


@pytest.mark.parametrize("behave", [compressing, next_one_plain], ids=["all", "not the next"])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_responses(engines: str, kind: str, behave: Any) -> Any:
    async with through(engines, {}, **handler(kind, behave)) as (channel, found):
        ended = await ending(ask(channel, kind, [MESSAGE]))
        assert ended.messages == (MESSAGE,)
        # grpcio's server does not compress the answer of a call that has one; ours does what its handler asked for.
        if kind in STREAMED or engines.endswith("wire"):
            assert found.compressed() == (False, behave is compressing)
        return ended


@pytest.mark.parametrize("size", [0, 1, 100_000])
@pytest.mark.parametrize("kind", KINDS)
@as_grpcio
async def test_both_at_once(engines: str, kind: str, size: int) -> Any:
    async with through(engines, {"compression": GZIP}, **handler(kind, compressing)) as (channel, found):
        ended = await ending(ask(channel, kind, [MESSAGE[:size], MESSAGE[:size]]))
        assert set(ended.messages) == {MESSAGE[:size]}
        assert found.compressed()[0]
        return ended
