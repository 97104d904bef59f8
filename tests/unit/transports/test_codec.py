from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.context import Context, Parameter
from mesh.errors import InvalidInput
from mesh.signature import Signature
from mesh.tensors import DATATYPES, Tensors
from mesh.testing import ManualClock
from mesh.transports.codec import (
    MAX_AXES,
    MAX_NAME,
    MAX_TENSOR_NAME,
    MAX_TENSORS,
    context_of,
    decode_tensors,
    encode_options,
    encode_specs,
    encode_tensors,
)
from mesh.v1 import call_pb2, graph_service_pb2, tensor_pb2
from tests.unit.transports.given import tensors


@given(tensors)
def test_tensors_come_back_equal_and_read_only(sent: Tensors) -> None:
    message = graph_service_pb2.RunRequest(inputs=encode_tensors(sent))
    found = decode_tensors(graph_service_pb2.RunRequest.FromString(message.SerializeToString()).inputs)
    assert found == sent
    assert list(found) == list(sent)
    assert not any(array.flags.writeable for array in found.values())


@pytest.mark.parametrize("name", sorted(DATATYPES.keys() - {"BYTES"}))
def test_reading_does_not_copy(name: str) -> None:
    # BOOL is looked at byte by byte, and not copied into the array either.
    (message,) = encode_tensors(Tensors({"x": np.zeros((3, 4), DATATYPES[name].dtype)}))
    found = decode_tensors([message])["x"]
    assert not found.flags.owndata
    base: Any = found
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, bytes)


def test_the_wire_is_little_endian_and_row_major() -> None:
    numbers, texts = encode_tensors(Tensors({"x": np.array([[1, 2], [3, 4]], ">u2").T, "s": ["ab", ""]}))
    assert numbers.data == bytes([1, 0, 3, 0, 2, 0, 4, 0])
    assert texts.data == b"\x02\0\0\0ab\0\0\0\0"
    assert (list(numbers.shape), list(texts.shape)) == ([2, 2], [2])


def tensor(name: str = "x", datatype: str = "FP32", shape: list[int] | None = None, data: bytes = b"") -> Any:
    number: Any = DATATYPES[datatype].number
    return tensor_pb2.Tensor(name=name, datatype=number, shape=shape or [], data=data)


def raw(number: int) -> Any:
    made = tensor(data=b"\0\0\0\0")
    made.datatype = number
    return made


def lengths(*sizes: int) -> bytes:
    return struct.pack(f"<{len(sizes)}I", *sizes)


HOSTILE: Mapping[str, tuple[list[Any], str]] = {
    "no name": ([tensor(name="", shape=[0])], "needs a name"),
    "a long name": ([tensor(name="n" * (MAX_TENSOR_NAME + 1), shape=[0])], "needs a name of 1 to 208"),
    "a name twice": ([tensor(shape=[0]), tensor(shape=[0])], "comes twice"),
    "no datatype": ([raw(0)], "no datatype that is known"),
    "an unknown datatype": ([raw(99)], "no datatype that is known"),
    "a negative datatype": ([raw(-1)], "no datatype that is known"),
    "a negative size": ([tensor(shape=[-1])], "impossible shape"),
    "two negative sizes": ([tensor(shape=[-2, -2], data=b"\0" * 16)], "impossible shape"),
    "a huge size": ([tensor(shape=[2**62])], "impossible shape"),
    "a product that overflows to nothing": ([tensor(shape=[2**32, 2**32])], "impossible shape"),
    "a product that overflows to what is there": ([tensor(shape=[2**62, 4, 2**2 + 1])], "impossible shape"),
    "huge sizes beside a zero": ([tensor(shape=[0, 2**40, 2**40])], "impossible shape"),
    "too many axes": ([tensor(shape=[1] * (MAX_AXES + 1), data=b"\0" * 4)], "33 axes"),
    "millions of axes": ([tensor(shape=[1] * 10**6, data=b"\0" * 4)], "1000000 axes"),
    "too few bytes": ([tensor(shape=[2], data=b"\0" * 7)], r"7 bytes of data where FP32\[2\] takes 8"),
    "too many bytes": ([tensor(shape=[2], data=b"\0" * 9)], "9 bytes of data"),
    "bytes beside a zero": ([tensor(shape=[0, 4], data=b"\0")], "1 bytes of data"),
    "no bytes for a scalar": ([tensor()], "0 bytes of data"),
    "a bool of two": ([tensor(datatype="BOOL", shape=[2], data=b"\1\2")], "other than 0 and 1"),
    "BYTES without lengths": ([tensor(datatype="BYTES", shape=[2**30], data=lengths(0))], "too few for the lengths"),
    "BYTES cut off in a length": (
        [tensor(datatype="BYTES", shape=[2], data=lengths(1) + b"a\0\0\0")],
        "cut off in the length of element 1",
    ),
    "BYTES cut off in an element": (
        [tensor(datatype="BYTES", shape=[2], data=lengths(1) + b"a" + lengths(2) + b"a")],
        "cut off in element 1",
    ),
    "BYTES of a huge length": ([tensor(datatype="BYTES", shape=[1], data=lengths(2**32 - 1))], "cut off in element 0"),
    "BYTES with something behind": ([tensor(datatype="BYTES", shape=[1], data=lengths(1) + b"ab")], "1 bytes after"),
    "BYTES for nobody": ([tensor(datatype="BYTES", shape=[0], data=b"\0")], "1 bytes after"),
    "too many tensors": ([tensor(name=str(index), shape=[0]) for index in range(MAX_TENSORS + 1)], "more than 1024"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tensors_are_refused_in_words(case: str) -> None:
    messages, words = HOSTILE[case]
    with pytest.raises(InvalidInput, match=words) as caught:
        decode_tensors(messages)
    assert caught.value.tensor == (
        "" if case in ("no name", "too many tensors") else messages[0].name[:MAX_TENSOR_NAME]
    )


def test_as_many_tensors_and_axes_as_are_allowed_are_read() -> None:
    messages = [tensor(name=str(index), shape=[1] * MAX_AXES, data=b"\0" * 4) for index in range(MAX_TENSORS)]
    assert len(decode_tensors(messages)) == MAX_TENSORS


def test_a_name_that_utf8_cannot_spell_is_refused_when_sent() -> None:
    with pytest.raises(InvalidInput, match="UTF-8 cannot spell"):
        encode_tensors(Tensors({"\ud800": [1]}))


texts = st.text(max_size=20)
parameters: st.SearchStrategy[dict[str, Parameter]] = st.dictionaries(
    texts, st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), texts), max_size=8
)


