"""Whole calls and answers, bytes to tensors and back: the fast path of the codec.

The requests of Preprocess, Predict and Run have one layout (name 1, inputs 2, options 3), and so have their answers and
Aggregate's (outputs 1, report 2; Run's has a request id as well, 3, and those of nodes have sources, 4). Only the small
fields are written by protobuf: a tensor's data is spliced in by hand, which copies it once; what stands before the data
of a small tensor is remembered, since it is the same for all of one name and shape. Small messages are read by
protobuf, large ones by walking over the fields, which copies data not at all. Any protobuf decoder reads what is
written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from mesh.errors import InvalidInput
from mesh.tensors import Array, Tensors
from mesh.transports.codec import (
    collect_tensors,
    decode_sources,
    encode_bytes,
    encode_data,
    encode_head,
    encode_sources,
)
from mesh.v1 import call_pb2, graph_service_pb2, predict_service_pb2, tensor_pb2

__all__ = ["decode_answer", "decode_call", "encode_answer", "encode_call"]

SPLICED_FROM = 64 << 10
"""Bytes of tensors from which a message is worth aligning, and reading in place: below, protobuf's C code is quicker
than a walk in Python."""
REMEMBERED = 1024
"""Names and shapes of small tensors for which it is remembered what stands before their data."""
ALIGNMENT = 16
"""Data begins at a multiple of this, so that the far side's arrays are aligned in place (see Tensor.padding)."""

_INPUTS = 2
_OUTPUTS = 1
_DATA = 4
_PADDING = 5
_DELIMITED = 2
_MAX_VARINT_BYTES = 10
MAX_FIELDS = 4096
"""Fields of one message; more than its tensors, options and axes can be. Each costs far more memory than its bytes."""


def encode_call(name: str, inputs: Tensors, options: call_pb2.CallOptions) -> bytes:
    """A PreprocessRequest, PredictRequest or RunRequest."""
    small = graph_service_pb2.RunRequest(graph=name, options=options).SerializeToString()
    return _with_tensors(small, _INPUTS, inputs)


def decode_call(raw: bytes) -> tuple[str, Tensors | InvalidInput, call_pb2.CallOptions]:
    """Name, inputs and options of a call.

    Inputs that are not what they say are returned as the error, so that it can be told where it belongs: the name and
    the options beside them could be read.

    Raises:
        InvalidInput: The bytes are no such message.
    """
    if len(raw) < SPLICED_FROM:
        message = _parsed(graph_service_pb2.RunRequest, raw)
        found = ((tensor, tensor.data) for tensor in message.inputs)
    else:
        small, found = _split(raw, _INPUTS)
        message = _parsed(graph_service_pb2.RunRequest, small)
    try:
        return message.graph, collect_tensors(found), message.options
    except InvalidInput as error:
        return message.graph, error, message.options


def encode_answer(outputs: Tensors, report: call_pb2.CallReport | None, request_id: str = "") -> bytes:
    """A PreprocessResponse, PredictResponse, AggregateResponse or RunResponse; only the last has a request id."""
    small = b""
    if report is not None or request_id:
        small = graph_service_pb2.RunResponse(report=report, request_id=request_id).SerializeToString()
    if outputs.sources is not None:
        # Two messages one after the other are, to protobuf, one message with the fields of both.
        sources = encode_sources(outputs.sources)
        small += predict_service_pb2.PredictResponse(sources=sources).SerializeToString()
    return _with_tensors(small, _OUTPUTS, outputs)


def decode_answer(raw: bytes) -> tuple[Tensors, call_pb2.CallReport]:
    """Outputs and report of an answer.

    Raises:
        InvalidInput: The bytes are no such message, or a tensor in it is not what it says.
    """
    if len(raw) < SPLICED_FROM:
        message = _parsed(predict_service_pb2.PredictResponse, raw)
        found = ((tensor, tensor.data) for tensor in message.outputs)
    else:
        small, found = _split(raw, _OUTPUTS)
        message = _parsed(predict_service_pb2.PredictResponse, small)
    outputs = collect_tensors(found)
    if message.HasField("sources"):
        outputs = decode_sources(outputs, message.sources)
    return outputs, message.report


