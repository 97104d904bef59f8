"""`ServerProtocol`: one connection of a server, between asyncio's transport and the sans-I/O core."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from mesh.wire import dispatch
from mesh.wire.connection import Connection
from mesh.wire.credentials import auth_context
from mesh.wire.events import (
    DataReceived,
    HeadReceived,
    PingAnswered,
    StreamReset,
    Terminated,
    TrailersReceived,
    WindowOpened,
)
from mesh.wire.faults import ErrorCode
from mesh.wire.headers import encode_block
from mesh.wire.limits import WireLimits
from mesh.wire.messages import MessageError
from mesh.wire.metadata import parse_timeout
from mesh.wire.options import ServerOptions
from mesh.wire.routes import Route, Routes
from mesh.wire.server_call import ServerCall

__all__ = ["ServerProtocol", "Shared"]

DRAIN_PING = b"drain..."


class Shared:
    """What the connections of one server have in common."""

    def __init__(self, options: ServerOptions, limits: WireLimits, *, compress: bool, max_calls: int | None) -> None:
        self.options = options
        self.limits = limits
        self.compress = compress
        self.max_calls = max_calls
        self.routes = Routes(intercepted=False)
        self.interceptors: tuple[Any, ...] = ()
        self.calls = 0
        self.connections: set[ServerProtocol] = set()
        self.idle: Callable[[], None] = lambda: None
        """Called whenever the last call of the server, or the last connection, is gone."""


class ServerProtocol(asyncio.Protocol):
    """Bytes to calls, and calls' answers to one write per loop turn."""

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        self.shared = shared
        self.loop = loop
        self.options = shared.options
        self.compress = shared.compress
        self.connection = Connection(client=False, limits=shared.limits)
        self.calls: dict[int, ServerCall] = {}
        self.paused = False
        self.peer = "unknown"
        self.auth_context: dict[str, list[bytes]] = {}
        self.opened_at = loop.time()
        self.heard_at = self.opened_at
        self.pinged_at: float | None = None
        self.draining = False
        self._transport: asyncio.Transport | None = None
        self._flush_planned = False
        self._readers: dict[type, Callable[[Any], None]] = {
            HeadReceived: self._on_head,
            DataReceived: self._on_data,
            TrailersReceived: self._on_trailers,
            StreamReset: self._on_reset,
            WindowOpened: self._on_window,
            PingAnswered: self._on_ping,
            Terminated: self._on_terminated,
        }

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.peer = _told(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        self.auth_context = auth_context(transport)
        self.shared.connections.add(self)
        self.connection.start()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Everything that these bytes mean, then one write."""
        self.heard_at = self.loop.time()
        readers = self._readers
        for event in self.connection.receive(data):
            reader = readers.get(type(event))
            if reader is not None:
                reader(event)
        self._flush()

    def eof_received(self) -> bool:
        """The client closed its side: calls in flight cannot be answered any more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Every call's client is gone."""
        self._transport = None
        for call in list(self.calls.values()):
            call.cancel()
        self.shared.connections.discard(self)
        self.shared.idle()

    def pause_writing(self) -> None:
        """The client does not read: neither do we, or its requests would make us hold ever more answers."""
        self.paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """There is room again."""
        self.paused = False
        self.connection.sender.drained()
        if self._transport is not None:
            self._transport.resume_reading()
        for call in list(self.calls.values()):
            call.wake_writer()

    # Writing: once a loop turn, however many calls have something to say.

    def flush_soon(self) -> None:
        """Write before the loop waits again."""
        if not self._flush_planned:
            self._flush_planned = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        transport = self._transport
        if transport is None:
            return
        out = self.connection.take()
        if out:
            transport.write(out)
        if not transport.get_write_buffer_size():
            self.connection.sender.drained()
        if self.connection.terminated or (self.draining and not self.calls and not self.connection.streams):
            transport.close()

    # Draining.

    def drain(self) -> None:
        """Take no new calls: announce it, and say so for good once everything that was on its way is here (6.8)."""
        if not self.draining and self._transport is not None:
            self.draining = True
            if self.calls or self.connection.streams:
                self.connection.warn_away()
                self.connection.ping(DRAIN_PING)
            else:
                self.connection.go_away()
            self._flush()

    def abort(self) -> None:
        """End every call as UNAVAILABLE, and hang up."""
        for call in list(self.calls.values()):
            call.cancel(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def forget(self, call: ServerCall) -> None:
        """A call is over."""
        if self.calls.pop(call.stream_id, None) is not None:
            self.shared.calls -= 1
            if self.shared.calls == 0:
                self.shared.idle()
            if self.draining:
                self.flush_soon()

    # Events.

    def _on_head(self, event: HeadReceived) -> None:
        route = self.shared.routes.read(event.headers)
        if route.http_status:
            block = encode_block([(b":status", route.http_status), (b"content-length", b"0")])
            self.connection.send_head(event.stream_id, block, end=True)
            if not event.end:
                self.connection.reset(event.stream_id, ErrorCode.NO_ERROR)
            return
        timeout_s = route.timeout_s
        problem = route.problem
        if event.timeout is not None:
            timeout_s = parse_timeout(event.timeout)
            if timeout_s is None:
                problem = (grpc.StatusCode.INTERNAL, "grpc-timeout is not well formed")
        call = ServerCall(self, event.stream_id, route, timeout_s)
        self.calls[event.stream_id] = call
        self.shared.calls += 1
        call.received_end = event.end
        most = self.shared.max_calls
        if most is not None and self.shared.calls > most:
            problem = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
        if problem is not None:
            call.finish(*problem)
        elif self.shared.interceptors:
            self._intercepted(call)
        else:
            self._begin(call, route.handler)

    def _intercepted(self, call: ServerCall) -> None:
        # The one case in which finding the handler may wait: a task of its own, and data is kept meanwhile.
        call.streams_in = True

        async def find() -> None:
            try:
                handler = await _through(self.shared, call.route)
            except Exception as error:
                call.finish(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
            else:
                self._begin(call, handler)

        task = self.loop.create_task(find())

        def leave(_: Any) -> None:
            task.cancel()

        call.add_done_callback(leave)

    def _begin(self, call: ServerCall, handler: Any) -> None:
        if call.over:
            return
        if handler is None:
            call.finish(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            return
        call.handler = handler
        call.streams_in = handler.request_streaming
        if dispatch.ready_to_start(call):
            dispatch.start(call)

    def _on_data(self, event: DataReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is None:
            self.connection.acknowledge(event.stream_id, event.flow_bytes)
            return
        try:
            call.receive(event.data, event.flow_bytes)
        except MessageError as error:
            call.finish(error.code, error.text)
            if call.task is not None:
                call.task.cancel()
            return
        if event.end:
            self._ended(call)

    def _on_trailers(self, event: TrailersReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            self._ended(call)

    def _ended(self, call: ServerCall) -> None:
        call.receive_end()
        if call.task is None and call.handler is not None:
            dispatch.start(call)

    def _on_reset(self, event: StreamReset) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.cancel()

    def _on_window(self, event: WindowOpened) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.wake_writer()

    def _on_ping(self, event: PingAnswered) -> None:
        self.pinged_at = None
        if event.payload == DRAIN_PING and self.draining:
            self.connection.go_away()

    def _on_terminated(self, event: Terminated) -> None:
        for call in list(self.calls.values()):
            call.cancel()


async def _through(shared: Shared, route: Route) -> Any:
    """The handler that the interceptors let through."""

    async def ask(index: int, details: Any) -> Any:
        if index == len(shared.interceptors):
            return shared.routes.find(details)

        async def onwards(changed: Any) -> Any:
            return await ask(index + 1, changed)

        return await shared.interceptors[index].intercept_service(onwards, details)

    return await ask(0, route.details)


def _told(peer: Any, local: Any) -> str:
    """An address as grpcio tells it: `ipv4:127.0.0.1:5000`, `ipv6:[::1]:5000`, `unix:`."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        host, port = str(peer[0]), int(peer[1])
        return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
    return f"unix:{local}" if isinstance(local, str) else "unix:"
