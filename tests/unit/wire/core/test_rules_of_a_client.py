"""RFC 9113: what a client has to take, ignore or refuse of a server."""

from __future__ import annotations

import pytest

from mesh.wire import frames
from mesh.wire.events import GoingAway, HeadReceived, SettingsChanged, StreamReset, TrailersReceived
from mesh.wire.faults import ErrorCode
from mesh.wire.headers import encode_block
from tests.unit.wire.core.given import (
    REQUEST,
    RESPONSE,
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
from tests.unit.wire.core.rules import CLOSED, FLOW, PROTOCOL, SIZE, Line, check, ends, fine, resets

STATUS = [(b"grpc-status", b"0")]
INTERIM = [(b":status", b"103"), (b"link", b"x")]
LENGTH = [*RESPONSE, (b"content-length", b"2")]
ANSWER = headers(1, RESPONSE) + data(1, b"x") + headers(1, STATUS, end=True)

# The client has begun the calls 1, 3 and 5.
LINES = [
    fine("8.1", "a head, data and trailers", ANSWER),
    fine("8.1", "a head that ends the stream", headers(1, [*RESPONSE, *STATUS], end=True)),
    fine("8.1", "interim responses first", headers(1, INTERIM), headers(1, INTERIM), ANSWER),
    resets(1, PROTOCOL, "8.1", "an interim response that ends the stream", headers(1, INTERIM, end=True)),
    resets(1, PROTOCOL, "8.1", "data before the head", data(1, b"x")),
    resets(1, PROTOCOL, "8.1", "data after interim responses only", headers(1, INTERIM), data(1, b"x")),
    resets(1, PROTOCOL, "8.1", "trailers that do not end the stream", headers(1, RESPONSE), headers(1, STATUS)),
    resets(1, PROTOCOL, "8.1", "a pseudo-header in trailers", headers(1, RESPONSE), headers(1, RESPONSE, end=True)),
    resets(1, PROTOCOL, "8.1.1", "less data than content-length", headers(1, LENGTH), data(1, b"x", end=True)),
    resets(1, PROTOCOL, "8.1.1", "more data than content-length", headers(1, LENGTH), data(1, b"xyz")),
    resets(1, PROTOCOL, "8.1.1", "content-length and no data", headers(1, LENGTH, end=True)),
    fine("8.1.1", "304 and no data", headers(1, [(b":status", b"304"), (b"content-length", b"2")], end=True)),
    resets(1, PROTOCOL, "8.2.1", "upper case", headers(1, [*RESPONSE, (b"X", b"y")])),
    resets(1, PROTOCOL, "8.2.2", "a field of a connection", headers(1, [*RESPONSE, (b"connection", b"close")])),
    resets(1, PROTOCOL, "8.3.2", "no status", headers(1, RESPONSE[1:])),
    resets(1, PROTOCOL, "8.3.2", "a status of two digits", headers(1, [(b":status", b"20")])),
    resets(1, PROTOCOL, "8.3", "two statuses", headers(1, [RESPONSE[0], *RESPONSE])),
    resets(1, PROTOCOL, "8.3", "a pseudo-header of requests", headers(1, [(b":path", b"/"), *RESPONSE])),
    resets(1, PROTOCOL, "8.6", "a switch of protocols", headers(1, [(b":status", b"101")])),
    ends(PROTOCOL, "5.1.1", "a stream of the server's", headers(2, RESPONSE)),
    ends(PROTOCOL, "5.1", "HEADERS on an idle stream", headers(7, RESPONSE)),
    ends(PROTOCOL, "5.1", "DATA on an idle stream", data(7, b"x")),
    ends(PROTOCOL, "5.1", "RST_STREAM on an idle stream", reset(7)),
    ends(PROTOCOL, "5.1", "WINDOW_UPDATE on an idle stream", window_update(7, 1)),
    fine("5.1", "PRIORITY on any stream", priority(1), priority(7), priority(2)),
    resets(1, CLOSED, "5.1", "DATA after the end", headers(1, RESPONSE, end=True), data(1, b"x")),
    resets(1, CLOSED, "5.1", "HEADERS after the end", headers(1, RESPONSE, end=True), headers(1, STATUS, end=True)),
    ends(CLOSED, "5.1", "HEADERS after RST_STREAM", reset(1), headers(1, RESPONSE)),
    resets(1, CLOSED, "5.1", "DATA after RST_STREAM", reset(1), data(1, b"x")),
    ends(PROTOCOL, "6.5.2", "ENABLE_PUSH from a server", settings((frames.ENABLE_PUSH, 1))),
    fine("6.5.2", "ENABLE_PUSH of 0 from a server", settings((frames.ENABLE_PUSH, 0))),
    ends(PROTOCOL, "8.4", "a push", frame(frames.PUSH_PROMISE, 4, 1, b"\x00\x00\x00\x02" + encode_block(REQUEST))),
    ends(PROTOCOL, "6.10", "a frame within a header block", headers(1, RESPONSE, more=True), data(1, b"x")),
    fine("6.10", "CONTINUATION", headers(1, block=b"", more=True), continuation(1, encode_block(RESPONSE))),
    ends(FLOW, "6.9.1", "a window past 2^31-1", window_update(0, (1 << 31) - 1)),
    resets(3, FLOW, "6.9.1", "a window of a stream past 2^31-1", window_update(3, (1 << 31) - 1)),
    resets(3, PROTOCOL, "6.9", "an increment of 0", window_update(3, 0)),
    ends(SIZE, "6.4", "RST_STREAM of another length", frame(frames.RST_STREAM, 0, 1, b"")),
    fine("6.8", "GOAWAY with calls that go on", goaway(5, debug=b"bye"), ANSWER),
]


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_client_keeps_the_rules(line: Line, step: int) -> None:
    check(ByHand(client=True, calls=3), line, step)


def test_a_client_says_that_it_takes_no_push() -> None:
    (told, window) = ByHand(client=True, hello=False).hello
    assert (told.kind, window.kind) == (frames.SETTINGS, frames.WINDOW_UPDATE)
    assert b"\x00\x02\x00\x00\x00\x00" in told.payload
    assert b"\x00\x03" not in [told.payload[place : place + 2] for place in range(0, len(told.payload), 6)]


@pytest.mark.parametrize("first", [ping(), headers(1, RESPONSE), frame(0xFE, 0, 0), settings(ack=True), goaway()])
def test_the_first_frame_of_a_server_is_settings(first: bytes) -> None:
    peer = ByHand(client=True, hello=False)
    assert not peer.connection.settled
    peer.send(first)
    assert peer.taken()[-1].code == PROTOCOL
    assert peer.connection.terminated


def test_interim_responses_are_not_told() -> None:
    told = ByHand(client=True, calls=1).send(headers(1, INTERIM), ANSWER)
    assert [type(event) for event in told][::2] == [HeadReceived, TrailersReceived]


def test_calls_above_the_last_that_the_server_takes_were_refused() -> None:
    peer = ByHand(client=True, calls=3)
    assert peer.connection.can_open
    told = peer.send(goaway(1, ErrorCode.NO_ERROR, debug=b"bye"))
    refused = [(event.stream_id, event.code, event.remote) for event in told if isinstance(event, StreamReset)]
    assert refused == [(3, ErrorCode.REFUSED_STREAM, True), (5, ErrorCode.REFUSED_STREAM, True)]
    (away,) = [event for event in told if isinstance(event, GoingAway)]
    assert (away.last_stream_id, away.code, away.debug) == (1, ErrorCode.NO_ERROR, b"bye")
    assert list(peer.connection.streams) == [1]
    assert peer.connection.exhausted
    assert not peer.connection.can_open
    # What the server had sent for them before is late, not wrong; and the first call goes on.
    assert len(peer.send(headers(3, RESPONSE), data(3, b"x"), ANSWER)) == 3
    assert peer.taken() == []


def test_a_warning_of_goaway_refuses_nothing_but_new_calls() -> None:
    peer = ByHand(client=True, calls=2)
    assert [type(event) for event in peer.send(goaway((1 << 31) - 1))] == [GoingAway]
    assert len(peer.connection.streams) == 2


def test_what_a_server_sends_for_calls_that_were_cancelled_is_late_and_not_wrong() -> None:
    # Many more than are remembered one by one, as when all hedges of a while are cancelled.
    peer = ByHand(client=True, calls=1000)
    for stream_id in range(1, 2000, 2):
        peer.connection.reset(stream_id, ErrorCode.CANCEL)
    assert len(peer.taken()) == 1000
    for stream_id in range(1, 2000, 2):
        assert peer.send(headers(stream_id, RESPONSE), data(stream_id, b"x" * 2000)) == []
        assert peer.send(headers(stream_id, STATUS, end=True)) == []
    assert peer.taken() == []
    assert not peer.connection.terminated


def test_a_call_that_was_given_up_before_its_head_leaves_no_trace() -> None:
    peer = ByHand(client=True)
    first, second = peer.connection.open_stream(), peer.connection.open_stream()
    peer.connection.reset(first, ErrorCode.CANCEL)
    peer.connection.send_head(second, encode_block(REQUEST), end=True)
    assert [(answer.kind, answer.stream_id) for answer in peer.taken()] == [(frames.HEADERS, second)]
    assert list(peer.connection.streams) == [second]


def test_as_many_calls_are_open_as_the_server_takes() -> None:
    peer = ByHand(client=True, calls=2)
    assert [type(event) for event in peer.send(settings((frames.MAX_CONCURRENT_STREAMS, 2)))] == [SettingsChanged]
    assert not peer.connection.can_open
    assert not peer.connection.exhausted
    peer.send(reset(1))
    assert peer.connection.can_open
    assert peer.connection.open_stream() == 5


def test_numbers_of_streams_run_out() -> None:
    peer = ByHand(client=True)
    peer.connection._state.next_id = (1 << 31) - 1  # pyright: ignore[reportPrivateUsage]
    assert peer.connection.can_open
    assert peer.connection.open_stream() == (1 << 31) - 1
    assert peer.connection.exhausted
    assert not peer.connection.can_open
