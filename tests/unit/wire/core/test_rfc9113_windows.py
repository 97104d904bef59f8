"""RFC 9113, 5.2 and 6.9: what a server sends within its client's windows, and when it opens its own."""

from __future__ import annotations

import pytest

from mesh.wire import frames
from mesh.wire.events import DataReceived, StreamReset, WindowOpened
from mesh.wire.faults import ErrorCode
from mesh.wire.headers import encode_block
from mesh.wire.limits import WireLimits
from tests.unit.wire.core.given import RESPONSE, ByHand, Frame, data, headers, ping, reset, settings, window_update
from tests.unit.wire.core.rules import CLOSED

INITIAL, LARGEST_FRAME = frames.INITIAL_WINDOW_SIZE, frames.MAX_FRAME_SIZE
TRAILERS = encode_block([(b"grpc-status", b"0")])


def sizes(answers: list[Frame], stream_id: int = 1) -> list[int]:
    return [len(one.payload) for one in answers if one.kind == frames.DATA and one.stream_id == stream_id]


def answering(*first: bytes, streams: int = 1) -> ByHand:
    """A server that was asked, and has sent the heads of its answers."""
    peer = ByHand()
    peer.send(*first, *[headers(2 * index + 1, end=True) for index in range(streams)])
    for index in range(streams):
        peer.connection.send_head(2 * index + 1, encode_block(RESPONSE))
    peer.taken()
    return peer


def test_6_9_1_a_window_of_one_lets_one_byte_out() -> None:
    peer = answering(settings((INITIAL, 1)))
    peer.connection.send_data(1, b"answer")
    peer.connection.send_trailers(1, TRAILERS)
    assert sizes(peer.taken()) == [1]
    peer.send(window_update(1, 2))
    assert sizes(peer.taken()) == [2]
    told = peer.send(window_update(1, 100))
    assert [type(event) for event in told] == [WindowOpened]
    answers = peer.taken()
    assert sizes(answers) == [3]
    assert (answers[-1].kind, answers[-1].flags & frames.END_STREAM) == (frames.HEADERS, frames.END_STREAM)
    assert not peer.connection.streams


def test_6_5_3_of_one_setting_twice_the_last_holds() -> None:
    peer = answering(settings((INITIAL, 100), (INITIAL, 1)))
    peer.connection.send_data(1, b"answer")
    assert sizes(peer.taken()) == [1]


def test_6_5_3_settings_are_acknowledged_in_their_order() -> None:
    peer = ByHand()
    peer.send(settings((INITIAL, 1)), ping(b"between."), settings((INITIAL, 2)))
    assert [(one.kind, one.flags) for one in peer.taken()] == [(4, 1), (6, 1), (4, 1)]


def test_6_9_2_settings_change_the_windows_of_streams_that_are_open() -> None:
    peer = answering(settings((INITIAL, 0)), streams=2)
    for stream_id in (1, 3):
        peer.connection.send_data(stream_id, b"answer", end=True)
    assert sizes(peer.taken()) == []
    peer.send(settings((INITIAL, 4)))
    answers = peer.taken()
    assert (sizes(answers), sizes(answers, 3)) == ([4], [4])


def test_6_9_2_a_window_may_be_below_zero() -> None:
    peer = answering(settings((INITIAL, 10)))
    peer.connection.send_data(1, bytes(20))
    assert sizes(peer.taken()) == [10]
    peer.send(settings((INITIAL, 3)), window_update(1, 7))
    assert sizes(peer.taken()) == []
    peer.send(window_update(1, 1))
    assert sizes(peer.taken()) == [1]
    peer.send(settings((INITIAL, 100)))
    assert sizes(peer.taken()) == [9]


def test_6_9_the_end_needs_no_window() -> None:
    peer = answering(settings((INITIAL, 0)))
    peer.connection.send_data(1, b"", end=True)
    (end,) = peer.taken()
    assert (end.kind, end.payload, end.flags) == (frames.DATA, b"", frames.END_STREAM)


def test_6_9_1_the_window_of_the_connection_is_for_all_streams_and_each_has_its_turn() -> None:
    peer = answering(settings((INITIAL, 1 << 20)), streams=3)
    for stream_id in (1, 3, 5):
        peer.connection.send_data(stream_id, bytes(40_000), end=True)
    answers = peer.taken()
    assert (sum(sizes(answers)), sum(sizes(answers, 3)), sizes(answers, 5)) == (40_000, 25_535, [])
    peer.send(window_update(0, 10))
    assert sum(sizes(peer.taken(), 3)) == 10
    peer.send(window_update(0, 10))
    assert sum(sizes(peer.taken(), 5)) == 10
    peer.send(window_update(0, 1 << 20))
    answers = peer.taken()
    assert (sum(sizes(answers, 3)), sum(sizes(answers, 5))) == (40_000 - 25_545, 39_990)


def test_6_9_2_settings_do_not_change_the_window_of_the_connection() -> None:
    peer = answering(settings((INITIAL, 1 << 20)))
    peer.connection.send_data(1, bytes(100_000))
    assert sum(sizes(peer.taken())) == 65_535


@pytest.mark.parametrize("largest", [16_384, 20_000, 1 << 20])
def test_4_2_frames_are_no_longer_than_the_client_takes(largest: int) -> None:
    peer = answering(settings((INITIAL, 1 << 20), (LARGEST_FRAME, largest)), window_update(0, 1 << 20))
    peer.connection.send_data(1, bytes(50_000))
    found = sizes(peer.taken())
    assert sum(found) == 50_000
    assert max(found) == min(largest, 50_000)
    peer = answering(settings((LARGEST_FRAME, largest)), streams=2)
    peer.connection.send_trailers(1, encode_block([(b"long", b"x" * 40_000)]))
    blocks = peer.taken()
    assert max(len(one.payload) for one in blocks) <= largest
    assert [one.flags & frames.END_HEADERS for one in blocks] == [0] * (len(blocks) - 1) + [frames.END_HEADERS]
    assert blocks[0].flags & frames.END_STREAM


