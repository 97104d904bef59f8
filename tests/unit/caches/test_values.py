"""Values come back as they were put, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.caches import VALUE_OVERHEAD, Hits, encode_error, encode_rows, read_answer, read_rows
from mesh.caches.layouts import read_layout, write_head
from mesh.errors import InvalidInput
from mesh.tensors import Tensors, concatenate
from tests.unit.caches.given import answers, batches

KEYS = [bytes([number]) * 32 for number in range(8)]
ANSWER = Tensors(
    {
        "label": np.array([3, 1, 2]),
        "p": np.arange(6, dtype=np.float32).reshape(3, 2),
        "ok": np.array([True, False, True]),
        "t": np.array([["a", "bc"], ["", "d"], ["é", ""]]),
    }
)
VALUES = encode_rows(KEYS[:3], ANSWER)
PLAIN = encode_rows(KEYS[:1], Tensors({"label": [3], "p": np.ones((1, 2), np.float32)}))


def sealed(content: bytes) -> bytes:
    """With the checksum that it has to have."""
    return content + xxhash.xxh3_64_digest(content)


def nothing(hits: Hits, broken: int) -> bool:
    return hits == Hits(broken=broken)


@given(st.data())
def test_answers_come_back_bit_for_bit_with_their_sources(data: st.DataObject) -> None:
    asked = data.draw(st.integers(1, 5))
    answer = data.draw(answers(asked))
    values = encode_rows(KEYS[:asked], answer)
    hits = read_rows(KEYS[:asked], values)
    assert hits.rows == list(range(asked))
    assert (hits.broken, hits.misfits) == (0, 0)
    assert hits.tensors == answer
    assert hits.tensors is not None
    assert list(hits.tensors) == list(answer)
    assert not any(array.flags.writeable for array in hits.tensors.values())
    assert all(array.flags.aligned and array.dtype.isnative for array in hits.tensors.values())


@given(st.data())
def test_some_of_the_values_are_those_rows_of_the_answer(data: st.DataObject) -> None:
    asked = data.draw(st.integers(1, 5))
    answer = data.draw(answers(asked))
    there = data.draw(st.lists(st.booleans(), min_size=asked, max_size=asked))
    values = [value if found else None for value, found in zip(encode_rows(KEYS[:asked], answer), there, strict=True)]
    hits = read_rows(KEYS[:asked], values)
    assert hits.rows == [row for row, found in enumerate(there) if found]
    for place, row in enumerate(hits.rows):
        assert hits.tensors is not None
        assert hits.tensors.take(place, place + 1) == answer.take(row, row + 1)
    assert (hits.tensors is None) == (not hits.rows)


@given(st.data())
def test_an_answer_is_what_all_rows_together_are_and_none_where_one_is_amiss(data: st.DataObject) -> None:
    asked = data.draw(st.integers(1, 2))
    values = encode_rows(KEYS[:asked], data.draw(answers(asked)))
    if data.draw(st.booleans()):
        value = bytearray(values[0][:-8])
        value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(0, 255))
        values[0] = sealed(bytes(value[: data.draw(st.integers(0, len(value)))]))
    hits, answer = read_rows(KEYS[:asked], values), read_answer(KEYS[:asked], values)
    assert answer == (hits.tensors if len(hits.rows) == asked else None)
    for array in (answer or {}).values():
        assert not array.flags.writeable
        assert array.flags.aligned
        assert array.dtype.isnative


@pytest.mark.parametrize("values", [VALUES[:1], PLAIN])
def test_a_single_value_is_read_without_a_copy(values: list[bytes]) -> None:
    for tensors in (read_rows(KEYS[:1], values).tensors, read_answer(KEYS[:1], values)):
        owner: Any = (tensors or {})["p"]
        while isinstance(owner, np.ndarray):
            owner = owner.base
        assert owner is values[0]


@given(st.integers(0, 2), st.data())
def test_a_changed_value_is_a_miss_and_harms_none_beside_it(row: int, data: st.DataObject) -> None:
    value = bytearray(VALUES[row])
    position = data.draw(st.integers(0, len(value) - 1))
    value[position] ^= data.draw(st.integers(1, 255))
    values: list[bytes | None] = [*VALUES]
    values[row] = bytes(value)
    hits = read_rows(KEYS[:3], values)
    assert hits.broken == 1
    assert hits.rows == [other for other in range(3) if other != row]
    assert hits.tensors is not None
    assert hits.tensors["label"].tolist() == [ANSWER["label"][other] for other in hits.rows]


@pytest.mark.parametrize("cut", range(1, len(VALUES[0]) + 1))
def test_a_value_that_was_cut_off_is_a_miss(cut: int) -> None:
    assert nothing(read_rows(KEYS[:1], [VALUES[0][:-cut]]), 1)


@given(st.binary(max_size=200))
def test_what_somebody_else_wrote_is_a_miss(foreign: bytes) -> None:
    assert nothing(read_rows(KEYS[:1], [foreign]), 1)
    assert nothing(read_rows(KEYS[:1], [sealed(foreign)]), 1)


@given(st.binary(max_size=120), st.sampled_from([b"\1\1", b"\1\2", b"\2\1"]))
def test_no_value_with_a_right_key_and_checksum_raises_or_is_half_read(content: bytes, lead: bytes) -> None:
    size = len(content) // 2
    fixed = lead + content[:2] + size.to_bytes(4, "little") + KEYS[0][:16]
    hits = read_rows(KEYS[:1], [sealed(fixed + content[2:])])
    assert len(hits.rows) + len(hits.errors) + hits.broken == 1


@given(batches(1, 1), st.integers(0, 200), st.integers(1, 255))
def test_no_changed_head_raises_or_yields_other_bytes_than_there_are(row: Tensors, at: int, flip: int) -> None:
    value = bytearray(encode_rows(KEYS[:1], row)[0][:-8])
    value[at % len(value)] ^= flip
    hits = read_rows(KEYS[:1], [sealed(bytes(value))])
    assert len(hits.rows) + len(hits.errors) + hits.broken == 1
    for array in (hits.tensors or {}).values():
        assert array.dtype.hasobject or array.nbytes <= len(value)


def test_the_value_of_another_key_is_a_miss() -> None:
    assert nothing(read_rows(KEYS[1:2], VALUES[:1]), 1)
    assert nothing(read_rows([b"short"], VALUES[:1]), 1)


def test_a_value_of_another_version_is_a_miss() -> None:
    for version in (0, 2, 255):
        assert nothing(read_rows(KEYS[:1], [sealed(bytes([version]) + VALUES[0][1:-8])]), 1)


@pytest.mark.parametrize("rubbish", [7, "text", bytearray(VALUES[0]), [VALUES[0]], True])
def test_what_is_no_bytes_is_a_miss(rubbish: Any) -> None:
    assert nothing(read_rows(KEYS[:1], [rubbish]), 1)


def test_a_backend_that_gives_too_many_values_or_too_few_harms_nobody() -> None:
    assert read_rows(KEYS[:2], VALUES).rows == [0, 1]
    assert read_rows(KEYS[:3], VALUES[:2]).rows == [0, 1]
    assert nothing(read_rows([], []), 0)


def test_values_that_do_not_fit_the_first_are_told_apart_from_broken_ones() -> None:
    other = encode_rows(KEYS[1:2], Tensors({"label": np.array([3], np.int32)}))
    told = encode_rows(KEYS[4:5], Tensors(ANSWER.take(0, 1), sources=[0]))
    values = [VALUES[0], other[0], VALUES[2], b"broken", told[0]]
    hits = read_rows([*KEYS[:3], KEYS[3], KEYS[4]], values)
    assert (hits.rows, hits.misfits, hits.broken) == ([0, 2], 2, 1)
    assert hits.tensors is not None
    assert hits.tensors["label"].tolist() == [3, 2]


def test_a_bool_of_other_bytes_than_truths_is_a_miss_beside_others() -> None:
    keys = KEYS[:3]
    values = encode_rows(keys, Tensors({"ok": np.array([[True], [False], [True]])}))
    assert values[1][-16:-8] == bytes(8)
    values[1] = sealed(values[1][:-16] + b"\2" + bytes(7))
    hits = read_rows(keys, values)
    assert (hits.rows, hits.broken) == ([0, 2], 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(-9, 200), st.sampled_from("xck")), max_size=3))
def test_values_that_are_read_together_are_each_what_they_are_alone(harms: list[tuple[int, int, str]]) -> None:
    keys = [bytes([number]) * 16 for number in range(8)]
    values = encode_rows(keys, Tensors({"x": np.arange(24.0).reshape(8, 3), "y": np.arange(8)}))
    for number, place, harm in harms:
        match harm:
            case "x":
                changed = bytearray(values[number])
                changed[place % len(changed)] ^= 1
                values[number] = bytes(changed)
            case "c":
                values[number] = values[number][: place % len(values[number]) or 1]
            case _:
                values[number] = values[(number + 1) % 8]
    alone = [read_rows([key], [value]) for key, value in zip(keys, values, strict=True)]
    together = read_rows(keys, values)
    assert together.rows == [number for number, one in enumerate(alone) if one.rows]
    assert together.broken == sum(one.broken for one in alone)
    good = [one.tensors for one in alone if one.tensors is not None]
    assert together.tensors == (concatenate(good) if good else None)


def test_an_impossible_shape_is_a_miss() -> None:
    head = write_head(Tensors({"x": np.zeros((1, 3, 0), np.float32)}), 1)
    assert read_layout(head, 0) is not None
    huge = head.replace((3).to_bytes(8, "little"), (1 << 62).to_bytes(8, "little"))
    assert huge != head
    assert read_layout(huge, 0) is None


@pytest.mark.parametrize(("place", "byte"), [(2, 2), (3, 1)])
def test_marks_that_nobody_sets_are_a_miss(place: int, byte: int) -> None:
    content = bytearray(VALUES[0][:-8])
    content[place] = byte
    assert nothing(read_rows(KEYS[:1], [sealed(bytes(content))]), 1)


def test_several_rows_for_one_without_sources_are_a_miss() -> None:
    (value,) = encode_rows(KEYS[:1], Tensors({"x": np.zeros((2, 3))}, sources=[0, 0]))
    assert read_rows(KEYS[:1], [value]).rows == [0]
    content = bytearray(value[:-8])
    content[2] = 0
    assert nothing(read_rows(KEYS[:1], [sealed(bytes(content))]), 1)


def test_errors_come_back_equal() -> None:
    error = InvalidInput("no such word: ‽", node="reads", tensor="x")
    values = [VALUES[0], encode_error(KEYS[1], error)]
    hits = read_rows(KEYS[:2], values)
    assert hits.errors == {1: error}
    assert hits.rows == [0]
    for cut in range(1, 30):
        assert nothing(read_rows(KEYS[1:2], [sealed(values[1][: -8 - cut])]), 1)
    assert nothing(read_rows(KEYS[1:2], [sealed(values[1][:-8] + b"x")]), 1)
    assert nothing(read_rows(KEYS[2:3], values[1:]), 1)


def test_an_answer_of_other_rows_than_were_asked_is_refused() -> None:
    with pytest.raises(InvalidInput, match="an answer of 3 rows for 2 keys"):
        encode_rows(KEYS[:2], ANSWER)
    with pytest.raises(InvalidInput, match="an answer to row 2 of 2"):
        encode_rows(KEYS[:2], Tensors(ANSWER, sources=[0, 1, 2]))


def test_what_no_value_can_say_is_refused() -> None:
    with pytest.raises(InvalidInput, match="too long a name"):
        encode_rows(KEYS[:1], Tensors({"x" * 70_000: np.zeros(1)}))
    with pytest.raises(InvalidInput, match="too many axes"):
        encode_rows(KEYS[:1], Tensors({"x": np.zeros((1,) * 34)}))


def test_the_overhead_of_a_value_is_what_it_says() -> None:
    row = Tensors({"x": np.zeros((1, 4), np.float32)})
    assert len(encode_rows(KEYS[:1], row)[0]) == VALUE_OVERHEAD + len(write_head(row, 1)) + 16


def test_values_stay_as_they_are_from_one_release_to_the_next() -> None:
    # Values of a shared cache outlive a process. Whoever changes them on purpose changes their version.
    row = Tensors({"p": np.array([[1.5]], np.float32), "t": np.array(["é"])})
    assert encode_rows(KEYS[1:2], row)[0].hex() == (
        "0101000018000000"
        + "01" * 16
        + "010000000200"
        + "0b010100"
        + "70"
        + "0100000000000000"
        + "0d000100"
        + "74"
        + "0000c03f00000000"
        + "02000000c3a9"
        + "28a7ec99b778e948"
    )
