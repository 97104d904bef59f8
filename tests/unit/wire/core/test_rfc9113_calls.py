"""RFC 9113, section 8: what a server has to take or refuse of requests."""

from __future__ import annotations

import pytest

from mesh.wire import frames
from mesh.wire.headers import encode_block
from mesh.wire.limits import WireLimits
from tests.unit.wire.core.given import REQUEST, ByHand, data, frame, headers
from tests.unit.wire.core.rules import PROTOCOL, Line, check, ends, fine, resets

BLOCK = encode_block(REQUEST)
LIMITS = WireLimits(max_concurrent_streams=4, max_frame_bytes=16_384)


def without(name: bytes) -> list[tuple[bytes, bytes]]:
    return [field for field in REQUEST if field[0] != name]


def field(name: bytes, value: bytes) -> bytes:
    return headers(1, (*REQUEST, (name, value)), end=True)


CALLS = [
    fine("8.1", "a head, data and trailers", headers(1), data(1, b"x"), headers(1, [(b"x", b"y")], end=True)),
    fine(
        "8.1",
        "GET, HEAD and OPTIONS *",
        *[
            headers(number, [(b":method", method), (b":scheme", b"https"), (b":path", b"*")], end=True)
            for number, method in ((1, b"GET"), (3, b"HEAD"), (5, b"OPTIONS"))
        ],
    ),
    resets(1, PROTOCOL, "8.1", "trailers that do not end the stream", headers(1), headers(1, [(b"x", b"y")])),
    resets(1, PROTOCOL, "8.1", "a pseudo-header in trailers", headers(1), headers(1, [(b":method", b"GET")], end=True)),
    resets(
        1,
        PROTOCOL,
        "8.1.1",
        "less data than content-length",
        headers(1, (*REQUEST, (b"content-length", b"2"))),
        data(1, b"x", end=True),
    ),
    resets(
        1,
        PROTOCOL,
        "8.1.1",
        "more data than content-length",
        headers(1, (*REQUEST, (b"content-length", b"2"))),
        data(1, b"x"),
        data(1, b"xy"),
    ),
    resets(1, PROTOCOL, "8.1.1", "content-length and no data", field(b"content-length", b"2")),
    resets(
        1,
        PROTOCOL,
        "8.1.1",
        "trailers before all data",
        headers(1, (*REQUEST, (b"content-length", b"2"))),
        data(1, b"x"),
        headers(1, [], end=True),
    ),
    resets(1, PROTOCOL, "8.1.1", "a content-length that is none", field(b"content-length", b"-1")),
    resets(
        1,
        PROTOCOL,
        "8.1.1",
        "two lengths",
        headers(1, (*REQUEST, (b"content-length", b"0"), (b"content-length", b"1"))),
    ),
    fine(
        "8.1.1",
        "just the data of content-length",
        headers(1, (*REQUEST, (b"content-length", b"2"))),
        data(1, b"x", pad=4),
        data(1, b"x", end=True),
    ),
    resets(1, PROTOCOL, "8.2.1", "upper case", field(b"X-Upper", b"y")),
    resets(1, PROTOCOL, "8.2.1", "upper case in trailers", headers(1), headers(1, [(b"X", b"y")], end=True)),
    resets(1, PROTOCOL, "8.2.1", "a space in a name", field(b"a b", b"y")),
    resets(1, PROTOCOL, "8.2.1", "a control character in a name", field(b"a\x01", b"y")),
    resets(1, PROTOCOL, "8.2.1", "DEL in a name", field(b"a\x7f", b"y")),
    resets(1, PROTOCOL, "8.2.1", "a byte above ASCII in a name", field(b"a\x80", b"y")),
    resets(1, PROTOCOL, "8.2.1", "a colon within a name", field(b"a:b", b"y")),
    resets(1, PROTOCOL, "8.2.1", "an empty name", field(b"", b"y")),
    *[
        resets(1, PROTOCOL, "8.2.1", f"a value of {value!r}", field(b"a", value))
        for value in (b"x\x00", b"x\ry", b"\ny", b" x", b"x\t")
    ],
    fine("8.2.1", "a value of any other bytes", field(b"a", bytes(set(range(256)) - {0, 9, 10, 13, 32}) + b" x\ty")),
    *[
        resets(1, PROTOCOL, "8.2.2", f"{name.decode()}, which is of a connection", field(name, b"x"))
        for name in (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
    ],
    resets(1, PROTOCOL, "8.2.2", "te that says something else", field(b"te", b"trailers, deflate")),
    resets(1, PROTOCOL, "8.2.2", "connection in trailers", headers(1), headers(1, [(b"connection", b"x")], end=True)),
    resets(1, PROTOCOL, "8.3", "an unknown pseudo-header", headers(1, ((b":test", b"x"), *REQUEST))),
    resets(1, PROTOCOL, "8.3", "a pseudo-header of responses", headers(1, ((b":status", b"200"), *REQUEST))),
    resets(1, PROTOCOL, "8.3", "a pseudo-header after a field", headers(1, ((b"x", b"y"), *REQUEST))),
    *[
        resets(1, PROTOCOL, "8.3", f"{name.decode()} twice", headers(1, (pair, *REQUEST)))
        for pair in REQUEST[:4]
        for name in pair[:1]
    ],
    *[resets(1, PROTOCOL, "8.3.1", f"no {name.decode()}", headers(1, without(name))) for name, _ in REQUEST[:3]],
    *[
        resets(1, PROTOCOL, "8.3.1", f"an empty {name.decode()}", headers(1, [(name, b""), *without(name)]))
        for name, _ in REQUEST[:3]
    ],
    fine("8.3.1", "no :authority", headers(1, without(b":authority"))),
    resets(1, PROTOCOL, "8.3.1", "no field at all", headers(1, [])),
    ends(PROTOCOL, "8.4", "PUSH_PROMISE", frame(frames.PUSH_PROMISE, 4, 1, b"\x00\x00\x00\x02" + BLOCK)),
    fine("8.5", "CONNECT", headers(1, [(b":method", b"CONNECT"), (b":authority", b"x:1")])),
    resets(
        1,
        PROTOCOL,
        "8.5",
        "CONNECT with a path",
        headers(1, [(b":method", b"CONNECT"), (b":authority", b"x:1"), (b":path", b"/")]),
    ),
]


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("line", CALLS, ids=str)
def test_a_server_keeps_the_rules_of_requests(line: Line, step: int) -> None:
    check(ByHand(limits=LIMITS), line, step)
