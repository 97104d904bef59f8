"""RFC 9113, sections 3 to 7: what a server has to take, ignore or refuse of connections, streams and frames.

The tables cover what generic conformance suites check of a server, and some more. Each line is run twice: its bytes in
one piece, and one by one.
"""

from __future__ import annotations

import pytest

from mesh.wire import frames
from mesh.wire.headers import encode_block
from mesh.wire.limits import WireLimits
from tests.unit.wire.core.given import (
    REQUEST,
    ByHand,
    continuation,
    data,
    frame,
    goaway,
    headers,
    ping,
    priority,
    reset,
    settings,
    window_update,
)
from tests.unit.wire.core.rules import (
    CALM,
    CLOSED,
    COMPRESSION,
    FLOW,
    PROTOCOL,
    REFUSED,
    SIZE,
    Line,
    check,
    ends,
    fine,
    resets,
)

BLOCK = encode_block(REQUEST)
LARGEST = (1 << 31) - 1
LIMITS = WireLimits(max_concurrent_streams=4, max_frame_bytes=16_384)


CONNECTION = [
    ends(PROTOCOL, "3.4", "a SETTINGS acknowledgement without need", settings(ack=True)),
    fine("4.1", "a frame of an unknown kind", frame(0xFF, 0, 0, b"12345678")),
    fine("4.1", "a frame of an unknown kind on a stream", headers(1), frame(0x16, 0xFF, 1, b"12345678")),
    fine("4.1", "flags that are not defined", frame(frames.PING, 0x16, 0, b"12345678")),
    fine("4.1", "the reserved bit of a stream", frame(frames.PING, 0, 1 << 31, b"12345678")),
    fine("4.2", "DATA of the largest size", headers(1), data(1, bytes(16_384), end=True)),
    ends(SIZE, "4.2", "DATA that is too large", headers(1), data(1, bytes(16_385))),
    ends(SIZE, "4.2", "HEADERS that are too large", headers(1, block=BLOCK + bytes(16_385))),
    ends(SIZE, "4.2", "SETTINGS that are too large", settings(*[(9, 9)] * 3000)),
    ends(SIZE, "4.2", "an unknown frame that is too large", frame(0xFE, 0, 0, bytes(16_385))),
    ends(COMPRESSION, "4.3", "a header block that is none", headers(1, block=b"\x00\xff\xff\xff\xff\xff")),
    ends(PROTOCOL, "4.3", "PRIORITY within a header block", headers(1, more=True), priority(1)),
    ends(PROTOCOL, "4.3", "HEADERS of another stream within a block", headers(1, more=True), headers(3)),
    ends(PROTOCOL, "5.1.1", "a stream of an even number", headers(2)),
    ends(PROTOCOL, "5.1.1", "a number below one used before", headers(5, end=True), headers(3, end=True)),
    fine("5.1.1", "numbers with gaps", headers(5, end=True), headers(21, end=True)),
    resets(9, REFUSED, "5.1.2", "more streams than we take", *[headers(number) for number in (1, 3, 5, 7, 9)]),
    ends(PROTOCOL, "5.4.1", "a PING that ends the connection", ping(stream_id=1)),
    fine("5.5", "an unknown frame", frame(0x0A, 0, 0, b"x")),
    ends(PROTOCOL, "5.5", "an unknown frame within a block", headers(1, more=True), frame(0x0A, 0, 1, b"x")),
]

STATES = [
    ends(PROTOCOL, "5.1 idle", "DATA", data(1, b"x", end=True)),
    ends(PROTOCOL, "5.1 idle", "RST_STREAM", reset(1)),
    ends(PROTOCOL, "5.1 idle", "WINDOW_UPDATE", window_update(1, 100)),
    ends(PROTOCOL, "5.1 idle", "CONTINUATION", continuation(1, BLOCK)),
    ends(PROTOCOL, "5.1 idle", "DATA on a stream of the server's", data(2, b"x")),
    ends(PROTOCOL, "5.1 idle", "WINDOW_UPDATE on a stream of the server's", window_update(2, 1)),
    fine("5.1 idle", "PRIORITY", priority(1, 3)),
    fine("5.1 half-closed", "WINDOW_UPDATE", headers(1, end=True), window_update(1, 100)),
    fine("5.1 half-closed", "PRIORITY", headers(1, end=True), priority(1, 3)),
    fine("5.1 half-closed", "RST_STREAM", headers(1, end=True), reset(1)),
    resets(1, CLOSED, "5.1 half-closed", "DATA", headers(1, end=True), data(1, b"x")),
    resets(1, CLOSED, "5.1 half-closed", "DATA after DATA", headers(1), data(1, b"x", end=True), data(1, b"x")),
    resets(1, CLOSED, "5.1 half-closed", "HEADERS", headers(1, end=True), headers(1, end=True)),
    ends(PROTOCOL, "5.1 half-closed", "CONTINUATION", headers(1, end=True), continuation(1, BLOCK)),
    fine("5.1 closed", "PRIORITY", headers(1), reset(1), priority(1, 3)),
    fine("5.1 closed", "WINDOW_UPDATE", headers(1), reset(1), window_update(1, 100)),
    fine("5.1 closed", "RST_STREAM", headers(1), reset(1), reset(1)),
    resets(1, CLOSED, "5.1 closed", "DATA after RST_STREAM", headers(1), reset(1), data(1, b"x")),
    ends(CLOSED, "5.1 closed", "HEADERS after RST_STREAM", headers(1), reset(1), headers(1, end=True)),
    ends(PROTOCOL, "5.1 closed", "CONTINUATION after RST_STREAM", headers(1), reset(1), continuation(1, BLOCK)),
]

