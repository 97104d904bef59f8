"""A client that writes its frames by hand over a real socket, and reads those of the server by hand."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import cast

from mesh.wire import frames
from mesh.wire.messages import encode_message
from tests.unit.wire.core.given import REQUEST, Frame, data, headers, settings

__all__ = ["RawClient", "raw_client", "request"]

PATIENCE_S = 20.0


def request(stream_id: int, message: bytes = b"", *, path: bytes = b"/test/echo", end: bool = True) -> bytes:
    """A gRPC request of one message."""
    fields = [(name, path if name == b":path" else value) for name, value in REQUEST]
    return headers(stream_id, fields) + data(stream_id, encode_message(message), end=end)


def is_end(one: Frame) -> bool:
    """Whether nothing follows on its stream."""
    if one.kind in (frames.DATA, frames.HEADERS):
        return bool(one.flags & frames.END_STREAM)
    return one.kind == frames.RST_STREAM


class RawClient(asyncio.Protocol):
    """One connection. What comes is kept in `frames`, in order; `lost` is done when the connection is gone."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writable = asyncio.Event()
        self.writable.set()
        self._buffer = b""
        self._news = asyncio.Event()
        self._next_id = 1_000_001  # above those that a test uses
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is of no class of asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        self._news.set()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        while len(buffer) >= 9 and len(buffer) >= 9 + (length := int.from_bytes(buffer[:3], "big")):
            kind, flags, stream_id = buffer[3], buffer[4], int.from_bytes(buffer[5:9], "big")
            self.frames.append(Frame(kind, flags, stream_id, buffer[9 : 9 + length]))
            buffer = buffer[9 + length :]
        self._buffer = buffer
        self._news.set()

    async def send(self, *pieces: bytes) -> None:
        """Write, and wait while the server does not take it."""
        self.transport.write(b"".join(pieces))
        async with asyncio.timeout(PATIENCE_S):
            await self.writable.wait()

    async def until(self, found: Callable[[list[Frame]], bool]) -> list[Frame]:
        """Read until what was read satisfies, or the connection is gone."""
        async with asyncio.timeout(PATIENCE_S):
            while not found(self.frames) and not self.lost.done():
                self._news.clear()
                await self._news.wait()
        return self.frames

    async def frame(self, kind: int, stream_id: int = 0) -> Frame:
        """The first frame of a kind on a stream."""
        await self.until(lambda read: any(one.kind == kind and one.stream_id == stream_id for one in read))
        found = [one for one in self.frames if one.kind == kind and one.stream_id == stream_id]
        assert found, f"the connection is gone; it said {self.frames[-3:]}"
        return found[0]

    async def ended(self, stream_id: int) -> list[Frame]:
        """All frames of a stream that has ended, in whatever way."""
        await self.until(lambda read: any(one.stream_id == stream_id and is_end(one) for one in read))
        found = [one for one in self.frames if one.stream_id == stream_id]
        assert any(map(is_end, found)), f"the connection is gone; it said {self.frames[-3:]}"
        return found

    async def ask(self, message: bytes = b"hello", path: bytes = b"/test/echo") -> bytes:
        """A whole unary call; the answer's message behind its prefix."""
        stream_id, self._next_id = self._next_id, self._next_id + 2
        await self.send(request(stream_id, message, path=path))
        answered = await self.ended(stream_id)
        return b"".join(one.payload for one in answered if one.kind == frames.DATA)[5:]

    async def gone(self) -> None:
        """Wait until the server has hung up."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self.lost)

    def goaway(self) -> Frame | None:
        """The last GOAWAY."""
        found = [one for one in self.frames if one.kind == frames.GOAWAY]
        return found[-1] if found else None


@asynccontextmanager
async def raw_client(
    place: int | str, *, hello: bool = True, tls: ssl.SSLContext | None = None, greeting: bytes = b""
) -> AsyncGenerator[RawClient]:
    """Connect to a port or a unix path and, unless told otherwise, say hello."""
    loop = asyncio.get_running_loop()
    if isinstance(place, int):
        host = "localhost" if tls else None
        _, client = await loop.create_connection(RawClient, "127.0.0.1", place, ssl=tls, server_hostname=host)
    else:
        _, client = await loop.create_unix_connection(RawClient, place)
    if hello:
        await client.send(frames.PREFACE, greeting or settings(), settings(ack=True))
        await client.frame(frames.SETTINGS)
    try:
        yield client
    finally:
        client.transport.abort()
        await client.gone()
