"""`ServerProtocol`: one connection of a server, between asyncio's transport and the sans-I/O core."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import grpc

import mesh.wire.dispatch as dispatch
from mesh.wire.connection import Connection
from mesh.wire.credentials import ALPN, auth_context
from mesh.wire.events import (
    DataReceived,
    HeadReceived,
    PingAnswered,
    RequestReceived,
    StreamReset,
    Terminated,
    TrailersReceived,
    WindowOpened,
)
from mesh.wire.frames import PREFIX_SIZE
from mesh.wire.messages import MessageError
from mesh.wire.metadata import parse_timeout
from mesh.wire.plain import PlainRequests
from mesh.wire.routes import Route
from mesh.wire.server_call import ServerCall
from mesh.wire.server_shared import Shared, told_address
from mesh.wire.upkeep import Progress

__all__ = ["ServerProtocol"]

log = logging.getLogger("mesh.wire")
DRAIN_PING = b"drain..."
LARGE_BYTES = 128 << 10
"""From here on, what is written is handed over in pieces: to put them together costs more."""
TAKEN_BYTES = 16 << 10
"""Consumed bytes that are acknowledged together. The least of windows has room for as many beside the half of it of
which a client hears nothing."""
LARGE_PIECE_BYTES = 4 << 10
GOODBYE_S = 0.2
"""How often a connection that is closing is asked whether all was written."""


class ServerProtocol(asyncio.Protocol):
    """Bytes to calls, and calls' answers to one write per loop turn."""

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        self.shared = shared
        self.loop = loop
        self.options = shared.options
        self.compress = shared.compress
        self.connection = Connection(client=False, limits=shared.limits, joins=True, clock=shared.clock)
        self.plain = PlainRequests(self.connection)
        self.calls: dict[int, ServerCall] = {}
        self.paused = False
        self.peer = "unknown"
        self.auth_context: dict[str, list[bytes]] = {}
        self.held_bytes = 0
        self.opened_at = self.heard_at = shared.clock()
        self.age_factor = random.uniform(0.9, 1.1)
        self.pinged_at: float | None = None
        self.draining_at: float | None = None
        self.reading = Progress()
        self.writing = Progress()
        self._unstarted: list[ServerCall] = []
        """Calls with a deadline that this read has begun and whose requests may not be whole."""
        self._taken = 0
        """Bytes of whole requests that are not acknowledged yet."""
        self._written = 0
        self._closing = False
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
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no class of asyncio's
        self.peer = told_address(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        self.shared.connections.add(self)
        secured = transport.get_extra_info("ssl_object")
        if self.shared.is_crowded():
            self.cut()
            return
        if secured is not None and secured.selected_alpn_protocol() != ALPN:
            log.warning("%s is turned away: it did not agree on HTTP/2 by ALPN (RFC 9113, 3.2)", self.peer)
            self.cut()
            return
        self.auth_context = auth_context(transport)
        self.connection.start()
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Everything that these bytes mean, then one write."""
        self.heard_at = self.shared.clock()
        self._flush_planned = True  # below
        readers = self._readers
        for event in self.connection.receive(data):
            if type(event) is RequestReceived:
                self._on_request(event)
            elif (reader := readers.get(type(event))) is not None:
                reader(event)
        if self._taken >= TAKEN_BYTES:
            self.connection.acknowledge(0, self._taken)
            self._taken = 0
        if self._unstarted:
            for call in self._unstarted:
                if not call.over:
                    call.arm()
            self._unstarted.clear()
        self.flush()

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
        if self._transport is not None:
            self.connection.sender.drained(self._transport.get_write_buffer_size())
            self._transport.resume_reading()
        for call in list(self.calls.values()):
            call.wake_writer()

    # Writing: once a loop turn, however many calls have something to say.

    def flush_soon(self) -> None:
        """Write before the loop waits again."""
        if not self._flush_planned:
            self._flush_planned = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write now."""
        self._flush_planned = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        connection = self.connection
        sender = connection.sender
        if sender.out:
            # Pieces that are small on average, of many calls, are better put together however many there are.
            apart = sender.unwritten > max(LARGE_BYTES, LARGE_PIECE_BYTES * len(sender.out))
            pieces = connection.take_pieces()
            if apart:
                transport.writelines(pieces)
                self._written += sum(map(len, pieces))
            else:
                out = b"".join(pieces)
                transport.write(out)
                self._written += len(out)
            sender.drained(transport.get_write_buffer_size())
        if connection.terminated or (self.draining_at is not None and not self.busy):
            self._hang_up()

    @property
    def written_bytes(self) -> int:
        """Bytes that the operating system has taken."""
        return self._written - (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    @property
    def busy(self) -> bool:
        """Whether there is a call, or an answer that waits for its client."""
        return bool(self.calls or self.connection.streams)

    def _hang_up(self) -> None:
        """Close; what was written still goes out, if the client takes it soon."""
        transport = self._transport
        if transport is not None and not self._closing:
            self._closing = True
            if not transport.is_closing():
                transport.close()
            self.loop.call_later(GOODBYE_S, self._linger, self.loop.time() + self.shared.limits.linger_s)

    def _linger(self, until: float) -> None:
        """Once all is written, nobody waits for the client to close (under TLS, that would take a word of its own)."""
        transport = self._transport
        if transport is None:
            return
        if self.loop.time() >= until or not transport.get_write_buffer_size():
            transport.abort()
        else:
            self.loop.call_later(GOODBYE_S, self._linger, until)

    def cut(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def keep_alive(self, payload: bytes) -> None:
        """Ask the client for a sign of life."""
        self.pinged_at = self.shared.clock()
        self.connection.ping(payload)
        self.flush()

    # Draining.

    def drain(self) -> None:
        """Take no new calls: announce it, and say so for good once everything that was on its way is here (6.8)."""
        if self.draining_at is None and self._transport is not None:
            self.draining_at = self.shared.clock()
            if self.busy:
                self.connection.warn_away()
                self.connection.ping(DRAIN_PING)
            else:
                self.connection.go_away()
            self.flush()

    def abort(self) -> None:
        """End every call as UNAVAILABLE, and hang up."""
        for call in list(self.calls.values()):
            call.cancel(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        self.connection.go_away()
        self.flush()
        self._hang_up()

    def forget(self, stream_id: int) -> None:
        """A call is over."""
        if self.calls.pop(stream_id, None) is not None:
            self.shared.calls -= 1
            if self.shared.calls == 0:
                self.shared.idle()
            if self.draining_at is not None:
                self.flush_soon()

    def still_runs(self, task: asyncio.Future[Any]) -> None:
        """A handler was told to stop. One that has not in a turn of the loop counts as a call until it has: else a
        client could have us work on any number of them, by taking each back once it runs (CVE-2023-44487).
        """
        self.loop.call_soon(self.shared.hold, self.connection, task)

    # Events.

    def _on_request(self, event: RequestReceived) -> None:
        shared = self.shared
        route: Route = event.headers.memo or shared.routes.read(event.headers)
        timeout_s = route.timeout_s if event.timeout is None else parse_timeout(event.timeout)
        message = event.message
        if (
            not route.at_once
            or (timeout_s is None and event.timeout is not None)
            or 0 <= self.options.max_receive_bytes < len(message)
            or shared.max_calls is not None
        ):
            head, data = event.apart()
            self._on_head(head)
            self._on_data(data)
            return
        self._taken += len(message) + PREFIX_SIZE
        stream_id = event.stream_id
        call = ServerCall(self, stream_id, route, timeout_s)
        call.handler = route.handler
        call.received_end = True
        if not dispatch.answer_at_once(call, message) and not call.over:
            # Most calls are over by now, and were never among those that others have to know of.
            self.calls[stream_id] = call
            shared.calls += 1
            call.arm()

    def _on_head(self, event: HeadReceived) -> None:
        route = self.shared.routes.read(event.headers)
        if route.http_status:
            self.plain.answer(event, route.http_status)
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
        task = self.loop.create_task(self.shared.find(call.route))

        def leave(_: Any) -> None:
            task.cancel()

        call.add_done_callback(leave)
        task.add_done_callback(partial(self._found, call))
        if call.deadline is not None:
            self._unstarted.append(call)

    def _found(self, call: ServerCall, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            call.finish(grpc.StatusCode.CANCELLED, "an interceptor was cancelled")
        elif (error := task.exception()) is None:
            self._begin(call, task.result())
        else:
            log.error("an interceptor of %s raised", call.route.details.method, exc_info=error)
            call.finish(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")

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
        elif call.deadline is not None:
            self._unstarted.append(call)

    def _on_data(self, event: DataReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is None:
            self.plain.discard(event)
            return
        if event.end and call.receive_whole(event.data, event.flow_bytes):
            dispatch.start(call)
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
        else:
            self.plain.forget(event.stream_id)

    def _ended(self, call: ServerCall) -> None:
        call.receive_end()
        if call.task is None and call.handler is not None:
            dispatch.start(call)

    def _on_reset(self, event: StreamReset) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.cancel()
        else:
            self.plain.forget(event.stream_id)

    def _on_window(self, event: WindowOpened) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.wake_writer()

    def _on_ping(self, event: PingAnswered) -> None:
        self.pinged_at = None
        if event.payload == DRAIN_PING and self.draining_at is not None:
            self.connection.go_away()

    def _on_terminated(self, event: Terminated) -> None:
        for call in list(self.calls.values()):
            call.cancel()
