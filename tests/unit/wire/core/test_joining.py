"""Whole calls read at once are told of as they are when each frame is told of, and leave the same behind."""
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.wire import frames
from mesh.wire.connection import Connection
from mesh.wire.events import DataReceived, Event, RequestReceived, ResponseReceived
from mesh.wire.faults import ErrorCode
from mesh.wire.headers import encode_block, encode_field
from mesh.wire.limits import WireLimits
from mesh.wire.streams import Stream
from tests.unit.wire.core import given as by_hand
from tests.unit.wire.core.oracle import LIMITS
from tests.unit.wire.core.test_any_bytes import CHOICES, EDITS, FRAMES, edited, recording

ENDING = encode_block([(b"grpc-status", b"0")])
MESSAGES = st.one_of(st.binary(max_size=30), st.sampled_from([9000, 16_300, 16_379, 16_380]))
"""Bytes, or so many of them."""
TIMEOUTS = st.sampled_from([b"", b"1S", b"29999m", b"30000m"])


def framed(message: bytes | int, squeezed: int = 0, more: int = 0) -> bytes:
    message = bytes(message)
    return bytes((squeezed,)) + max(len(message) + more, 0).to_bytes(4, "big") + message


def request(stream_id: int, message: bytes | int, timeout: bytes = b"", *form: int) -> bytes:
    block = encode_block(by_hand.REQUEST) + (encode_field(b"grpc-timeout", timeout) if timeout else b"")
    return by_hand.headers(stream_id, block=block) + by_hand.data(stream_id, framed(message, *form), end=True)


def response(stream_id: int, message: bytes | int, *form: int) -> bytes:
    head = by_hand.headers(stream_id, block=encode_block(by_hand.RESPONSE))
    tail = by_hand.headers(stream_id, block=ENDING, end=True)
    return head + by_hand.data(stream_id, framed(message, *form)) + tail


def told(events: Iterable[Event]) -> list[Any]:
    """What events say, each in parts that can be compared."""
    found: list[Any] = []
    for event in events:
        for part in event.apart() if isinstance(event, RequestReceived | ResponseReceived) else (event,):
            said = {name: getattr(part, name) for name in part.__slots__}
            if "headers" in said:
                said["headers"] = said["headers"].fields
            if isinstance(part, DataReceived):
                said["data"] = bytes(part.data)
            found.append((type(part), said))
    return found


def held(connection: Connection) -> dict[str, Any]:
    """All that a connection knows."""
    state = connection._state
    found = {
        name: getattr(state, name) for name in state.__slots__ if name not in ("budget", "reader", "sender", "peer")
    }
    found["streams"] = {
        number: {name: getattr(stream, name) for name in Stream.__slots__ if name != "waiting"}
        for number, stream in state.streams.items()
    }
    found["block"] = state.block and state.block.pieces
    for part in (state.budget, state.sender, state.reader):
        names = [name for name in part.__slots__ if isinstance(getattr(part, name), int | float)]
        found |= {f"{type(part).__name__}.{name}": getattr(part, name) for name in names}
    found["remembered"] = [list(state.reader.heads), list(state.reader.trailers)]
    found["rounds"] = connection.rounds
    return found


class Both:
    """Two connections to which the same happens; one of them joins."""

    def __init__(self, *, client: bool, calls: int = 6, limits: WireLimits = LIMITS) -> None:
        self.client = client
        self.joined = 0
        self.pair = [
            Connection(client=client, limits=limits, joins=joins, clock=lambda: 0.0) for joins in (False, True)
        ]
        for one in self.pair:
            one.start()
            if client:
                for number in range(calls):
                    block = encode_block(by_hand.REQUEST)
                    stream_id = one.open_stream()
                    one.send_head(stream_id, block, end=number % 3 > 0)
            one.take()
        self.send((b"" if client else frames.PREFACE) + by_hand.settings() + by_hand.settings(ack=True))

    def send(self, data: bytes, choices: bytes = b"") -> None:
        events = [one.receive(data) for one in self.pair]
        self.joined += sum(isinstance(event, RequestReceived | ResponseReceived) for event in events[1])
        assert told(events[0]) == told(events[1])
        assert held(self.pair[0]) == held(self.pair[1])
        for one, of in zip(self.pair, events, strict=True):
            self.act(one, of, choices)
        assert self.pair[0].take() == self.pair[1].take()
        assert held(self.pair[0]) == held(self.pair[1])

    def act(self, one: Connection, events: Iterable[Event], choices: bytes) -> None:
        for event in events:
            if isinstance(event, DataReceived | RequestReceived | ResponseReceived):
                one.acknowledge(event.stream_id, event.flow_bytes)
        for choice, stream_id in zip(choices, list(one.streams), strict=False):
            if choice & 3 == 1:
                one.reset(stream_id, ErrorCode.CANCEL)
            elif one.streams[stream_id].sending == 0:
                one.send_head(stream_id, encode_block(by_hand.RESPONSE), end=choice & 4 > 0)
            elif choice & 8:
                one.send_data(stream_id, bytes(choice * 50), end=choice & 16 > 0)


