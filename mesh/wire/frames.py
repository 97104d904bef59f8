"""HTTP/2 frames as bytes: the numbers of RFC 9113, section 6, and what writes them. `connection` reads them."""

from __future__ import annotations

import struct

from mesh.wire.faults import ErrorCode

__all__ = [
    "CONTINUATION",
    "DATA",
    "GOAWAY",
    "HEAD",
    "HEADERS",
    "HEAD_SIZE",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "START",
    "WINDOW_UPDATE",
    "AnswerForm",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client's connection begins with (section 3.4)."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6

DEFAULT_WINDOW = 65_535
MAX_WINDOW = (1 << 31) - 1
DEFAULT_FRAME = 16_384
MAX_FRAME = (1 << 24) - 1
MAX_STREAM_ID = (1 << 31) - 1

HEAD = struct.Struct(">HBBBI")
"""A frame's head: length (upper 16 bits, lower 8), type, flags, stream."""
START = struct.Struct(">IBI")
"""The same in three: length and type in one, flags, stream."""
HEAD_SIZE = 9
PREFIX_SIZE = 5
"""What stands before a message of gRPC: whether it is compressed, and its length."""
_U32 = struct.Struct(">I")
_SETTING = struct.Struct(">HI")
_GOAWAY = struct.Struct(">II")


def head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """A frame's nine bytes of head."""
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def settings(values: dict[int, int]) -> bytes:
    """SETTINGS (6.5)."""
    body = b"".join([_SETTING.pack(name, value) for name, value in values.items()])
    return head(len(body), SETTINGS, 0, 0) + body


SETTINGS_ACK = head(0, SETTINGS, ACK, 0)


def ping(payload: bytes, *, ack: bool) -> bytes:
    """PING (6.7) with its eight bytes."""
    return head(8, PING, ACK if ack else 0, 0) + payload


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE (6.9); stream 0 is the connection."""
    return head(4, WINDOW_UPDATE, 0, stream_id) + _U32.pack(increment)


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """RST_STREAM (6.4)."""
    return head(4, RST_STREAM, 0, stream_id) + _U32.pack(code)


def goaway(last_stream_id: int, code: ErrorCode, debug: bytes = b"") -> bytes:
    """GOAWAY (6.8)."""
    return head(8 + len(debug), GOAWAY, 0, 0) + _GOAWAY.pack(last_stream_id, code) + debug


class AnswerForm:
    """Whole answers with the same head and trailers: HEADERS, DATA with one message of gRPC, HEADERS with the end.

    All but their streams and messages is laid out once.
    """

    __slots__ = ("_after", "_before", "_head", "_head_start", "_trailers", "_trailers_start", "longest")

    def __init__(self, head_block: bytes, trailers: bytes) -> None:
        self._before = struct.Struct(f">IBI{len(head_block)}sIBIBI").pack
        self._after = struct.Struct(f">IBI{len(trailers)}s").pack
        self._head = head_block
        self._head_start = len(head_block) << 8 | HEADERS
        self._trailers = trailers
        self._trailers_start = len(trailers) << 8 | HEADERS
        self.longest = max(len(head_block), len(trailers))
        """Bytes of the longer block."""

    def pieces(self, stream_id: int, message: bytes) -> tuple[bytes, bytes, bytes]:
        """The frames of one answer; each has to fit into what the peer takes."""
        size = len(message)
        start = (size + PREFIX_SIZE) << 8 | DATA
        return (
            self._before(self._head_start, END_HEADERS, stream_id, self._head, start, 0, stream_id, 0, size),
            message,
            self._after(self._trailers_start, END_HEADERS | END_STREAM, stream_id, self._trailers),
        )


def headers(stream_id: int, block: bytes, *, end_stream: bool, max_frame: int) -> bytes:
    """HEADERS (6.2), and CONTINUATION (6.10) for what does not fit into one frame."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame:
        return head(len(block), HEADERS, flags | END_HEADERS, stream_id) + block
    parts = [head(max_frame, HEADERS, flags, stream_id), block[:max_frame]]
    for start in range(max_frame, len(block), max_frame):
        piece = block[start : start + max_frame]
        last = start + max_frame >= len(block)
        parts += (head(len(piece), CONTINUATION, END_HEADERS if last else 0, stream_id), piece)
    return b"".join(parts)
