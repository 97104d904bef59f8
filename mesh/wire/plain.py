"""Requests that are no gRPC: answered as any HTTP server would, with a status and a line of text."""

from __future__ import annotations

from typing import Final

from mesh.wire.connection import Connection
from mesh.wire.events import DataReceived, HeadReceived
from mesh.wire.faults import ErrorCode
from mesh.wire.fields import Field
from mesh.wire.headers import encode_block

__all__ = ["PlainRequests"]

DISCARDED_BYTES: Final = 65_536
"""What a client may go on sending after it was answered; then it is told to stop (RFC 9113, 8.1)."""
TEXTS: Final = {
    b"405": b"This is a gRPC server: it takes POST alone.\n",
    b"415": b"This is a gRPC server: it takes content of type application/grpc alone.\n",
}


class PlainRequests:
    """Those of one connection.

    A client that has not ended its request may do so after the answer: what it sends is checked as ever, and discarded.
    """

    __slots__ = ("_connection", "_discarded")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._discarded: dict[int, int] = {}
        """Bytes that were discarded, by stream; only of streams whose request has not ended."""

    def answer(self, event: HeadReceived, status: bytes) -> None:
        """Answer a request with an HTTP status."""
        text = TEXTS[status]
        fields: list[Field] = [
            (b":status", status),
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
        ]
        if status == b"405":
            fields.append((b"allow", b"POST"))
        bodiless = event.headers.get(b":method") == b"HEAD"
        self._connection.send_head(event.stream_id, encode_block(fields), end=bodiless)
        if not bodiless:
            self._connection.send_data(event.stream_id, text, end=True)
        if not event.end:
            self._discarded[event.stream_id] = 0

    def discard(self, event: DataReceived) -> None:
        """Data that nobody waits for."""
        # The stream's window stays as it is: there is no need for more.
        self._connection.acknowledge(0, event.flow_bytes)
        discarded = self._discarded.get(event.stream_id)
        if discarded is None:
            return
        discarded += event.flow_bytes
        self._discarded[event.stream_id] = discarded
        if event.end:
            self.forget(event.stream_id)
        elif discarded > DISCARDED_BYTES:
            self._connection.reset(event.stream_id, ErrorCode.NO_ERROR)
            self.forget(event.stream_id)

    def forget(self, stream_id: int) -> None:
        """A request is over."""
        self._discarded.pop(stream_id, None)