FORM = st.one_of(st.just((0, 0)), st.tuples(st.integers(0, 2), st.integers(-1, 1)))
WHOLE = st.one_of(
    st.tuples(st.sampled_from([1, 3, 5, 7, 9, 11, 13]), MESSAGES, TIMEOUTS, FORM).map(
        lambda drawn: request(*drawn[:3], *drawn[3])
    ),
    st.tuples(st.sampled_from([1, 3, 5, 7, 9, 11]), MESSAGES, FORM).map(lambda drawn: response(*drawn[:2], *drawn[2])),
)


@given(
    st.booleans(),
    st.lists(st.tuples(st.lists(st.one_of(WHOLE, WHOLE, FRAMES), min_size=1, max_size=8), CHOICES), max_size=10),
    st.sampled_from([0, 0, 0, 200]),
)
@settings(max_examples=300, deadline=None)
def test_any_frames(client: bool, sent: list[tuple[list[bytes], bytes]], step: int) -> None:
    both = Both(client=client)
    for pieces, choices in sent:
        data = b"".join(pieces)
        size = step if step and len(data) < 20_000 else len(data) or 1
        for start in range(0, len(data), size):
            both.send(data[start : start + size], choices)


@given(
    st.lists(st.tuples(st.integers(0, 2), MESSAGES, TIMEOUTS, st.booleans()), max_size=20),
    st.sampled_from([0, 1, 2]),
    CHOICES,
)
@settings(max_examples=200, deadline=None)
def test_calls_in_their_order(
    calls: list[tuple[int, bytes | int, bytes, bool]], remembered: int, choices: bytes
) -> None:
    both = Both(client=False, limits=WireLimits(remembered_blocks=remembered, max_concurrent_streams=8))
    number = 1
    data = b""
    for skipped, message, timeout, read in calls:
        data += request(number, message, timeout)
        number += 2 * (1 + skipped // 2)
        if read:
            both.send(data, choices)
            data = b""
    both.send(data, choices)


@given(st.booleans(), EDITS, CHOICES, st.sampled_from([1000, 1 << 20]))
@settings(max_examples=100, deadline=None)
def test_what_real_peers_said_and_somebody_changed(
    client: bool, edits: list[tuple[str, float, int]], choices: bytes, step: int
) -> None:
    said = recording().by_server if client else recording().by_client[len(frames.PREFACE) :]
    data = edited(said, edits)
    both = Both(client=client)
    for start in range(0, len(data), step):
        both.send(data[start : start + step], choices)


@pytest.mark.parametrize("client", [False, True])
def test_whole_calls_are_joined_from_the_second_on(client: bool) -> None:
    both = Both(client=client, calls=6)
    one = response if client else request
    numbers = (3, 5, 9, 11) if client else (1, 3, 5, 7)
    both.send(b"".join(one(number, b"message") for number in numbers))
    assert both.joined == 3


def test_requests_with_a_timeout_are_joined() -> None:
    both = Both(client=False)
    both.send(
        b"".join(request(number, b"message", timeout) for number, timeout in ((1, b"1S"), (3, b"2S"), (5, b"2S")))
    )
    assert both.joined == 2


def test_a_call_that_is_taken_back_in_the_same_read_is_not_told_of() -> None:
    both = Both(client=False)
    both.send(request(1, b"a"))
    both.send(request(3, b"b") + request(5, b"c") + by_hand.reset(3, ErrorCode.CANCEL))
    assert both.joined == 1
    assert list(both.pair[1].streams) == [1, 5]


def test_no_more_calls_are_joined_than_may_be_open() -> None:
    both = Both(client=False)
    both.send(b"".join(request(number, b"x") for number in range(1, 41, 2)))
    assert both.joined == LIMITS.max_concurrent_streams - 1
