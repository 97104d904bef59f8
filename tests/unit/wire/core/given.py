"""A peer that writes its frames by hand, and reads ours by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from mesh.wire import frames
from mesh.wire.connection import Connection
from mesh.wire.events import DataReceived, Event, HeadReceived
from mesh.wire.faults import ErrorCode
from mesh.wire.headers import encode_block
from mesh.wire.limits import WireLimits

__all__ = [
    "REQUEST",
    "RESPONSE",
    "ByHand",
    "Frame",
    "continuation",
    "data",
    "frame",
    "goaway",
    "headers",
    "parsed",
    "ping",
    "priority",
    "reset",
    "settings",
    "window_update",
]

REQUEST = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/package.Service/Method"),
    (b":authority", b"somewhere"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)
RESPONSE = ((b":status", b"200"), (b"content-type", b"application/grpc"))


@dataclass(frozen=True)
class Frame:
    """One frame as it was on the wire."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def code(self) -> ErrorCode:
        """The error code of an RST_STREAM or GOAWAY."""
        place = 0 if self.kind == frames.RST_STREAM else 4
        return ErrorCode(int.from_bytes(self.payload[place : place + 4], "big"))


def parsed(out: bytes) -> list[Frame]:
    """The frames of a server's bytes, or of a client's behind the preface."""
    if out.startswith(frames.PREFACE):
        out = out[len(frames.PREFACE) :]
    found: list[Frame] = []
    while out:
        length = int.from_bytes(out[:3], "big")
        assert len(out) >= 9 + length, "a frame that is cut off"
        found.append(Frame(out[3], out[4], int.from_bytes(out[5:9], "big"), out[9 : 9 + length]))
        out = out[9 + length :]
    return found


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame, right or wrong; the stream's number may have the reserved bit."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def headers(
    stream_id: int,
    fields: Iterable[tuple[bytes, bytes]] = REQUEST,
    *,
    end: bool = False,
    more: bool = False,
    pad: int | None = None,
    depends_on: int | None = None,
    block: bytes | None = None,
) -> bytes:
    """HEADERS; `more` leaves END_HEADERS out."""
    payload = encode_block(fields) if block is None else block
    flags = (frames.END_STREAM if end else 0) | (0 if more else frames.END_HEADERS)
    if depends_on is not None:
        payload = depends_on.to_bytes(4, "big") + b"\x0f" + payload
        flags |= frames.HAS_PRIORITY
    if pad is not None:
        payload = bytes((pad,)) + payload + bytes(pad)
        flags |= frames.PADDED
    return frame(frames.HEADERS, flags, stream_id, payload)


def continuation(stream_id: int, block: bytes = b"", *, more: bool = False) -> bytes:
    """CONTINUATION."""
    return frame(frames.CONTINUATION, 0 if more else frames.END_HEADERS, stream_id, block)


def data(stream_id: int, payload: bytes = b"", *, end: bool = False, pad: int | None = None) -> bytes:
    """DATA."""
    flags = frames.END_STREAM if end else 0
    if pad is not None:
        payload = bytes((pad,)) + payload + bytes(pad)
        flags |= frames.PADDED
    return frame(frames.DATA, flags, stream_id, payload)


def settings(*values: tuple[int, int], ack: bool = False, stream_id: int = 0) -> bytes:
    """SETTINGS."""
    payload = b"".join(struct.pack(">HI", *value) for value in values)
    return frame(frames.SETTINGS, frames.ACK if ack else 0, stream_id, payload)


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(frames.WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def reset(stream_id: int, code: int = ErrorCode.CANCEL) -> bytes:
    """RST_STREAM."""
    return frame(frames.RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway(last: int = 0, code: int = ErrorCode.NO_ERROR, *, stream_id: int = 0, debug: bytes = b"") -> bytes:
    """GOAWAY."""
    return frame(frames.GOAWAY, 0, stream_id, last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug)


def ping(payload: bytes = b"12345678", *, ack: bool = False, stream_id: int = 0) -> bytes:
    """PING."""
    return frame(frames.PING, frames.ACK if ack else 0, stream_id, payload)


def priority(stream_id: int, depends_on: int = 0, weight: int = 15, *, exclusive: bool = False) -> bytes:
    """PRIORITY."""
    first = depends_on | (1 << 31 if exclusive else 0)
    return frame(frames.PRIORITY, 0, stream_id, first.to_bytes(4, "big") + bytes((weight,)))


class ByHand:
    """One `Connection` and, on its other side, bytes written by hand.

    Args:
        client: The role of the connection under test.
        limits: Its bounds.
        calls: As a client, how many calls it has begun.
        hello: Whether both sides have said hello already.
    """

    def __init__(
        self, *, client: bool = False, limits: WireLimits | None = None, calls: int = 0, hello: bool = True
    ) -> None:
        self.time_s = 0.0
        self.connection = Connection(client=client, limits=limits, clock=lambda: self.time_s)
        self.connection.start()
        self.hello = parsed(self.connection.take())
        if hello:
            self.send(b"" if client else frames.PREFACE, settings(), settings(ack=True))
            for _ in range(calls):
                self.connection.send_head(self.connection.open_stream(), encode_block(REQUEST))
            self.connection.take()

    def send(self, *pieces: bytes, step: int = 0) -> list[Event]:
        """What the connection tells of these bytes, which come in one piece or in steps."""
        sent = b"".join(pieces)
        step = step or len(sent) or 1
        found: list[Event] = []
        for start in range(0, len(sent), step):
            found += self.connection.receive(sent[start : start + step])
        return found

    def consume(self, events: Iterable[Event]) -> None:
        """Acknowledge the data among some events."""
        for event in events:
            if isinstance(event, DataReceived):
                self.connection.acknowledge(event.stream_id, event.flow_bytes)

    def answer(self, events: Iterable[Event]) -> None:
        """Answer the calls that were begun and forget their data."""
        self.consume(events)
        for event in events:
            if isinstance(event, HeadReceived):
                self.connection.send_head(event.stream_id, encode_block(RESPONSE))
                self.connection.send_data(event.stream_id, b"answer")
                self.connection.send_trailers(event.stream_id, encode_block([(b"grpc-status", b"0")]))

    def taken(self) -> list[Frame]:
        """The frames that were put out; they have reached the operating system."""
        out = self.connection.take()
        self.connection.sender.drained()
        return parsed(out)