@given(texts.filter(bool), parameters, st.booleans())
def test_contexts_cross_with_the_time_that_remains(request_id: str, told: dict[str, Parameter], report: bool) -> None:
    here, there = ManualClock(50.0), ManualClock(9000.0)
    sent = Context(request_id=request_id, parameters=told, timings=[] if report else None, clock=here).within(7.0)
    options = call_pb2.CallOptions.FromString(encode_options(sent).SerializeToString())
    found = context_of(options, sent.remaining_s(), there)
    assert (found.request_id, found.timings) == (request_id, sent.timings)
    assert found.deadline == 9007.0
    assert {name: (type(value), value) for name, value in found.parameters.items()} == {
        name: (type(value), value) for name, value in told.items()
    }


def test_a_call_without_an_id_is_given_one() -> None:
    made = [context_of(call_pb2.CallOptions(), None) for _ in range(2)]
    assert made[0].request_id != made[1].request_id
    assert made[0].deadline is None


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "\ud800", None, np.float32(1), [1]], ids=repr)
def test_a_parameter_that_the_wire_cannot_carry_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidInput, match="parameter 'odd'"):
        encode_options(Context(parameters={"odd": value}))


def test_a_request_id_that_utf8_cannot_spell_is_refused() -> None:
    with pytest.raises(InvalidInput, match="request id"):
        encode_options(Context(request_id="\ud800"))


OPTIONS = {
    "a long id": (call_pb2.CallOptions(request_id="r" * (MAX_NAME + 1)), "request_id is longer"),
    "many": (call_pb2.CallOptions(parameters={str(n): call_pb2.Parameter() for n in range(65)}), "at most 64"),
    "no value": (call_pb2.CallOptions(parameters={"p": call_pb2.Parameter()}), "'p' has no value"),
    "a long name": (
        call_pb2.CallOptions(parameters={"p" * (MAX_NAME + 1): call_pb2.Parameter(bool_value=True)}),
        "more than 128 characters",
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_hostile_options_are_refused_in_words(case: str) -> None:
    options, words = OPTIONS[case]
    with pytest.raises(InvalidInput, match=words):
        context_of(options, 1.0)


def test_specs_tell_sizes_and_leave_symbols_open() -> None:
    (spec,) = encode_specs(Signature.parse("x: INT64[rows, 3, n, ...] -> y: FP32[rows]").inputs)
    assert (spec.name, spec.datatype, list(spec.shape)) == ("x", DATATYPES["INT64"].number, [-1, 3, -1, -1])
