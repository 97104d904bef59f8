"""Messages in a stream of data: any of them, cut anywhere, compressed or not."""

from __future__ import annotations

import gzip
import struct
import sys
import zlib

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.wire.messages import LONG_BYTES, MessageError, MessageReader, encode_message, prefix_of

SQUEEZE = {b"gzip": gzip.compress, b"deflate": zlib.compress}


@given(
    st.lists(st.tuples(st.one_of(st.binary(max_size=40), st.integers(0, 5000).map(bytes)), st.booleans()), max_size=8),
    st.lists(st.integers(1, 3000), min_size=1, max_size=20),
    st.sampled_from(sorted(SQUEEZE)),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_what_was_sent_is_read(
    messages: list[tuple[bytes, bool]], cuts: list[int], encoding: bytes, views: bool
) -> None:
    parts: list[bytes] = []
    for message, squeezed in messages:
        raw = SQUEEZE[encoding](message) if squeezed else message
        parts.append(struct.pack(">BI", squeezed, len(raw)) + raw)
    sent = b"".join(parts)
    reader = MessageReader(5000, encoding)
    place = index = 0
    read: list[bytes] = []
    while place < len(sent):
        piece = sent[place : place + cuts[index % len(cuts)]]
        reader.feed(memoryview(piece) if views else piece)
        assert reader.held_bytes <= place + len(piece)
        place, index = place + len(piece), index + 1
        while reader and index % 3 == 0:
            read.append(reader.take())
    assert not reader.partial
    while reader:
        read.append(reader.take())
    assert read == [message for message, _ in messages]
    assert reader.held_bytes == 0


@given(
    st.lists(st.tuples(st.sampled_from([0, 3, 5000, *(LONG_BYTES + n for n in range(-2, 3)), 400_000]), st.booleans())),
    st.lists(st.one_of(st.integers(1, 20), st.integers(1, 200_000)), min_size=1, max_size=12),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_long_messages_are_read(sizes: list[tuple[int, bool]], cuts: list[int], views: bool) -> None:
    messages = [(bytes((number % 251 + 1,)) * size, squeezed) for number, (size, squeezed) in enumerate(sizes[:5])]
    sent = b"".join(
        struct.pack(">BI", squeezed, len(message)) + message for message, squeezed in messages
    )  # what is said to be compressed here is looked at when it is taken
    reader = MessageReader(-1, b"gzip")
    place = index = 0
    while place < len(sent):
        cut = max(cuts[index % len(cuts)], len(sent) // 500)
        piece = sent[place : place + cut]
        reader.feed(memoryview(piece) if views else piece)
        place, index = place + len(piece), index + 1
        assert reader.held_bytes <= place
    assert not reader.partial
    assert reader.held_bytes == sum(size for size, _ in sizes[:5])
    for message, squeezed in messages:
        if squeezed:
            with pytest.raises(MessageError):
                reader.take()
        else:
            assert reader.take() == message
    assert reader.held_bytes == 0


def test_what_was_read_of_a_long_message_is_let_go() -> None:
    reader = MessageReader(-1)
    reader.feed(prefix_of(4 * LONG_BYTES) + b"begun")
    for number in range(8):
        piece = bytes((number,)) * 65_536
        alone = sys.getrefcount(piece)
        reader.feed(memoryview(piece))
        assert sys.getrefcount(piece) == alone
    reader.feed(bytes(4 * LONG_BYTES - 5 - 8 * 65_536))
    assert reader.take()[:6] == b"begun\0"


def test_encoding_is_what_reading_undoes() -> None:
    assert encode_message(b"abc") == b"\0\0\0\0\3abc" == prefix_of(3) + b"abc"
    reader = MessageReader(-1, b"gzip")
    reader.feed(encode_message(b"abc" * 100, compress=True))
    assert reader.take() == b"abc" * 100


@pytest.mark.parametrize(
    ("data", "encoding", "code"),
    [
        (b"\0\0\0\0\x0b" + bytes(11), b"identity", grpc.StatusCode.RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", b"identity", grpc.StatusCode.RESOURCE_EXHAUSTED),
        (b"\1\0\0\0\1x", b"identity", grpc.StatusCode.INTERNAL),
        (b"\2\0\0\0\1x", b"gzip", grpc.StatusCode.INTERNAL),
        (b"\1\0\0\0\1x", b"gzip", grpc.StatusCode.INTERNAL),
        (b"\1\0\0\0\0", b"gzip", grpc.StatusCode.INTERNAL),
        (b"\1\0\0\0\x0a" + gzip.compress(b"abc")[:10], b"gzip", grpc.StatusCode.INTERNAL),
        (b"\1\0\0\0\x0b" + bytes(11), b"deflate", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=[
        "too long",
        "far too long",
        "not announced",
        "unknown flag",
        "no gzip",
        "empty gzip",
        "cut off",
        "too long compressed",
    ],
)
def test_what_cannot_be_taken_is_refused(data: bytes, encoding: bytes, code: grpc.StatusCode) -> None:
    reader = MessageReader(10, encoding)

    def read() -> bytes:
        reader.feed(data)
        return reader.take()

    with pytest.raises(MessageError) as raised:
        read()
    assert raised.value.code is code


def test_a_bomb_is_not_unpacked_beyond_what_a_message_may_be() -> None:
    reader = MessageReader(100_000, b"gzip")
    squeezed = gzip.compress(bytes(100_001))
    reader.feed(struct.pack(">BI", 1, len(squeezed)) + squeezed)
    assert len(squeezed) < 1000
    with pytest.raises(MessageError, match=r"100001 vs\. 100000"):
        reader.take()
    squeezed = gzip.compress(bytes(100_000))
    reader.feed(struct.pack(">BI", 1, len(squeezed)) + squeezed)
    assert len(reader.take()) == 100_000
