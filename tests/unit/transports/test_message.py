"""The spliced messages against protobuf's own, and against whoever sends nonsense."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import InvalidInput
from mesh.tensors import Tensors
from mesh.transports import message
from mesh.transports.codec import decode_tensors, encode_tensors
from mesh.transports.message import SPLICED_FROM, decode_answer, decode_call, encode_answer, encode_call
from mesh.v1 import call_pb2, graph_service_pb2
from tests.unit.transports.given import tensors

OPTIONS = call_pb2.CallOptions(request_id="r", parameters={"p": call_pb2.Parameter(string_value="v")})
LARGE = {"big": np.arange(SPLICED_FROM // 4, dtype=np.float32), "blob": np.array([[b"a" * SPLICED_FROM, b""]], object)}


@st.composite
def large(draw: st.DrawFn) -> Tensors:
    """Tensors of every kind around one that makes the message large."""
    before, after = draw(tensors), draw(tensors)
    return Tensors({**before, f"big-{draw(st.integers(0, 9))}": draw(st.sampled_from([*LARGE.values()])), **after})


@given(st.one_of(tensors, large()), st.text(max_size=8))
def test_calls_come_back_equal_and_protobuf_reads_them_alike(sent: Tensors, name: str) -> None:
    raw = encode_call(name, sent, OPTIONS)
    told, found, options = decode_call(raw)
    assert (told, found, options) == (name, sent, OPTIONS)
    read = graph_service_pb2.RunRequest.FromString(raw)
    assert (read.graph, decode_tensors(read.inputs), read.options) == (name, sent, OPTIONS)


@given(st.one_of(tensors, large()))
def test_what_protobuf_writes_is_read_alike(sent: Tensors) -> None:
    call = graph_service_pb2.RunRequest(options=OPTIONS, inputs=encode_tensors(sent), graph="g")
    assert decode_call(call.SerializeToString()) == ("g", sent, OPTIONS)
    report = call_pb2.CallReport(node_timings=[call_pb2.NodeTiming(node="n")])
    answer = graph_service_pb2.RunResponse(outputs=encode_tensors(sent), report=report, request_id="r")
    assert decode_answer(answer.SerializeToString()) == (sent, report)


@given(st.one_of(tensors, large()), st.text(max_size=8))
def test_answers_come_back_equal_and_protobuf_reads_them_alike(sent: Tensors, request_id: str) -> None:
    report = call_pb2.CallReport(node_timings=[call_pb2.NodeTiming(node="n")])
    raw = encode_answer(sent, report, request_id)
    assert decode_answer(raw) == (sent, report)
    read = graph_service_pb2.RunResponse.FromString(raw)
    assert (decode_tensors(read.outputs), read.report, read.request_id) == (sent, report, request_id)


@given(large())
def test_large_arrays_are_read_in_place_and_aligned(sent: Tensors) -> None:
    raw = encode_call("n", sent, OPTIONS)
    _, found, _ = decode_call(raw)
    assert isinstance(found, Tensors)
    inside = np.frombuffer(raw, np.uint8)
    for array in found.values():
        assert array.flags.aligned
        assert not array.flags.writeable
        if not array.dtype.hasobject and array.size:
            assert np.shares_memory(array, inside)


def test_fields_that_this_version_does_not_know_are_passed_over() -> None:
    raw = encode_call("n", Tensors(LARGE), OPTIONS) + b"\xf8\x3f\x01" + b"\xf9\x3f" + bytes(8) + b"\xfd\x3f" + bytes(4)
    assert decode_call(raw) == ("n", Tensors(LARGE), OPTIONS)


def varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


FILL = b"\x7a" + varint(SPLICED_FROM) + bytes(SPLICED_FROM)
"""A field that nobody knows, which makes a message large."""
HOSTILE = {
    "a length beyond the end": FILL[:-1],
    "a length of 2**64": b"\x12" + b"\xff" * 9 + b"\x01" + bytes(SPLICED_FROM),
    "a varint without an end": FILL + b"\xff" * 11,
    "a varint cut off": FILL + b"\x12\x80",
    "field zero": b"\x02\x01\x00" + FILL,
    "a group": FILL + b"\x0b\x0c",
    "a fixed64 cut off": FILL + b"\x09\x00",
    "a tensor that is no message": b"\x12" + varint(SPLICED_FROM) + b"\x0a" + b"\xff" * (SPLICED_FROM - 1),
    "a name that is no UTF-8": b"\x0a\x01\xff" + FILL,
    "thousands of fields": b"\x7a\x00" * SPLICED_FROM,
    "thousands of tensors": b"\x12\x00" * SPLICED_FROM,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_messages_are_refused(case: str) -> None:
    for decode in (decode_call, decode_answer):
        with pytest.raises(InvalidInput):
            decode(HOSTILE[case])


@pytest.mark.parametrize(("field", "decode"), [(b"\x12", decode_call), (b"\x0a", decode_answer)])
def test_a_tensor_of_thousands_of_fields_is_refused(field: bytes, decode: Callable[[bytes], object]) -> None:
    with pytest.raises(InvalidInput, match="more than 4096 fields"):
        # What is wrong inside a call's inputs is given back, see below; a walk that does not end is not.
        decode(field + varint(2 * SPLICED_FROM) + b"\x7a\x00" * SPLICED_FROM)


@pytest.mark.parametrize("raw", [b"\xff", b"\x12\xff", b"\x0a\x01\xff"], ids=repr)
def test_small_nonsense_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_call(raw)


def test_as_many_fields_as_are_allowed_are_read() -> None:
    most = message.MAX_FIELDS
    assert decode_call(FILL + b"\x7a\x00" * (most - 1))[1] == Tensors({})
    with pytest.raises(InvalidInput, match="more than 4096 fields"):
        decode_call(FILL + b"\x7a\x00" * most)


def test_inputs_that_cannot_be_read_leave_name_and_options_readable() -> None:
    raw = encode_call("n", Tensors(LARGE), OPTIONS)
    at = raw.index(b"big")
    name, found, options = decode_call(raw[:at] + b"\0\0\0" + raw[at + 3 :].replace(b"blob", b"\0\0\0\0", 1))
    assert (name, options) == ("n", OPTIONS)
    assert isinstance(found, Tensors)
    twice = raw + raw[raw.index(b"\x12", len("n") + 2) :]
    name, found, options = decode_call(twice)
    assert (name, options.request_id) == ("n", "r")
    assert isinstance(found, InvalidInput)


SMALL = encode_call("node", Tensors({"x": np.ones((2, 3), np.float32), "s": [b"ab", b""], "b": [True, False]}), OPTIONS)
BIG = encode_call("node", Tensors({**LARGE, "t": [True, False]}), OPTIONS)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from(["small", "big"]))
def test_mutated_messages_are_read_or_refused_and_nothing_else(seed: int, size: str) -> None:
    chance = random.Random(seed)
    original = SMALL if size == "small" else BIG
    # Where the small fields are: the data between them is only numbers.
    spots = range(len(original)) if size == "small" else [*range(120), *range(len(original) - 80, len(original))]
    for _ in range(50):
        raw = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            match chance.randrange(4):
                case 0:
                    raw[chance.choice(spots) % len(raw)] = chance.randrange(256)
                case 1:
                    raw[chance.choice(spots) % len(raw)] ^= 1 << chance.randrange(8)
                case 2:
                    del raw[chance.randrange(len(raw)) :]
                    raw = raw or bytearray(1)
                case _:
                    at = chance.choice(spots) % len(raw)
                    raw[at:at] = chance.randbytes(chance.randint(1, 5))
        for decode in (decode_call, decode_answer):
            with suppress(InvalidInput):
                decode(bytes(raw))