def test_5_1_what_waits_for_a_stream_that_was_reset_is_forgotten() -> None:
    peer = answering(settings((INITIAL, 1)))
    peer.connection.send_data(1, bytes(1000), end=True)
    peer.taken()
    told = peer.send(reset(1), window_update(1, 1000), window_update(0, 1000))
    assert [type(event) for event in told] == [StreamReset]
    assert peer.taken() == []
    assert peer.connection.sender.waiting_bytes == 0


# What we take.

LIMITS = WireLimits(stream_window_bytes=100_000, connection_window_bytes=200_000, max_frame_bytes=16_384)


def test_6_9_windows_are_told_at_first_and_opened_when_half_was_consumed() -> None:
    peer = ByHand(limits=LIMITS, hello=False)
    assert [(one.kind, one.payload[-4:]) for one in peer.hello[1:]] == [(8, (200_000 - 65_535).to_bytes(4, "big"))]
    peer = ByHand(limits=LIMITS)
    peer.send(headers(1))
    peer.taken()
    events = [event for _ in range(3) for event in peer.send(data(1, bytes(16_000)))]
    peer.consume(events)
    assert peer.taken() == []
    peer.consume(peer.send(data(1, bytes(2000))))
    (opened,) = peer.taken()
    assert (opened.kind, opened.stream_id, int.from_bytes(opened.payload, "big")) == (8, 1, 50_000)


def test_6_9_what_is_not_consumed_closes_the_window() -> None:
    peer = ByHand(limits=LIMITS)
    peer.send(
        headers(1), headers(3), *[data(1, bytes(16_000)) for _ in range(6)], *[data(3, bytes(16_000)) for _ in range(6)]
    )
    peer.taken()
    peer.send(data(1, bytes(4001)))
    (answer,) = peer.taken()
    assert (answer.kind, answer.stream_id, answer.code) == (frames.RST_STREAM, 1, ErrorCode.FLOW_CONTROL_ERROR)
    peer.send(headers(5), data(5, bytes(8001)))
    assert peer.taken()[-1].code == ErrorCode.FLOW_CONTROL_ERROR
    assert peer.connection.terminated


def test_6_9_2_the_end_needs_no_window_even_below_zero() -> None:
    # What came before the client knew our settings counts against a window that these made smaller.
    peer = ByHand(limits=WireLimits(stream_window_bytes=1), hello=False)
    peer.send(frames.PREFACE, settings(), headers(1), data(1, b"xy"), settings(ack=True), headers(3))
    peer.taken()
    assert peer.connection.streams[1].receive_window == -1
    assert [type(event) for event in peer.send(data(1, b"", end=True))] == [DataReceived]
    peer.send(data(3, b"x"), data(3, b"x"))
    assert [(one.kind, one.stream_id) for one in peer.taken()] == [(frames.RST_STREAM, 3)]


def test_6_9_1_padding_counts() -> None:
    peer = ByHand(limits=LIMITS)
    events = peer.send(headers(1), *[data(1, b"x", pad=255) for _ in range(200)])
    received = [event for event in events if isinstance(event, DataReceived)]
    assert {event.flow_bytes for event in received} == {257}
    peer.consume(events)
    assert [int.from_bytes(one.payload, "big") for one in peer.taken()] == [195 * 257]


def test_6_9_data_that_nobody_takes_is_given_back_to_the_connection() -> None:
    peer = ByHand(limits=LIMITS)
    peer.send(headers(1))
    peer.connection.reset(1, ErrorCode.CANCEL)
    peer.taken()
    for _ in range(50):
        peer.send(data(1, bytes(16_000)))
    opened = [int.from_bytes(one.payload, "big") for one in peer.taken() if one.kind == 8]
    assert sum(opened) >= 50 * 16_000 - 100_000
    assert not peer.connection.terminated


# 5.1: streams that are over because both sides have ended them.


@pytest.mark.parametrize("split", [False, True])
def test_5_1_a_stream_that_was_answered_is_closed(split: bool) -> None:
    def answered() -> ByHand:
        peer = ByHand()
        peer.answer(peer.send(headers(1), data(1, b"x", end=True)))
        peer.taken()
        return peer

    peer = answered()
    peer.send(window_update(1, 5), reset(1))
    assert peer.taken() == []
    peer.send(data(1, b"x"))
    assert [(one.kind, one.code) for one in peer.taken()] == [(frames.RST_STREAM, CLOSED)]
    peer = answered()
    peer.send(headers(1, end=True), step=1 if split else 0)
    assert peer.taken()[-1].code == CLOSED
    assert peer.connection.terminated


def test_6_8_goaway_names_the_last_stream_that_was_taken() -> None:
    peer = ByHand()
    peer.send(headers(1), headers(5))
    peer.connection.go_away()
    peer.send(headers(7, end=True), headers(9))
    peer.send(data(5, b"x"), data(9, b"x"))
    (away,) = peer.taken()
    assert (away.kind, away.payload[:4]) == (frames.GOAWAY, b"\0\0\0\5")
    assert list(peer.connection.streams) == [1, 5]
    peer.connection.go_away(ErrorCode.INTERNAL_ERROR)
    (again,) = peer.taken()
    assert again.payload[:4] == b"\0\0\0\5"
