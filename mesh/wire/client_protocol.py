"""`ClientProtocol`: one connection of a channel, between asyncio's transport and the sans-I/O core."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, cast

import grpc

import mesh.wire.frames as frames
from mesh.wire.client_call import ClientCall
from mesh.wire.connection import Connection
from mesh.wire.events import (
    DataReceived,
    GoingAway,
    HeadReceived,
    PingAnswered,
    ResponseReceived,
    SettingsChanged,
    StreamReset,
    Terminated,
    TrailersReceived,
    WindowOpened,
)
from mesh.wire.faults import ErrorCode
from mesh.wire.limits import WireLimits
from mesh.wire.responses import Status

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ClientProtocol", "ConnectionOwner"]

SILENT: Final = "the server does not answer pings"
LAST_STREAM_ID: Final = frames.MAX_STREAM_ID
"""The last one that a client can use: with it a connection has had its day."""
WRITE_BYTES: Final = 256 << 10
"""What is written at once."""
FEW_PIECES: Final = 64
"""So much in fewer pieces than these is not put together: to copy it costs more than to write it in pieces."""
WRITE_BUFFER_BYTES: Final = 512 << 10
"""What is handed to the operating system and not taken yet; with more, no further call begins on the connection."""


class ConnectionOwner(Protocol):
    """What a connection needs of whoever made it."""

    loop: asyncio.AbstractEventLoop
    limits: WireLimits
    line: dict[ClientCall, None]
    """Calls that wait."""

    def on_room(self) -> None:
        """A stream is free, or the connection takes data again: calls that wait may go on."""
        ...

    def on_gone(self, protocol: ClientProtocol, /) -> None:
        """The connection takes no more calls. Those that are under way may still end well."""
        ...

    def on_closed(self, protocol: ClientProtocol, /) -> None:
        """Nothing is left of the connection."""
        ...


class ClientProtocol(asyncio.Protocol):
    """Bytes to answers of calls, and calls to one write per loop turn."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self.loop = owner.loop
        self.connection = Connection(client=True, limits=owner.limits, joins=True)
        self.calls: dict[int, ClientCall] = {}
        self.paused = False
        self.settled: asyncio.Future[None] = owner.loop.create_future()
        """Whether the server has said its first word."""
        self.closed: asyncio.Future[None] = owner.loop.create_future()
        """Whether nothing is left of the connection."""
        self.heard_at = owner.loop.time()
        self.pinged_at: float | None = None
        self.calmed = False
        """Whether the server said that we ping too often."""
        self.error = ""
        """Why the connection is gone."""
        self.gone = False
        self._transport: asyncio.Transport | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._flush_planned = False
        self._successors = 0
        """Calls that the last read has ended, less those that have begun since."""
        self._streams = self.connection.streams
        self._peer = self.connection.peer
        self._line = owner.line
        self._readers: dict[type, Callable[..., None]] = {
            HeadReceived: self._on_head,
            DataReceived: self._on_data,
            TrailersReceived: self._on_trailers,
            WindowOpened: self._on_window,
            StreamReset: self._on_reset,
            SettingsChanged: self._on_settings,
            PingAnswered: self._on_ping,
            GoingAway: self._on_going_away,
            Terminated: self._on_terminated,
        }

    @property
    def takes_calls(self) -> bool:
        """Whether one more call can begin now."""
        if self.gone or self.paused or len(self._streams) >= self._peer.max_concurrent_streams:
            return False
        return not self.connection.exhausted

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's are of no such class
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self.connection.start()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Everything that these bytes mean, then one write."""
        self.heard_at = self.loop.time()
        calls = self.calls
        readers = self._readers
        under_way = len(calls)
        taken = 0
        for event in self.connection.receive(data):
            if type(event) is not ResponseReceived:
                readers[type(event)](event)
                continue
            call = calls.get(event.stream_id)
            if call is not None and call.on_response(event):
                taken += len(event.message) + frames.PREFIX_SIZE
            else:
                for part in event.apart():
                    readers[type(part)](part)
        if taken:
            self.connection.acknowledge(0, taken)
        self._successors = under_way - len(calls)
        self._flush()

    def eof_received(self) -> bool:
        """The server closed its side: nothing can be answered any more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """No call that is under way will be answered."""
        self._transport = None
        self._leave(f"the connection was lost: {exc}" if exc is not None else "the server closed the connection")
        if not self.settled.done():
            self.settled.set_exception(ConnectionResetError(self.error))
            self.settled.exception()  # it may be that nobody asks
        self._end_calls()
        if self._linger is not None:
            self._linger.cancel()
        self.closed.set_result(None)
        self._owner.on_closed(self)

    def pause_writing(self) -> None:
        """The server does not read: no more calls here until it does."""
        self.paused = True

    def resume_writing(self) -> None:
        """There is room again."""
        self.paused = False
        self.connection.sender.drained()
        self._flush()
        if self.paused:
            return
        for call in list(self.calls.values()):
            call.wake_writer()
        self._owner.on_room()

    # Writing: once a loop turn, however many calls have something to say.

    def began(self, stream_id: int) -> None:
        """A call begins. It is written now, and not later in this turn, where no other is likely to follow: it is the
        only one there is, or as many have begun as the last read has ended.
        """
        if stream_id >= LAST_STREAM_ID:
            self._leave("the stream numbers are used up")
        self._successors -= 1
        if self._successors == 0 or (len(self.calls) == 1 and not self._flush_planned):
            self._flush()
        else:
            self.flush_soon()

    def flush_soon(self) -> None:
        """Write before the loop waits again."""
        if not self._flush_planned:
            self._flush_planned = True
            self.loop.call_soon(self._flush_planned_one)

    def _flush_planned_one(self) -> None:
        self._flush_planned = False
        self._flush()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:
            return
        connection = self.connection
        if not self.paused:
            # With the buffer full, the rest waits until there is room again.
            while connection.sender.out and not self.paused:
                pieces = connection.take_pieces(WRITE_BYTES)
                if len(pieces) < FEW_PIECES and sum(map(len, pieces)) >= WRITE_BYTES:
                    transport.writelines(pieces)
                else:
                    transport.write(b"".join(pieces))
            if not self.paused:
                connection.sender.drained()
        if self.gone and not self.calls and self._linger is None:
            transport.close()
            # Closing waits until all was written, which a server that does not read can put off for ever.
            self._linger = self.loop.call_later(self._owner.limits.linger_s, transport.abort)

    def forget(self, stream_id: int) -> None:
        """A call is over, or will be tried elsewhere. A stream that is not over on both sides is ended."""
        if self.calls.pop(stream_id, None) is None:
            return
        if stream_id in self._streams:
            self.connection.reset(stream_id, ErrorCode.CANCEL)
            self.flush_soon()
        if self.gone and not self.calls:
            self.flush_soon()
        if self._line:
            self._owner.on_room()

    # Ending.

    def leave(self) -> None:
        """Take no more calls, and hang up when the last one is over."""
        if not self.gone:
            self._leave("the channel gave the connection up")
            if not self.connection.terminated:
                self.connection.go_away()
            self._flush()

    def hang_up(self, error: str) -> None:
        """End what is left, politely where that costs no waiting."""
        self.leave()
        if self.calls or (self._transport is not None and self._transport.get_write_buffer_size()):
            self.abort(error)

    def abort(self, error: str) -> None:
        """End every call as UNAVAILABLE, and hang up without waiting for anybody."""
        self._leave(error)
        self._end_calls()
        if self._transport is not None:
            self._transport.abort()

    def _leave(self, error: str) -> None:
        if not self.gone:
            self.gone = True
            self.error = error
            self._owner.on_gone(self)

    def _end_calls(self) -> None:
        status = Status(grpc.StatusCode.UNAVAILABLE, self.error)
        for call in list(self.calls.values()):
            call.end_attempt(status)

    # Keepalive.

    def ping(self, now: float) -> None:
        """Ask for a sign of life."""
        self.pinged_at = now
        self.connection.ping(b"keepaliv")
        self.flush_soon()

    # Events.

    def _on_head(self, event: HeadReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.on_head(event.headers, event.end)

    def _on_data(self, event: DataReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is None:
            self.connection.acknowledge(event.stream_id, event.flow_bytes)
            return
        call.on_data(event.data, event.flow_bytes)
        if event.end and call.status is None:
            call.end_attempt(Status(grpc.StatusCode.UNKNOWN, "the response ended without a status"))

    def _on_trailers(self, event: TrailersReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.on_trailers(event.headers)

    def _on_window(self, event: WindowOpened) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.wake_writer()

    def _on_reset(self, event: StreamReset) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.on_reset(event.code, remote=event.remote, text=event.text)

    def _on_settings(self, event: SettingsChanged) -> None:
        if not self.settled.done():
            self.settled.set_result(None)
        else:
            self._owner.on_room()

    def _on_ping(self, event: PingAnswered) -> None:
        self.pinged_at = None

    def _on_going_away(self, event: GoingAway) -> None:
        if event.code == ErrorCode.ENHANCE_YOUR_CALM and event.debug == b"too_many_pings":
            self.calmed = True
        text = event.debug[:128].decode("utf-8", "replace")
        known = ErrorCode(event.code).name if event.code in ErrorCode.__members__.values() else str(event.code)
        self._leave(f"the server goes away: {known}{f' ({text})' if text else ''}")

    def _on_terminated(self, event: Terminated) -> None:
        self._leave(f"the server broke a rule of HTTP/2: {event.text}")
        self._end_calls()
