"""Attacks on a server that are floods: what is sent again and again, and how soon it has to be over.

Each names where it was published. A peer that is no caller has the credit of `WireLimits.max_glitches`, here small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.wire import frames
from mesh.wire.faults import ErrorCode
from mesh.wire.headers import encode_block
from tests.unit.wire.core import given
from tests.unit.wire.core.given import (
    continuation,
    data,
    frame,
    goaway,
    ping,
    priority,
    reset,
    settings,
    window_update,
)

__all__ = ["FLOODS", "GLITCHES", "Flood"]

GLITCHES = 1000
# A method whose handler waits for its requests: the calls of an attack stay open.
REQUEST = [(name, b"/test/join" if name == b":path" else value) for name, value in given.REQUEST]
CALM, PROTOCOL = ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.PROTOCOL_ERROR
BLOCK = encode_block(REQUEST)
LARGEST = (1 << 31) - 1


@dataclass(frozen=True)
class Flood:
    """One attack."""

    name: str
    piece: Callable[[int], bytes]
    """The piece of that number, from 0."""
    most: int = GLITCHES + 50
    """Pieces after which the connection has to be over."""
    first: bytes = b""
    """What is sent once, before."""
    code: ErrorCode = CALM

    def __str__(self) -> str:
        return self.name


def headers(stream_id: int, fields: Sequence[tuple[bytes, bytes]] = REQUEST, **given_too: Any) -> bytes:
    return given.headers(stream_id, fields, **given_too)


def number(index: int) -> int:
    """The stream of the call of an index."""
    return 2 * index + 1


def spoilt(index: int, *wrong: bytes, end: bool = False) -> bytes:
    """A call that is begun, and frames that make the server reset it."""
    return headers(number(index), end=end) + b"".join(wrong)


FLOODS = [
    # CVE-2023-44487, rapid reset: calls that are taken back before they can be looked at.
    Flood("44487: HEADERS, RST_STREAM", lambda i: headers(number(i), end=True) + reset(number(i))),
    Flood(
        "44487: a whole call, RST_STREAM",
        lambda i: headers(number(i)) + data(number(i), b"\0\0\0\0\1x", end=True) + reset(number(i)),
    ),
    Flood("44487: RST_STREAM of what is closed", lambda i: reset(1), first=headers(1, end=True) + reset(1)),
    # CVE-2025-8671, MadeYouReset: the server is made to reset calls itself. Each costs five, and pays nothing.
    Flood("8671: window increment of 0", lambda i: spoilt(i, window_update(number(i), 0)), GLITCHES // 4 + 50),
    Flood("8671: window past 2^31-1", lambda i: spoilt(i, window_update(number(i), LARGEST)), GLITCHES // 4 + 50),
    Flood("8671: DATA after the end", lambda i: spoilt(i, data(number(i), b"x"), end=True), GLITCHES // 4 + 50),
    Flood("8671: HEADERS after the end", lambda i: spoilt(i, headers(number(i)), end=True), GLITCHES // 4 + 50),
    Flood(
        "8671: trailers that end nothing", lambda i: spoilt(i, headers(number(i), [(b"a", b"b")])), GLITCHES // 4 + 50
    ),
    Flood("8671: PRIORITY of 4 bytes", lambda i: spoilt(i, frame(frames.PRIORITY, 0, number(i), b"1234")), GLITCHES),
    Flood("8671: PRIORITY on itself", lambda i: spoilt(i, priority(number(i), number(i))), GLITCHES // 4 + 50),
    Flood(
        "8671: content-length",
        lambda i: headers(number(i), [*REQUEST, (b"content-length", b"1")]) + data(number(i), b"xy"),
        GLITCHES // 4 + 50,
    ),
    Flood("8671: fields that are wrong", lambda i: headers(number(i), [(b":path", b"/")]), GLITCHES // 4 + 50),
    # CVE-2024-27316 and its like: a header block without end.
    Flood(
        "27316: CONTINUATION", lambda i: continuation(1, b"\x00\x01a\x01b" * 100, more=True), 17, headers(1, more=True)
    ),
    Flood("27316: empty CONTINUATION", lambda i: continuation(1, more=True), 17, headers(1, more=True)),
    Flood("27316: full CONTINUATION", lambda i: continuation(1, bytes(16_000), more=True), 5, headers(1, more=True)),
    Flood("27316: trailers", lambda i: continuation(1, b"x", more=True), 17, headers(1) + headers(1, [], more=True)),
    # CVE-2019-9511, -9517: answers that are let out byte by byte.
    Flood(
        "9511: a window that dribbles",
        lambda i: window_update(1, 1),
        GLITCHES,
        settings((frames.INITIAL_WINDOW_SIZE, 0)) + headers(1, end=True),
    ),
    # CVE-2019-9512: pings.
    Flood("9512: PING", lambda i: ping()),
    Flood("9512: PING acknowledgements of nothing", lambda i: ping(ack=True)),
    # CVE-2019-9513: priorities.
    Flood("9513: PRIORITY", lambda i: priority(number(i % 100), number(i % 100 + 1))),
    Flood("9513: PRIORITY of streams that never were", lambda i: priority(number(i + 1000), 1)),
    Flood("9513: windows of streams", lambda i: window_update(1, 1), first=headers(1)),
    Flood("9513: windows of the connection", lambda i: window_update(0, 1)),
    # CVE-2019-9514: resets that answer nonsense on streams.
    Flood("9514: DATA of streams that are closed", lambda i: data(1, b"x"), first=headers(1, end=True) + reset(1)),
    Flood(
        "9514: DATA of a stream that the server has reset",
        lambda i: data(1, b"x"),
        first=spoilt(0, window_update(1, 0)),
    ),
    # CVE-2019-9515: settings.
    Flood("9515: SETTINGS", lambda i: settings()),
    Flood("9515: SETTINGS with values", lambda i: settings(*[(frames.MAX_FRAME_SIZE, 16_384)] * 60)),
    Flood(
        "9515: windows of many streams",
        lambda i: settings((frames.INITIAL_WINDOW_SIZE, i % 2)),
        first=b"".join(headers(number(index)) for index in range(60)),
    ),
    Flood("9515: SETTINGS acknowledgements", lambda i: settings(ack=True), 1, code=PROTOCOL),
    # CVE-2019-9516: names and values of no length.
    Flood(
        "9516: names of no length",
        lambda i: headers(number(i), block=BLOCK + b"\x00\x00\x00", end=True),
        GLITCHES // 4 + 50,
    ),
    # CVE-2019-9518: frames with nothing in them.
    Flood("9518: empty DATA", lambda i: data(1), first=headers(1)),
    Flood("9518: DATA that is padding", lambda i: data(1, pad=255), first=headers(1)),
    Flood(
        "9518: interleaved empty DATA",
        lambda i: data(number(i % 50)),
        most=GLITCHES + 150,
        first=b"".join(map(headers, range(1, 101, 2))),
    ),
    Flood("unknown frames", lambda i: frame(0xEE, 0, 0, b"x")),
    Flood("unknown frames of a stream", lambda i: frame(0xEE, 0xFF, 1, b"x" * 100), first=headers(1)),
    Flood("PUSH_PROMISE", lambda i: frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), 1, headers(1), PROTOCOL),
    Flood("GOAWAY", lambda i: goaway(i, debug=b"x" * 1000)),
    Flood("more streams than are taken", lambda i: headers(number(i)), 64 + GLITCHES // 4 + 50),
    # HPACK bombs: an entry of the dynamic table, referred to by one byte each time.
    Flood(
        "HPACK: references to a large entry",
        lambda i: headers(number(i + 1), block=BLOCK + b"\xbe" * 16_000, end=True),
        1,
        headers(1, block=BLOCK + b"\x40\x01a\x7f\xe0\x1d" + b"x" * 3935, end=True),
    ),
    Flood("HPACK: many short fields", lambda i: headers(number(i), block=BLOCK + b"\x82" * 16_000, end=True), 1),
    Flood(
        "HPACK: a table that always changes",
        lambda i: headers(
            number(i), block=BLOCK + b"".join(b"\x40\x01a\x02%02d" % (i % 90 + n) for n in range(9)) * 45
        ),
        GLITCHES // 2,
    ),
    Flood(
        "HPACK: size updates",
        lambda i: headers(number(i), block=b"\x20" * 17 + BLOCK),
        1,
        code=ErrorCode.COMPRESSION_ERROR,
    ),
]