def _parsed(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise InvalidInput("the message is no protobuf of its kind") from None


# Writing: small fields by protobuf, data between them as it is.


def _with_tensors(small: bytes, field: int, tensors: Tensors) -> bytes:
    if tensors.nbytes >= SPLICED_FROM:
        return _aligned(small, field, tensors)
    parts = [small]
    for name, array in tensors.items():
        data = encode_bytes(array)
        if array.dtype.hasobject:
            parts.append(_before(field, name, array, len(data)))
        else:
            parts.append(_remembered(field, name, array.dtype, array.shape))
        parts.append(data)
    return b"".join(parts)


@lru_cache(REMEMBERED)
def _remembered(field: int, name: str, dtype: Any, shape: tuple[int, ...]) -> bytes:
    """What stands before the data of a tensor whose elements have a fixed size."""
    array: Array = np.empty(shape, dtype)
    return _before(field, name, array, array.nbytes)


def _before(field: int, name: str, array: Array, length: int) -> bytes:
    head = encode_head(name, array).SerializeToString() + _tag(_DATA) + _varint(length)
    return _tag(field) + _varint(len(head) + length) + head


def _aligned(small: bytes, field: int, tensors: Tensors) -> bytes:
    parts: list[bytes | memoryview] = [small]
    position = len(small)
    for name, array in tensors.items():
        data = encode_data(array)
        head = encode_head(name, array).SerializeToString()
        length = _varint(len(data))
        # Tags of fields below 16 take one byte; so does the length of a padding below 128.
        fixed = len(head) + 2 + 1 + len(length) + len(data)
        padding = _padding(position + 1, fixed, len(data))
        size = _varint(fixed + padding)
        before = b"".join(
            (
                _tag(field),
                size,
                head,
                _tag(_PADDING),
                _varint(padding),
                bytes(padding),
                _tag(_DATA),
                length,
            )
        )
        parts += (before, data)
        position += len(before) + len(data)
    return b"".join(parts)


def _padding(begin: int, fixed: int, data: int) -> int:
    """Bytes that make data begin aligned in a message that begins at `begin` and is `fixed` bytes long without them."""
    padding = -(begin + len(_varint(fixed)) + fixed - data) % ALIGNMENT
    # The message's length stands before it, and may take a byte more than without the padding.
    while (begin + len(_varint(fixed + padding)) + fixed + padding - data) % ALIGNMENT:
        padding += 1
    return padding


def _tag(field: int) -> bytes:
    return bytes(((field << 3) | _DELIMITED,))


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append((value & 0x7F) | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


# Reading: a walk over the fields, which believes no length before it has held it against the bytes that are there.


def _split(raw: bytes, field: int) -> tuple[bytes, list[tuple[tensor_pb2.Tensor, bytes | memoryview]]]:
    """The message without its tensors, and each tensor's message beside its data."""
    view = memoryview(raw)
    small: list[memoryview] = []
    tensors: list[tuple[tensor_pb2.Tensor, bytes | memoryview]] = []
    for number, begin, inside, end in _fields(view):
        if number == field and inside >= 0:
            tensors.append(_tensor(view[inside:end]))
        else:
            small.append(view[begin:end])
    return b"".join(small), tensors


def _tensor(view: memoryview) -> tuple[tensor_pb2.Tensor, bytes | memoryview]:
    head: list[memoryview] = []
    data: bytes | memoryview = b""
    for number, begin, inside, end in _fields(view):
        if number == _DATA and inside >= 0:
            data = view[inside:end]  # the last one holds, as in protobuf
        else:
            head.append(view[begin:end])
    return _parsed(tensor_pb2.Tensor, b"".join(head)), data


def _fields(view: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Each field: its number, where it begins, where its content begins (-1 if it is not length-delimited), its end."""
    position, size = 0, len(view)
    for _ in range(MAX_FIELDS + 1):
        if position == size:
            return
        begin = position
        tag, position = _read_varint(view, position)
        inside = -1
        match tag & 7:
            case 0:
                _, position = _read_varint(view, position)
            case 1:
                position += 8
            case 2:
                length, position = _read_varint(view, position)
                inside = position
                position += length
            case 5:
                position += 4
            case _:
                raise InvalidInput("the message is no protobuf of its kind")
        if position > size or tag >> 3 == 0:
            raise InvalidInput("the message is no protobuf of its kind")
        yield tag >> 3, begin, inside, position
    raise InvalidInput(f"the message has more than {MAX_FIELDS} fields")


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    for index in range(position, min(position + _MAX_VARINT_BYTES, len(view))):
        byte = view[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise InvalidInput("the message is no protobuf of its kind")