FRAMES = [
    ends(PROTOCOL, "6.1", "DATA on stream 0", data(0, b"x")),
    ends(
        PROTOCOL, "6.1", "padding as long as the payload", headers(1), frame(frames.DATA, frames.PADDED, 1, b"\x05abcd")
    ),
    ends(SIZE, "6.1", "no room for the length of the padding", headers(1), frame(frames.DATA, frames.PADDED, 1)),
    fine("6.1", "padding", headers(1), data(1, b"abc", pad=0), data(1, b"", pad=3), data(1, b"abc", pad=255, end=True)),
    ends(PROTOCOL, "6.2", "HEADERS on stream 0", headers(0)),
    ends(PROTOCOL, "6.2", "HEADERS that go on, on stream 0", headers(0, more=True)),
    ends(PROTOCOL, "6.2", "padding as long as the payload", frame(frames.HEADERS, 0x0D, 1, b"\xff" + BLOCK)),
    ends(SIZE, "6.2", "no room for the priority", frame(frames.HEADERS, 0x25, 1, b"1234")),
    fine("6.2", "padding", headers(1, pad=9, end=True)),
    fine("6.2", "priority", headers(1, depends_on=3, end=True)),
    fine(
        "6.2",
        "padding, priority and CONTINUATION",
        headers(1, block=b"", pad=9, depends_on=0, more=True),
        continuation(1, BLOCK),
    ),
    resets(1, PROTOCOL, "5.3.1 of RFC 7540", "HEADERS that depend on themselves", headers(1, depends_on=1)),
    resets(1, PROTOCOL, "5.3.1 of RFC 7540", "PRIORITY that depends on itself", headers(1), priority(1, 1)),
    ends(PROTOCOL, "5.3.1 of RFC 7540", "the same on an idle stream, which cannot be reset", priority(1, 1)),
    fine("6.3", "PRIORITY of every weight", *[priority(1, 0, weight, exclusive=weight > 9) for weight in range(256)]),
    ends(PROTOCOL, "6.3", "PRIORITY on stream 0", priority(0, 1)),
    resets(1, SIZE, "6.3", "PRIORITY of another length", headers(1), frame(frames.PRIORITY, 0, 1, b"1234")),
    ends(SIZE, "6.3", "the same on an idle stream, which cannot be reset", frame(frames.PRIORITY, 0, 1, b"1234")),
    fine("6.3", "PRIORITY of an idle stream, then a lower one", priority(7), headers(1, end=True)),
    ends(PROTOCOL, "6.4", "RST_STREAM on stream 0", reset(0)),
    ends(SIZE, "6.4", "RST_STREAM of another length", headers(1), frame(frames.RST_STREAM, 0, 1, b"123")),
    ends(SIZE, "6.5", "an acknowledgement with settings", frame(frames.SETTINGS, frames.ACK, 0, bytes(6))),
    ends(PROTOCOL, "6.5", "SETTINGS on a stream", settings((3, 3), stream_id=1)),
    ends(SIZE, "6.5", "SETTINGS of no whole number of settings", frame(frames.SETTINGS, 0, 0, b"123")),
    ends(PROTOCOL, "6.5.2", "ENABLE_PUSH of 2", settings((frames.ENABLE_PUSH, 2))),
    fine("6.5.2", "ENABLE_PUSH of 0 and 1", settings((frames.ENABLE_PUSH, 0), (frames.ENABLE_PUSH, 1))),
    ends(FLOW, "6.5.2", "INITIAL_WINDOW_SIZE of 2^31", settings((frames.INITIAL_WINDOW_SIZE, 1 << 31))),
    fine("6.5.2", "INITIAL_WINDOW_SIZE of 2^31-1", settings((frames.INITIAL_WINDOW_SIZE, LARGEST))),
    ends(PROTOCOL, "6.5.2", "MAX_FRAME_SIZE below 2^14", settings((frames.MAX_FRAME_SIZE, 16_383))),
    ends(PROTOCOL, "6.5.2", "MAX_FRAME_SIZE above 2^24-1", settings((frames.MAX_FRAME_SIZE, 1 << 24))),
    fine("6.5.2", "MAX_FRAME_SIZE of 2^24-1", settings((frames.MAX_FRAME_SIZE, (1 << 24) - 1))),
    fine("6.5.2", "an unknown setting", settings((0x4242, 1), (0, 0), (0xFFFF, (1 << 32) - 1))),
    fine("6.5.3", "one setting twice", settings((frames.INITIAL_WINDOW_SIZE, 100), (frames.INITIAL_WINDOW_SIZE, 1))),
    ends(CALM, "6.5", "more settings than there are", settings(*[(0x4242, 1)] * 65)),
    ends(PROTOCOL, "6.7", "PING on a stream", ping(stream_id=1)),
    ends(SIZE, "6.7", "PING of another length", frame(frames.PING, 0, 0, b"1234567")),
    fine("6.7", "an acknowledgement of no PING", ping(ack=True)),
    ends(PROTOCOL, "6.8", "GOAWAY on a stream", goaway(stream_id=1)),
    ends(SIZE, "6.8", "GOAWAY that is too short", frame(frames.GOAWAY, 0, 0, b"1234567")),
    fine("6.8", "GOAWAY, and calls that go on", headers(1), goaway(0, debug=b"why"), data(1, b"x", end=True)),
    ends(PROTOCOL, "6.9", "an increment of 0 for the connection", window_update(0, 0)),
    resets(1, PROTOCOL, "6.9", "an increment of 0 for a stream", headers(1), window_update(1, 0)),
    ends(SIZE, "6.9", "WINDOW_UPDATE of another length", frame(frames.WINDOW_UPDATE, 0, 0, b"123")),
    fine("6.9", "WINDOW_UPDATE for the connection and a stream", headers(1), window_update(0, 1), window_update(1, 1)),
    fine("6.9", "the reserved bit of an increment", frame(frames.WINDOW_UPDATE, 0, 0, b"\x80\x00\x00\x01")),
    ends(FLOW, "6.9.1", "a window of the connection past 2^31-1", window_update(0, LARGEST), window_update(0, LARGEST)),
    resets(1, FLOW, "6.9.1", "a window of a stream past 2^31-1", headers(1), window_update(1, LARGEST)),
    ends(
        FLOW,
        "6.9.2",
        "a window of a stream past 2^31-1 by SETTINGS",
        headers(1),
        window_update(1, LARGEST - 65_535),
        settings((frames.INITIAL_WINDOW_SIZE, 1 << 20)),
    ),
    fine(
        "6.10",
        "several CONTINUATION",
        headers(1, block=BLOCK[:5], more=True),
        *[continuation(1, BLOCK[5:9], more=True), continuation(1, BLOCK[9:])],
    ),
    fine(
        "6.10",
        "empty CONTINUATION",
        headers(1, block=b"", more=True),
        continuation(1, b"", more=True),
        continuation(1, BLOCK),
    ),
    fine(
        "6.10",
        "CONTINUATION after END_STREAM",
        headers(1, block=BLOCK[:5], more=True, end=True),
        continuation(1, BLOCK[5:]),
    ),
    ends(PROTOCOL, "6.10", "anything else within a block", headers(1, more=True), data(1, b"x")),
    ends(PROTOCOL, "6.10", "PING within a block", headers(1, more=True), ping()),
    ends(PROTOCOL, "6.10", "CONTINUATION of another stream", headers(1, more=True), continuation(3)),
    ends(PROTOCOL, "6.10", "CONTINUATION on stream 0", headers(1, more=True), continuation(0)),
    ends(PROTOCOL, "6.10", "CONTINUATION after END_HEADERS", headers(1), continuation(1)),
    ends(PROTOCOL, "6.10", "CONTINUATION after the last", headers(1, more=True), continuation(1), continuation(1)),
    ends(PROTOCOL, "6.10", "CONTINUATION after DATA", headers(1), data(1, b"x"), continuation(1)),
    ends(CALM, "6.10", "CONTINUATION without end", headers(1, more=True), *[continuation(1, more=True)] * 16),
    fine("7", "GOAWAY with an unknown code", goaway(0, 0xFF)),
    fine("7", "RST_STREAM with an unknown code", headers(1), reset(1, 0xFF)),
]


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("line", CONNECTION + STATES + FRAMES, ids=str)
def test_a_server_keeps_the_rules_of_frames(line: Line, step: int) -> None:
    check(ByHand(limits=LIMITS), line, step)
