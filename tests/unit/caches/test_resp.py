"""RESP2: replies whole in any pieces, and nothing kept without a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.caches.resp import Reply, ReplyError, ReplyReader, RespError, encode_command

WORDS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=9)
REPLIES: st.SearchStrategy[Reply] = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20) | st.builds(ReplyError, WORDS),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


def written(reply: Reply) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case ReplyError():
            return b"-" + reply.text.encode() + b"\r\n"
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(written, reply))


@given(st.lists(REPLIES, max_size=6), st.data())
def test_replies_are_read_in_any_pieces(replies: list[Reply], data: st.DataObject) -> None:
    text = b"".join(map(written, replies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    reader = ReplyReader(100)
    found: list[Reply] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += reader.feed(text[start:end])
    assert found == replies


@given(st.binary(max_size=100), st.integers(1, 9))
def test_rubbish_is_refused_or_makes_replies_and_raises_nothing_else(text: bytes, step: int) -> None:
    reader = ReplyReader(100)
    try:
        for start in range(0, len(text), step):
            reader.feed(text[start : start + step])
    except RespError:
        pass


def test_simple_strings_are_bytes() -> None:
    assert ReplyReader(100).feed(b"+OK\r\n*-1\r\n$0\r\n\r\n*0\r\n") == [b"OK", None, b"", []]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (b"?\r\n", "begins with"),
        (b"\r\n", "begins with"),
        (b"$101\r\n", "a value of 101 bytes, where at most 100 are taken"),
        (b"$-2\r\n", "a length of -2"),
        (b"*-2\r\n", "a length of -2"),
        (b"*1048577\r\n", "an array of 1048577 items"),
        (b"*1\r\n" * 9, "on level 8"),
        (b"$3\r\nabcde", "longer than it said"),
        (b":1_0\r\n", "where a number has to be"),
        (b": 1\r\n", "where a number has to be"),
        (b":\r\n", "where a number has to be"),
        (b":%d\r\n" % 10**30, "where a number has to be"),
        (b"+" + b"x" * 65_536, "a line of more than 65536 bytes"),
    ],
)
def test_what_makes_no_sense_or_too_much_is_refused(text: bytes, wrong: str) -> None:
    with pytest.raises(RespError, match=wrong):
        ReplyReader(100).feed(text)


def test_a_long_value_in_small_pieces_is_joined_once() -> None:
    value = bytes(1 << 20)
    reader = ReplyReader(1 << 20)
    assert reader.feed(b"$%d\r\n" % len(value)) == []
    for start in range(0, len(value), 4096):
        assert reader.feed(value[start : start + 4096]) == []
    assert reader.feed(b"\r\n") == [value]


def test_an_error_keeps_a_bounded_text() -> None:
    (error,) = ReplyReader(100).feed(b"-ERR " + b"x" * 1000 + b"\r\n")
    assert isinstance(error, ReplyError)
    assert len(error.text) == 200


def test_commands_are_arrays_of_bulk_strings() -> None:
    assert encode_command(b"GET", b"a\r\n") == b"*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n"
