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
    "WINDOW_UPDATE",
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
HEAD_SIZE = 9
_START = struct.Struct(">HBBB")
"""The same without the stream."""
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


def answer(stream_id: int, head_block: bytes, data: bytes, trailers: bytes) -> bytes:
    """HEADERS, DATA and HEADERS with the end; each of them has to fit into one frame."""
    number = stream_id.to_bytes(4, "big")
    return b"".join(
        (
            _START.pack(len(head_block) >> 8, len(head_block) & 0xFF, HEADERS, END_HEADERS),
            number,
            head_block,
            _START.pack(len(data) >> 8, len(data) & 0xFF, DATA, 0),
            number,
            data,
            _START.pack(len(trailers) >> 8, len(trailers) & 0xFF, HEADERS, END_HEADERS | END_STREAM),
            number,
            trailers,
        )
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
