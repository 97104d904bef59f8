"""A server that says, frame by frame, what a test wants it to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import mesh.wire
from mesh.wire import frames
from mesh.wire.channel import WireChannel
from mesh.wire.headers import encode_block
from mesh.wire.messages import encode_message
from tests.unit.wire.core.given import RESPONSE, Frame, data, headers, settings

__all__ = ["OK", "Scripted", "ScriptedConnection", "answer", "scripted", "trailers_only"]

PATIENCE_S = 20.0
OK = ((b"grpc-status", b"0"),)


def answer(stream_id: int, message: bytes = b"answer", trailers: Sequence[tuple[bytes, bytes]] = OK) -> bytes:
    """A whole good response."""
    return (
        headers(stream_id, RESPONSE) + data(stream_id, encode_message(message)) + headers(stream_id, trailers, end=True)
    )


def trailers_only(stream_id: int, status: int, *more: tuple[bytes, bytes]) -> bytes:
    """A response that is nothing but a status."""
    return headers(stream_id, (*RESPONSE, (b"grpc-status", b"%d" % status), *more), end=True)


class ScriptedConnection(asyncio.Protocol):
    """One connection of a client. What it says is kept in `frames`, in order."""

    def __init__(self, server: Scripted) -> None:
        self._server = server
        self._buffer = b""
        self._news = asyncio.Event()
        self._greeted = False
        self.frames: list[Frame] = []
        self.lost = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        self._server.connections.put_nowait(self)
        self._server.every.append(self)
        self.transport.write(self._server.greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._news.set()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        if not self._greeted:
            if len(buffer) < len(frames.PREFACE):
                self._buffer = buffer
                return
            assert buffer.startswith(frames.PREFACE)
            buffer = buffer[len(frames.PREFACE) :]
            self._greeted = True
        while len(buffer) >= 9 and len(buffer) >= 9 + (length := int.from_bytes(buffer[:3], "big")):
            kind, flags, stream_id = buffer[3], buffer[4], int.from_bytes(buffer[5:9], "big")
            self.frames.append(Frame(kind, flags, stream_id, buffer[9 : 9 + length]))
            buffer = buffer[9 + length :]
        self._buffer = buffer
        self._news.set()

    def send(self, *pieces: bytes) -> None:
        """Say something."""
        self.transport.write(b"".join(pieces))

    async def until(self, found: Callable[[list[Frame]], Any]) -> Any:
        """Read until what was read satisfies."""
        async with asyncio.timeout(PATIENCE_S):
            while not (result := found(self.frames)):
                assert not self.lost.is_set(), f"the client is gone; it said {self.frames[-3:]}"
                self._news.clear()
                await self._news.wait()
        return result

    def requests(self) -> list[int]:
        """Streams on which a request has ended."""
        return [one.stream_id for one in self.frames if one.stream_id and self._ends(one)]

    @staticmethod
    def _ends(one: Frame) -> bool:
        return one.kind in (frames.DATA, frames.HEADERS) and bool(one.flags & frames.END_STREAM)

    async def request(self, count: int = 1) -> int:
        """Wait for the so manieth request to be whole; its stream."""
        await self.until(lambda _: len(self.requests()) >= count)
        return self.requests()[count - 1]

    async def frame(self, kind: int, stream_id: int = 0, flags: int = 0) -> Frame:
        """The first frame of a kind on a stream, with some flags."""

        def found(read: list[Frame]) -> Frame | None:
            wanted = (
                one for one in read if (one.kind, one.stream_id) == (kind, stream_id) and one.flags & flags == flags
            )
            return next(wanted, None)

        return await self.until(found)

    async def gone(self) -> None:
        """Wait until the client has hung up."""
        async with asyncio.timeout(PATIENCE_S):
            await self.lost.wait()

    def hang_up(self) -> None:
        """Break the connection."""
        self.transport.abort()


class Scripted:
    """Listens, and keeps the connections that come.

    Args:
        greeting: What every connection is told at once.
    """

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.connections: asyncio.Queue[ScriptedConnection] = asyncio.Queue()
        """Those that were not asked for yet."""
        self.every: list[ScriptedConnection] = []
        self.target = ""
        self.port = 0
        self._listening: asyncio.Server | None = None

    async def listen(self, port: int = 0) -> None:
        """Take connections, at the port it had before where there was one."""
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(
            lambda: ScriptedConnection(self), "127.0.0.1", port or self.port, reuse_address=True
        )
        self.port = self._listening.sockets[0].getsockname()[1]
        self.target = f"127.0.0.1:{self.port}"

    def deaf(self) -> None:
        """Take no more connections."""
        assert self._listening is not None
        self._listening.close()

    async def connection(self) -> ScriptedConnection:
        """The next connection that comes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.connections.get()


SETTLED = settings() + settings(ack=True)


@asynccontextmanager
async def scripted(
    *options: tuple[str, Any], greeting: bytes = SETTLED
) -> AsyncGenerator[tuple[Scripted, WireChannel]]:
    """A scripted server, and a channel to it that tries again quickly."""
    server = Scripted(greeting)
    await server.listen()
    quick = {"grpc.initial_reconnect_backoff_ms": 20, "grpc.max_reconnect_backoff_ms": 50} | dict(options)
    channel = mesh.wire.insecure_channel(server.target, list(quick.items()))
    try:
        yield server, channel
    finally:
        await channel.close()
        server.deaf()
        for connection in server.every:
            connection.hang_up()
            await connection.gone()


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """A header block."""
    return encode_block(fields)
