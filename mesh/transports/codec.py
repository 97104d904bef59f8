"""Tensors and contexts to `mesh.v1` messages and back.

Nothing in a message is believed before it is checked: sizes are computed in whole numbers that cannot overflow, and
compared with the bytes that are there, before an array is made. Reading does not copy (BYTES excepted, whose elements
become Python `bytes`). The wire is little-endian, whatever the host is.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.duration_pb2 import Duration

from mesh.context import SYSTEM_CLOCK, Clock, Context, Parameter, new_request_id
from mesh.errors import InvalidInput
from mesh.signature import TensorSpec
from mesh.tensors import DATATYPES, Array, Tensors, datatype_of
from mesh.transports.contract import MAX_PARAMETERS
from mesh.v1 import aggregate_service_pb2, call_pb2, tensor_pb2

__all__ = [
    "collect_tensors",
    "context_of",
    "decode_branch",
    "decode_sources",
    "decode_tensors",
    "duration",
    "encode_branch",
    "encode_bytes",
    "encode_data",
    "encode_head",
    "encode_options",
    "encode_sources",
    "encode_specs",
    "encode_tensors",
    "seconds",
]

MAX_TENSORS = 1024
"""Tensors of one message."""
MAX_AXES = 32
"""Axes of one tensor; numpy itself stops at 64."""
MAX_TENSOR_NAME = 208
"""Characters of a tensor's name: a node's (63), a dot, a signature's tensor (128), or what tells of a node's rows."""
MAX_NAME = 128
"""Characters of a parameter's name, and of a request id."""
_MAX_SIZE = 1 << 40
_BY_NUMBER = {datatype.number: datatype for datatype in DATATYPES.values()}
_NATIVE = sys.byteorder == "little"
"""Whether elements stand on the wire as they do in memory."""
_WIRE_DTYPES = {
    name: datatype.dtype if _NATIVE or datatype.dtype.hasobject else datatype.dtype.newbyteorder("<")
    for name, datatype in DATATYPES.items()
}
_LENGTH = struct.Struct("<I")


def encode_tensors(tensors: Tensors) -> list[tensor_pb2.Tensor]:
    """One message a tensor, in their order."""
    return [encode_head(name, array, encode_bytes(array)) for name, array in tensors.items()]


def encode_head(name: str, array: Array, data: bytes = b"") -> tensor_pb2.Tensor:
    """A tensor's message, with or without its data."""
    # The enum's numbers are those of DATATYPES by construction; a test compares them.
    number: Any = datatype_of(array).number
    try:
        return tensor_pb2.Tensor(name=name, datatype=number, shape=array.shape, data=data)
    except ValueError:
        raise InvalidInput(f"tensor {name!r} has a name that UTF-8 cannot spell", tensor=name) from None


def encode_bytes(array: Array) -> bytes:
    """A copy of an array's elements as they stand on the wire: for small arrays far cheaper than a view of them."""
    if _NATIVE and not array.dtype.hasobject:
        return array.tobytes()
    return bytes(encode_data(array))


def encode_data(array: Array) -> bytes | memoryview:
    """An array's elements as they stand on the wire; a view of them where they stand so in memory."""
    datatype = datatype_of(array)
    if datatype.itemsize == 0:
        return b"".join([part for item in array.ravel().tolist() for part in (_LENGTH.pack(len(item)), item)])
    flat = np.ascontiguousarray(array.astype(_WIRE_DTYPES[datatype.name], copy=False)).reshape(-1)
    return flat.view(np.uint8).data


def decode_tensors(messages: Iterable[tensor_pb2.Tensor]) -> Tensors:
    """Read tensors, without copying their data.

    Raises:
        InvalidInput: Too many tensors, a name twice, an unknown datatype, a shape below zero or beyond any memory, or
            data whose length is not what shape and datatype say; names the tensor.
    """
    return collect_tensors((message, message.data) for message in messages)


