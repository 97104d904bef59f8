"""Whatever a peer sends, a connection raises nothing, holds little and tells of things in their order."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.wire import frames
from mesh.wire.faults import ErrorCode
from tests.unit.wire.core import given as by_hand
from tests.unit.wire.core.oracle import LIMITS, Oracle, drive, framed
from tests.unit.wire.core.recorded import Recording, record

ROLE = st.sampled_from([False, True])
CHOICES = st.binary(max_size=32)
NUMBERS = st.integers(0, 20)
PAYLOADS = st.one_of(st.binary(max_size=40), st.integers(0, 20_000).map(bytes))
FIELDS = st.lists(
    st.one_of(
        st.sampled_from([*by_hand.REQUEST, *by_hand.RESPONSE, (b"grpc-status", b"0"), (b"content-length", b"5")]),
        st.tuples(st.binary(max_size=10), st.binary(max_size=10)),
    ),
    max_size=12,
)
BLOCKS = st.one_of(
    st.sampled_from([by_hand.REQUEST, by_hand.RESPONSE, [(b"grpc-status", b"0")]]).map(by_hand.encode_block),
    FIELDS.map(by_hand.encode_block),
    st.binary(max_size=60),
)
SETTINGS = st.lists(st.tuples(st.integers(0, 7), st.sampled_from([0, 1, 16_384, 65_536])), max_size=4)
FRAMES = st.one_of(
    st.builds(by_hand.headers, NUMBERS, block=BLOCKS, end=st.booleans(), more=st.sampled_from([False, False, True])),
    st.builds(by_hand.continuation, NUMBERS, BLOCKS, more=st.booleans()),
    st.builds(by_hand.data, NUMBERS, PAYLOADS, end=st.booleans(), pad=st.one_of(st.none(), st.integers(0, 255))),
    st.builds(by_hand.reset, NUMBERS, st.sampled_from(list(ErrorCode))),
    st.builds(by_hand.window_update, NUMBERS, st.one_of(st.integers(0, 5), st.sampled_from([70_000, (1 << 31) - 1]))),
    st.builds(by_hand.priority, NUMBERS, NUMBERS),
    SETTINGS.map(lambda pairs: by_hand.settings(*pairs)),
    st.builds(by_hand.ping, ack=st.booleans()),
    st.builds(by_hand.goaway, NUMBERS),
    st.builds(by_hand.frame, st.integers(0, 12), st.integers(0, 255), NUMBERS, PAYLOADS),
)


@given(ROLE, st.binary(max_size=300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes(client: bool, data: bytes, hello: bool) -> None:
    drive(data, client=client, hello=hello)


@given(ROLE, CHOICES, st.binary(max_size=600))
@settings(max_examples=300, deadline=None)
def test_any_frames(client: bool, choices: bytes, data: bytes) -> None:
    drive(bytes((len(choices),)) + choices + framed(data), client=client)


@given(ROLE, st.lists(st.tuples(FRAMES, CHOICES), max_size=40), st.sampled_from([0, 1, 7]))
@settings(max_examples=400, deadline=None)
def test_frames_that_make_some_sense(client: bool, sent: list[tuple[bytes, bytes]], step: int) -> None:
    oracle = Oracle(client=client)
    oracle.receive((b"" if client else frames.PREFACE) + by_hand.settings() + by_hand.settings(ack=True))
    for piece, choices in sent:
        for start in range(0, len(piece), step if step and len(piece) < 500 else len(piece)):
            size = step if step and len(piece) < 500 else len(piece)
            oracle.receive(piece[start : start + size], choices)


@pytest.mark.parametrize("sizes", [(LIMITS.max_header_bytes + 1,), (8000, LIMITS.max_header_bytes - 7999)])
def test_no_more_of_an_unfinished_header_block_is_held_than_its_bound(sizes: tuple[int, ...]) -> None:
    first, *rest = (bytes(size) for size in sizes)
    sent = [by_hand.headers(1, block=first, more=True), *[by_hand.continuation(1, one, more=True) for one in rest]]
    oracle = Oracle(client=False)
    oracle.receive(frames.PREFACE + by_hand.settings() + by_hand.settings(ack=True))
    for one in sent:
        assert not oracle.over
        oracle.receive(one)
    assert oracle.over


@cache
def recording() -> Recording:
    return asyncio.run(record())


EDITS = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "twice", "insert", "swap"]), st.floats(0, 1), st.integers(0, 255)),
    max_size=4,
)


def edited(data: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    for edit, where, what in edits:
        place = int(where * len(data))
        piece = data[place : place + what]
        match edit:
            case "flip":
                data = data[:place] + bytes((what,)) + data[place + 1 :]
            case "cut":
                data = data[:place] + data[place + what :]
            case "twice":
                data = data[:place] + piece + data[place:]
            case "insert":
                data = data[:place] + bytes((what,)) * 9 + data[place:]
            case _:
                data = data[:place] + data[place + what :][:what] + piece + data[place + 2 * what :]
    return data


@given(ROLE, EDITS, CHOICES, st.sampled_from([50, 1000, 1 << 20]))
@settings(max_examples=200, deadline=None)
def test_what_real_peers_said_and_somebody_changed(
    client: bool, edits: list[tuple[str, float, int]], choices: bytes, step: int
) -> None:
    said = recording().by_server if client else recording().by_client
    data = edited(said, edits)
    oracle = Oracle(client=client)
    for start in range(0, len(data), step):
        oracle.receive(data[start : start + step], choices)


def test_what_real_peers_said_is_understood() -> None:
    for client, said in ((False, recording().by_client), (True, recording().by_server)):
        oracle = Oracle(client=client)
        while client and len(oracle.phases) < 12:
            oracle.begin()
        for start in range(0, len(said), 9):
            # An answer in which both halves end, so that there is room for the next call.
            oracle.receive(said[start : start + 9], b"\4" * 8)
        assert not oracle.over
        assert len([phase for phase in oracle.phases.values() if phase != "head"]) >= 10
