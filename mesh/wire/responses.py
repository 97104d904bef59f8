"""What a response's header blocks mean to a gRPC client, made once for each block and remembered with it."""

from __future__ import annotations

import re
from typing import Final

import grpc

from mesh.wire.faults import ErrorCode
from mesh.wire.headers import Headers
from mesh.wire.metadata import code_of, decode_metadata

__all__ = ["ResponseHead", "Status", "of_reset", "read_head", "read_status"]

Pairs = tuple[tuple[str, str | bytes], ...]

KNOWN_ENCODINGS: Final = (b"identity", b"gzip", b"deflate")
_PUSHBACK: Final = re.compile(rb"\d{1,9}")

# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "HTTP2 Transport Mapping", "Errors"
_BY_RESET: Final = {
    ErrorCode.REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.CANCEL: grpc.StatusCode.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: grpc.StatusCode.PERMISSION_DENIED,
}


class Status:
    """How a call ended. May be shared by calls: never changed."""

    __slots__ = ("code", "debug", "details", "ok", "pushback_s", "retryable", "trailing")

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing: Pairs = (),
        *,
        debug: str | None = None,
        pushback_s: float | None = None,
        retryable: bool = True,
    ) -> None:
        self.code = code
        self.ok = code is grpc.StatusCode.OK
        self.details = details
        self.trailing = trailing
        self.debug = debug
        """What is told to whoever looks for the cause; made of the others where it is None."""
        self.pushback_s = pushback_s
        """When the server wants to be asked again (A6); below zero for never."""
        self.retryable = retryable
        """Whether a retry policy may look at it: not where we gave up by ourselves."""


class ResponseHead:
    """A response's opening list, read."""

    __slots__ = ("encoding", "initial", "problem")

    def __init__(self, headers: Headers) -> None:
        self.encoding = headers.get(b"grpc-encoding") or b"identity"
        self.initial: Pairs = decode_metadata(headers.fields)
        self.problem: Status | None = None
        """How the call ends, where this head can begin no response."""
        kind = (headers.get(b"content-type") or b"").partition(b";")[0].strip()
        if headers.get(b":status") != b"200":
            code, details = code_of(headers.fields)
            self.problem = Status(code, details)
        elif kind != b"application/grpc" and not kind.startswith(b"application/grpc+"):
            shown = kind.decode("latin-1")[:64]
            self.problem = Status(grpc.StatusCode.UNKNOWN, f"the response's content-type is {shown!r}: no gRPC")
        elif headers.oversized:
            self.problem = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "received metadata size exceeds the limit")
        elif self.encoding not in KNOWN_ENCODINGS:
            shown = self.encoding.decode("latin-1")[:64]
            self.problem = Status(grpc.StatusCode.INTERNAL, f"the response's grpc-encoding is {shown!r}: not known")


def read_head(headers: Headers) -> ResponseHead:
    """A head that begins a response, from memory where it came before."""
    made = headers.memo
    if not isinstance(made, ResponseHead):
        made = headers.memo = ResponseHead(headers)
    return made


def read_status(headers: Headers) -> Status:
    """The status in trailers, or in a head that is all there is; from memory where it came before."""
    made = headers.memo
    if isinstance(made, Status):
        return made
    if headers.oversized:
        made = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "received metadata size exceeds the limit")
    else:
        code, details = code_of(headers.fields)
        pushback = headers.get(b"grpc-retry-pushback-ms")
        pushback_s = None
        if pushback is not None:
            pushback_s = int(pushback) / 1e3 if _PUSHBACK.fullmatch(pushback) else -1.0
        made = Status(code, details, decode_metadata(headers.fields), pushback_s=pushback_s)
    headers.memo = made
    return made


def of_reset(code: int, *, remote: bool, text: str) -> Status:
    """How a call ends whose stream was reset."""
    known = ErrorCode(code).name if code in ErrorCode.__members__.values() else str(code)
    status = _BY_RESET.get(ErrorCode(code)) if code in ErrorCode.__members__.values() else None
    if not remote:
        return Status(grpc.StatusCode.INTERNAL, f"the server broke a rule of HTTP/2: {text}", debug=known)
    details = f"the server reset the stream: {known}"
    return Status(status or grpc.StatusCode.INTERNAL, f"{details} ({text})" if text else details)
