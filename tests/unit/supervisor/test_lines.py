from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.supervisor.lines import LineSplitter


def test_lines_come_when_they_are_complete() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntw") == ["one"]
    assert splitter.feed(b"o\r\n\nthree") == ["two", ""]
    assert splitter.finish() == ["three"]
    assert splitter.finish() == []


def test_a_long_line_is_cut_before_its_end_is_seen() -> None:
    splitter = LineSplitter(4)
    assert splitter.feed(b"abcdefghij") == ["abcd", "efgh"]
    assert splitter.feed(b"k\n") == ["ijk"]


def test_what_is_not_text_is_replaced() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"\xff\n\xe2\x82") == ["\ufffd"]
    assert splitter.finish() == ["\ufffd"]


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=30)),
    st.lists(st.integers(1, 20)),
    st.integers(1, 8),
)
def test_however_it_is_cut_nothing_is_lost_or_too_long(lines: list[str], cuts: list[int], longest: int) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    splitter = LineSplitter(longest)
    got: list[str] = []
    for cut in cuts:
        got += splitter.feed(data[:cut])
        data = data[cut:]
    got += splitter.feed(data) + splitter.finish()
    assert "".join(got) == "".join(lines)
    assert all(len(piece) <= longest for piece in got)


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=8)), st.integers(1, 20))
def test_short_lines_arrive_as_they_were(lines: list[str], step: int) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    splitter = LineSplitter(8)
    got = [line for start in range(0, len(data), step) for line in splitter.feed(data[start : start + step])]
    assert got == lines
