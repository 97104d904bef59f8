"""Request errors to gRPC statuses and back: what crosses a link comes back equal.

The error travels as `mesh.v1.ErrorDetail` in the details of a `google.rpc.Status`, as gRPC's richer error model has it
(https://grpc.io/docs/guides/error/#richer-error-model).
"""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from mesh.errors import (
    REQUEST_ERRORS,
    DeadlineExceeded,
    InvalidInput,
    NodeFailed,
    NotFound,
    Overloaded,
    RequestError,
    Unavailable,
)
from mesh.transports.admission import RETRY_AFTER_S
from mesh.transports.codec import duration, seconds
from mesh.v1 import error_pb2

__all__ = ["BROKEN_OFF", "decode_error", "encode_error", "error_of_call", "status_of"]

DETAILS_KEY = "grpc-status-details-bin"
BROKEN_OFF = "the worker ended the call in an unexpected way"
"""What a NodeFailed says that no worker told of: its process may have died in the middle of the answer."""
MAX_MESSAGE_BYTES = 512
"""Of the plain message beside the details. gRPC drops calls whose headers pass 8 KiB: the details take up to 5 KiB (see
`mesh.errors.RequestError`), and the message stands there twice, once with three characters for each byte."""


def encode_error(error: RequestError) -> error_pb2.ErrorDetail:
    """An error as a message."""
    detail = error_pb2.ErrorDetail(
        code=error.code,
        text=error.text,
        node=error.node,
        tensor=error.tensor,
        row=error.row,
        request_id=error.request_id,
    )
    if isinstance(error, Overloaded) or (isinstance(error, Unavailable) and error.retry_after_s):
        detail.retry_after.CopyFrom(duration(error.retry_after_s))
    return detail


def decode_error(detail: error_pb2.ErrorDetail) -> RequestError:
    """The error that a message stands for."""
    made = REQUEST_ERRORS.get(detail.code, NodeFailed)
    error = made(
        detail.text,
        node=detail.node,
        tensor=detail.tensor,
        row=detail.row if detail.HasField("row") else None,
        request_id=detail.request_id,
    )
    if isinstance(error, Overloaded | Unavailable):
        error.retry_after_s = seconds(detail.retry_after)
    return error


def status_of(error: RequestError) -> Status:
    """The status that a call ends with."""
    packed = Any()
    packed.Pack(encode_error(error))
    code = grpc.StatusCode[error.code].value[0]
    message = str(error).encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
    return Status(code=code, message=message, details=[packed])


def error_of_call(error: grpc.aio.AioRpcError) -> RequestError:
    """The error that a failed call stands for: the one raised at the far side, or what gRPC itself makes of it.

    gRPC's own texts are dropped: they name sockets and addresses, which are nobody's business outside.
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes) and (told := _detail(value)) is not None:
            return decode_error(told)
    code = error.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if "larger than max" in (error.details() or ""):
            return InvalidInput("the message is larger than the link takes")
        return Overloaded("the worker refused the call", retry_after_s=RETRY_AFTER_S)
    kind, text = _BARE.get(code, (NodeFailed, BROKEN_OFF))
    return kind(text)


def _detail(value: bytes) -> error_pb2.ErrorDetail | None:
    """Ours among the details of a status; None where there is none, as in the status of another server."""
    detail = error_pb2.ErrorDetail()
    try:
        found = any(packed.Unpack(detail) for packed in Status.FromString(value).details)
    except DecodeError:
        return None
    return detail if found else None


_BARE: dict[grpc.StatusCode, tuple[type[RequestError], str]] = {
    grpc.StatusCode.UNAVAILABLE: (Unavailable, "the worker cannot be reached"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (DeadlineExceeded, "the deadline passed"),
    # Nobody here cancelled it: the worker is going, and cut it off.
    grpc.StatusCode.CANCELLED: (Unavailable, "the worker cannot be reached"),
    grpc.StatusCode.UNIMPLEMENTED: (NotFound, "the worker serves no such kind of node"),
    grpc.StatusCode.INVALID_ARGUMENT: (InvalidInput, "the worker refused the message"),
    grpc.StatusCode.NOT_FOUND: (NotFound, "the worker does not know what was asked for"),
}