def collect_tensors(found: Iterable[tuple[tensor_pb2.Tensor, bytes | memoryview]]) -> Tensors:
    """The same for messages whose data stands beside them."""
    arrays: dict[str, Array] = {}
    for message, data in found:
        if len(arrays) == MAX_TENSORS:
            raise InvalidInput(f"more than {MAX_TENSORS} tensors in one message")
        name = message.name
        if name in arrays or not name or len(name) > MAX_TENSOR_NAME:
            problem = "comes twice" if name in arrays else f"needs a name of 1 to {MAX_TENSOR_NAME} characters"
            raise InvalidInput(f"tensor {name[:MAX_TENSOR_NAME]!r} {problem}", tensor=name[:MAX_TENSOR_NAME])
        arrays[name] = _decode(name, message, data)
    return Tensors.trusted(arrays)


def encode_sources(sources: Array) -> tensor_pb2.Sources:
    """Row numbers as a message."""
    return tensor_pb2.Sources(rows=sources.tolist())


def decode_sources(tensors: Tensors, message: tensor_pb2.Sources) -> Tensors:
    """The same tensors, with the sources of their rows.

    Raises:
        InvalidInput: They are not one row number a row, or they decrease.
    """
    return Tensors(tensors, sources=np.fromiter(message.rows, np.int64, len(message.rows)))


def encode_branch(branch: Tensors) -> aggregate_service_pb2.BranchTensors:
    """The tensors of one branch, and which rows they answer."""
    sources = None if branch.sources is None else encode_sources(branch.sources)
    return aggregate_service_pb2.BranchTensors(tensors=encode_tensors(branch), sources=sources)


def decode_branch(message: aggregate_service_pb2.BranchTensors) -> Tensors:
    """The same, back.

    Raises:
        InvalidInput: As for `decode_tensors` and `decode_sources`.
    """
    tensors = decode_tensors(message.tensors)
    return decode_sources(tensors, message.sources) if message.HasField("sources") else tensors


def _decode(name: str, message: tensor_pb2.Tensor, data: bytes | memoryview) -> Array:
    datatype = _BY_NUMBER.get(message.datatype)
    if datatype is None:
        raise InvalidInput(f"tensor {name!r} has no datatype that is known here ({message.datatype})", tensor=name)
    axes = message.shape
    if len(axes) > MAX_AXES:
        raise InvalidInput(f"tensor {name!r} has {len(axes)} axes; at most {MAX_AXES} are taken", tensor=name)
    shape = tuple(axes)
    count = _count(name, shape)
    if datatype.itemsize == 0:
        return _decode_bytes(name, bytes(data), shape, count)
    size = count * datatype.itemsize
    if len(data) != size:
        raise InvalidInput(
            f"tensor {name!r} has {len(data)} bytes of data where {datatype}{list(shape)} takes {size}", tensor=name
        )
    if datatype.name == "BOOL" and bytes(data).translate(None, b"\0\1"):
        raise InvalidInput(f"tensor {name!r} is BOOL and has bytes other than 0 and 1", tensor=name)
    if _NATIVE and size and type(data) is bytes:
        return np.ndarray(shape, datatype.dtype, data)  # aligned and read-only, as `bytes` are
    array = np.frombuffer(data, _WIRE_DTYPES[datatype.name]).astype(datatype.dtype, copy=False).reshape(shape)
    if not array.flags.aligned:
        array = array.copy()  # models may read elements in ways that only aligned ones allow
    array.flags.writeable = False
    return array


def _count(name: str, shape: tuple[int, ...]) -> int:
    count = math.prod(shape)
    if 0 < count <= _MAX_SIZE and min(shape, default=1) > 0:
        return count
    count = 1
    # Sizes beside a zero are bounded as well: numpy computes strides from them.
    span = 1
    for size in shape:
        count *= size
        span *= size or 1
        if not 0 < span <= _MAX_SIZE:
            raise InvalidInput(f"tensor {name!r} has the impossible shape {list(shape)}", tensor=name)
    return count


