"""A client of raw bytes: so cheap, and so much the same for every server, that what is seen is the server.

It writes requests that were encoded before and reads no more of the answers than where they end. Every connection keeps
its number of calls, or of messages on one stream, under way: what was answered is asked again in one write, as h2load
does it. Header blocks are those of any gRPC client: in full with the first call, by index with each that follows.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence
from typing import Final

from hpack import Encoder

import mesh.wire.frames as frames
from bench.wire.engines import MANY, MESSAGE, SERVICE

__all__ = ["METHODS", "LoadClient", "LoadError"]

PATIENCE_S: Final = 20.0
READ_BYTES: Final = 1 << 18
WINDOW: Final = frames.MAX_WINDOW
TOP_UP_BYTES: Final = 1 << 29
FRAMED: Final = b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE
METHODS: Final = {"Once": 1, "Many": MANY, "Chat": 0}
"""Answers to one call; those of `Chat` are as many as its requests."""


class LoadError(RuntimeError):
    """A server did not answer as an echo has to."""


def _fields(method: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/{SERVICE}/{method}"),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "bench"),
        ("grpc-timeout", "30S"),
    ]


class _Connection:
    """One connection. What is asked on it is a call, or in a chat a message."""

    def __init__(self, port: int, method: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        encoder = Encoder()
        self._first = encoder.encode(_fields(method))
        self._again = encoder.encode(_fields(method))
        self._chat = method == "Chat"
        self._per_call = METHODS[method]
        self._window = self._peer_window = frames.DEFAULT_WINDOW
        """Of the connection; of a new stream."""
        self._stream_window = 0
        self._next_id = 1
        self._buffer = b""
        self._unread = 0
        self._settled = False
        self._open = False
        """Whether the one stream of a chat is open."""
        self.owed = 0
        """What is to be asked for as soon as the server's windows allow."""
        self.data_bytes = 0
        self.ended = 0
        settings = frames.settings({frames.INITIAL_WINDOW_SIZE: WINDOW, frames.ENABLE_PUSH: 0})
        raised = frames.window_update(0, WINDOW - frames.DEFAULT_WINDOW)
        self.socket.sendall(frames.PREFACE + settings + raised)
        while not self._settled:
            self.read()

    def begin(self, asks: int) -> None:
        """Make so many calls more, or send so many messages of a chat."""
        self.owed += asks
        size = len(FRAMED)
        out: list[bytes] = []
        if self._chat and not self._open:
            self._open = True
            self._stream_window = self._peer_window
            out.append(self._head())
            self._next_id += 2
        while self.owed and self._window >= size and (not self._chat or self._stream_window >= size):
            self.owed -= 1
            self._window -= size
            if self._chat:
                self._stream_window -= size
                out.append(frames.head(size, frames.DATA, 0, self._next_id - 2))
            else:
                out.append(self._head())
                out.append(frames.head(size, frames.DATA, frames.END_STREAM, self._next_id))
                self._next_id += 2
            out.append(FRAMED)
        if out:
            self.socket.sendall(b"".join(out))

    def end(self) -> None:
        """End a chat; no message may be under way."""
        self._open = False
        self.socket.sendall(frames.head(0, frames.DATA, frames.END_STREAM, self._next_id - 2))
        ended = self.ended
        while self.ended == ended:
            self.read()

    def _head(self) -> bytes:
        block = self._first if self._next_id == 1 else self._again
        return frames.head(len(block), frames.HEADERS, frames.END_HEADERS, self._next_id) + block

    @property
    def units(self) -> int:
        """Messages that came back so far."""
        return self.data_bytes // len(FRAMED)

    @property
    def _answered(self) -> int:
        """What was asked for and is there: calls, or the messages of a chat."""
        return self.units if self._chat else self.ended

    def read(self) -> int:
        """Take in what is there; how much of what was asked for it completes."""
        before = self._answered
        received = self.socket.recv(READ_BYTES)
        if not received:
            raise LoadError("the server hung up")
        buffer = self._buffer + received
        at, size = 0, len(buffer)
        while size - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            end = at + 9 + length
            if end > size:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            if kind == frames.DATA:
                self.data_bytes += length
                self._unread += length
            elif kind != frames.HEADERS:
                self._control(kind, flags, int.from_bytes(buffer[at + 5 : at + 9], "big"), buffer[at + 9 : end])
            if flags & frames.END_STREAM and kind <= frames.HEADERS:
                self.ended += 1
            at = end
        self._buffer = buffer[at:]
        if self._unread > TOP_UP_BYTES:
            self.socket.sendall(frames.window_update(0, self._unread))
            self._unread = 0
        return self._answered - before

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            if not stream_id:
                self._window += more
            elif self._chat:
                self._stream_window += more
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            for place in range(0, len(payload), 6):
                if int.from_bytes(payload[place : place + 2], "big") == frames.INITIAL_WINDOW_SIZE:
                    self._peer_window = int.from_bytes(payload[place + 2 : place + 6], "big")
            self._settled = True
            self.socket.sendall(frames.SETTINGS_ACK)
        elif kind == frames.PING and not flags & frames.ACK:
            self.socket.sendall(frames.ping(payload, ack=True))
        elif kind in (frames.RST_STREAM, frames.GOAWAY):
            raise LoadError(f"the server ends the load by a frame of kind {kind}: {payload!r}")

    def check(self) -> None:
        """All that was asked for came back whole. Raises LoadError."""
        wanted = self.ended * self._per_call * len(FRAMED)
        if self._per_call and self.data_bytes != wanted:
            raise LoadError(f"{self.data_bytes} bytes in {self.ended} answers, where {wanted} are meant")


class LoadClient:
    """Connections to one server's port.

    Args:
        method: `Once`, `Many` or `Chat`.
        in_flight: Calls under way on each connection; messages, for the one stream of a chat.
    """

    def __init__(self, port: int, method: str, *, connections: int = 1, in_flight: int = 1) -> None:
        self._connections: Sequence[_Connection] = [_Connection(port, method) for _ in range(connections)]
        self._in_flight = in_flight
        self._chat = method == "Chat"
        self._selector = selectors.DefaultSelector()
        for one in self._connections:
            self._selector.register(one.socket, selectors.EVENT_READ, one)

    def drive(self, seconds: float) -> tuple[int, float]:
        """Keep the server busy for some time: how many messages came back, and in how many seconds.

        Raises:
            LoadError: An answer is missing, or is not what an echo gives.
        """
        before = sum(one.units for one in self._connections)
        began = time.perf_counter()
        for one in self._connections:
            one.begin(self._in_flight)
        until = began + seconds
        under_way = self._in_flight * len(self._connections)
        while under_way:
            ready = self._selector.select(PATIENCE_S)
            if not ready:
                raise LoadError(f"no answer in {PATIENCE_S:g} s")
            more = time.perf_counter() < until
            for key, _ in ready:
                one: _Connection = key.data
                done = one.read()
                if more or one.owed:
                    one.begin(done if more else 0)
                if not more:
                    under_way -= done
        for one in self._connections:
            if self._chat:
                one.end()
            one.check()
        return sum(one.units for one in self._connections) - before, time.perf_counter() - began

    def close(self) -> None:
        """Hang up."""
        self._selector.close()
        for one in self._connections:
            one.socket.close()
