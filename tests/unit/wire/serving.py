"""A real server on a real socket, with handlers that count what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from mesh.testing import ManualClock
from mesh.wire.limits import WireLimits
from mesh.wire.server import WireServer, server
from mesh.wire.server_protocol import ServerProtocol

__all__ = ["Handlers", "Serving", "eventually", "serving"]


class Handlers(grpc.GenericRpcHandler):
    """One method of each cardinality, and some that misbehave."""

    def __init__(self) -> None:
        self.started = 0
        self.running = 0
        self.most_running = 0
        self.cancelled = 0
        self.let_go = asyncio.Event()
        self.context: Any = None
        """That of the last call."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return {
            "/test/echo": unary(self.echo),
            "/test/size": unary(self.size),
            "/test/large": unary(self.large),
            "/test/wait": unary(self.wait),
            "/test/stubborn": unary(self.stubborn),
            "/test/count": stream(self.count),
            "/test/endless": stream(self.endless),
            "/test/join": grpc.stream_unary_rpc_method_handler(self.join),
            "/test/chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "/test/unread": grpc.stream_unary_rpc_method_handler(self.unread),
        }.get(str(handler_call_details.method))

    @asynccontextmanager
    async def _counted(self, context: Any) -> AsyncGenerator[None]:
        self.context = context
        self.started += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            yield
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def echo(self, request: bytes, context: Any) -> bytes:
        async with self._counted(context):
            return request

    async def size(self, request: bytes, context: Any) -> bytes:
        async with self._counted(context):
            return str(len(request)).encode()

    async def large(self, request: bytes, context: Any) -> bytes:
        """As many bytes as were asked for."""
        async with self._counted(context):
            return bytes(int(request))

    async def wait(self, request: bytes, context: Any) -> bytes:
        async with self._counted(context):
            await self.let_go.wait()
            return request

    async def stubborn(self, request: bytes, context: Any) -> bytes:
        """Does not stop when it is told to."""
        async with self._counted(context):
            while not self.let_go.is_set():
                try:
                    await self.let_go.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
            return request

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        async with self._counted(context):
            for number in range(int(request)):
                yield str(number).encode()

    async def endless(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        async with self._counted(context):
            while True:
                yield bytes(int(request))

    async def join(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        async with self._counted(context):
            return b"".join([request async for request in requests])

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async with self._counted(context):
            async for request in requests:
                yield request

    async def unread(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Does not look at its requests until it is let go."""
        async with self._counted(context):
            await self.let_go.wait()
            return b"%d" % len([request async for request in requests])


async def eventually(true: Callable[[], object]) -> None:
    """Let the loop turn until something is true."""
    async with asyncio.timeout(20):
        while True:
            if true():
                return
            await asyncio.sleep(0)


class Serving:
    """A server that is up."""

    def __init__(self, server: WireServer, port: int, handlers: Handlers, clock: ManualClock) -> None:
        self.server = server
        self.port = port
        self.handlers = handlers
        self.clock = clock

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> list[ServerProtocol]:
        """What the server holds of each connection."""
        return list(self.server._shared.connections)  # pyright: ignore[reportPrivateUsage]

    async def pass_time(self, seconds: float) -> None:
        """Move the clock, second by second, as the server looks after its connections."""
        for _ in range(round(seconds)):
            await self.clock.advance(1.0)
            self.server.upkeep.look()


@asynccontextmanager
async def serving(limits: WireLimits | None = None, **given: Any) -> AsyncGenerator[Serving]:
    """A server on a port of its own, with a clock that stands still; `given` goes to `mesh.wire.server`."""
    clock = ManualClock()
    handlers = Handlers()
    made = server(handlers=[handlers], limits=limits, clock=clock.now, **given)
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    try:
        yield Serving(made, port, handlers, clock)
    finally:
        handlers.let_go.set()
        await made.stop(None)