def _decode_bytes(name: str, data: bytes, shape: tuple[int, ...], count: int) -> Array:
    if count * _LENGTH.size > len(data):
        raise InvalidInput(
            f"tensor {name!r} has {len(data)} bytes of data, too few for the lengths of {count} elements", tensor=name
        )
    items: list[bytes] = []
    position, end = 0, len(data)
    for index in range(count):
        start = position + _LENGTH.size
        if start > end:
            raise InvalidInput(f"tensor {name!r} is cut off in the length of element {index}", tensor=name)
        (length,) = _LENGTH.unpack_from(data, position)
        position = start + length
        if position > end:
            raise InvalidInput(f"tensor {name!r} is cut off in element {index}", tensor=name)
        items.append(data[start:position])
    if position != end:
        raise InvalidInput(f"tensor {name!r} has {end - position} bytes after its last element", tensor=name)
    array = np.empty(count, dtype=object)
    array[:] = items
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def encode_specs(specs: Mapping[str, TensorSpec]) -> list[tensor_pb2.TensorSpec]:
    """Specs as messages; every symbol becomes -1."""
    found: list[tensor_pb2.TensorSpec] = []
    for name, spec in specs.items():
        number: Any = DATATYPES[spec.datatype].number
        shape = [size if isinstance(size, int) else -1 for size in spec.shape]
        found.append(tensor_pb2.TensorSpec(name=name, datatype=number, shape=shape))
    return found


def encode_options(context: Context) -> call_pb2.CallOptions:
    """What of a context travels in the message; the deadline travels as gRPC's own.

    Raises:
        InvalidInput: A parameter, or the request id, is nothing that the wire can carry.
    """
    try:
        options = call_pb2.CallOptions(request_id=context.request_id, report_timings=context.timings is not None)
    except ValueError:
        raise InvalidInput("the request id has characters that UTF-8 cannot spell") from None
    for name, value in context.parameters.items():
        try:
            options.parameters[name].CopyFrom(_encode_parameter(value))
        except (ValueError, TypeError):
            raise InvalidInput(f"parameter {name!r} is neither truth, 64-bit number nor text") from None
    return options


def _encode_parameter(value: Parameter) -> call_pb2.Parameter:
    match value:
        case bool():
            return call_pb2.Parameter(bool_value=value)
        case int():
            return call_pb2.Parameter(int64_value=value)
        case float():
            return call_pb2.Parameter(double_value=value)
        case str():
            return call_pb2.Parameter(string_value=value)


def context_of(options: call_pb2.CallOptions, remaining_s: float | None, clock: Clock = SYSTEM_CLOCK) -> Context:
    """The context of a call that arrived with `remaining_s` seconds left.

    Raises:
        InvalidInput: More parameters, or longer names, than are taken.
    """
    request_id = options.request_id
    if len(request_id) > MAX_NAME:
        raise InvalidInput(f"request_id is longer than {MAX_NAME} characters")
    return Context(
        request_id=request_id or new_request_id(),
        deadline=None if remaining_s is None else clock.now() + remaining_s,
        parameters=_decode_parameters(options.parameters) if options.parameters else {},
        timings=[] if options.report_timings else None,
        joins=[],
        clock=clock,
    )


def _decode_parameters(sent: Mapping[str, call_pb2.Parameter]) -> dict[str, Parameter]:
    if len(sent) > MAX_PARAMETERS:
        raise InvalidInput(f"{len(sent)} parameters; at most {MAX_PARAMETERS} are taken")
    parameters: dict[str, Parameter] = {}
    for name, message in sent.items():
        kind = message.WhichOneof("value")
        if kind is None or len(name) > MAX_NAME:
            problem = "has no value" if kind is None else f"has a name of more than {MAX_NAME} characters"
            raise InvalidInput(f"parameter {name[:MAX_NAME]!r} {problem}")
        parameters[name] = getattr(message, kind)
    return parameters


def duration(value_s: float) -> Duration:
    """Seconds as a Duration message, to the nanosecond."""
    nanoseconds = round(value_s * 1e9)
    return Duration(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def seconds(message: Duration) -> float:
    """A Duration message in seconds."""
    # In whole numbers first: an error's hint has to come back equal.
    return (message.seconds * 10**9 + message.nanos) / 10**9
