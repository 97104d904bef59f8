"""gRPC's own headers: metadata, timeouts and statuses, as HTTP/2 fields.

The rules are those of gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

import grpc

from mesh.wire.fields import Field

__all__ = [
    "Metadata",
    "code_of",
    "decode_metadata",
    "encode_metadata",
    "encode_status",
    "encode_timeout",
    "parse_timeout",
]

Metadata = Sequence[tuple[str, str | bytes]]
"""Keys in lower case; a key that ends in `-bin` has bytes for its value, any other printable ASCII."""

_KEY = re.compile(r"[0-9a-z_.\-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
# What belongs to the protocol and not to an application.
_RESERVED = frozenset(
    (
        b"te",
        b"content-type",
        b"content-length",
        b"grpc-timeout",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"grpc-message-type",
        b"grpc-status",
        b"grpc-message",
        b"host",
    )
)
_UNITS = {b"n": 1e-9, b"u": 1e-6, b"m": 1e-3, b"S": 1.0, b"M": 60.0, b"H": 3600.0}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# What an HTTP status means where a proxy answers instead of a gRPC server: doc/http-grpc-status-mapping.md.
_BY_HTTP = {
    b"400": grpc.StatusCode.INTERNAL,
    b"401": grpc.StatusCode.UNAUTHENTICATED,
    b"403": grpc.StatusCode.PERMISSION_DENIED,
    b"404": grpc.StatusCode.UNIMPLEMENTED,
    b"429": grpc.StatusCode.UNAVAILABLE,
    b"502": grpc.StatusCode.UNAVAILABLE,
    b"503": grpc.StatusCode.UNAVAILABLE,
    b"504": grpc.StatusCode.UNAVAILABLE,
}


def encode_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> list[Field]:
    """Metadata as fields.

    Raises:
        ValueError: A key or value that cannot be sent; names the key.
    """
    fields: list[Field] = []
    for key, value in metadata:
        if _KEY.fullmatch(key) is None or (key.startswith("grpc-") and key != "grpc-status-details-bin"):
            raise ValueError(f"{key!r} is no metadata key: lower case letters, digits, '-', '_' and '.', not 'grpc-'")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"the value of {key!r} is of type {type(value).__name__}, not bytes")
            fields.append((key.encode(), base64.b64encode(value).rstrip(b"=")))
        else:
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"the value of {key!r} is of type {type(value).__name__}, not str")
            if _VALUE.fullmatch(text) is None:
                raise ValueError(f"the value of {key!r} is not printable ASCII: use a key that ends in '-bin'")
            fields.append((key.encode(), text.strip(" ").encode()))
    return fields


def decode_metadata(fields: Iterable[Field]) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata among fields; values that are no base64 where they should be are left out."""
    found: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name[:1] == b":" or name in _RESERVED:
            continue
        key = name.decode("ascii", "replace")
        if not key.endswith("-bin"):
            found.append((key, value.decode("latin-1")))
            continue
        try:
            # Several values under one key may come joined by commas.
            for part in value.split(b","):
                padded = part.strip() + b"=" * (-len(part.strip()) % 4)
                found.append((key, base64.b64decode(padded, validate=True)))
        except binascii.Error:
            continue
    return tuple(found)


def encode_timeout(seconds: float) -> bytes:
    """A `grpc-timeout`: at most eight digits and a unit, rounded up so that nobody is cut short."""
    if seconds <= 0:
        return b"0n"
    milliseconds = int(seconds * 1e3) + 1
    if milliseconds < 10**8:
        return b"%dm" % milliseconds
    return b"%dS" % min(int(seconds) + 1, 10**8 - 1)


@lru_cache(maxsize=256)
def parse_timeout(value: bytes) -> float | None:
    """Seconds, or None where the value is none that the protocol knows."""
    digits, unit = value[:-1], value[-1:]
    if not digits.isdigit() or len(digits) > 8 or unit not in _UNITS:
        return None
    return int(digits) * _UNITS[unit]


def encode_status(code: grpc.StatusCode, details: str, trailing: Iterable[Field] = ()) -> list[Field]:
    """The fields that end a response."""
    fields: list[Field] = [(b"grpc-status", b"%d" % code.value[0])]
    if details:
        # Percent-encoding of everything but printable ASCII; the space stays, as the protocol has it.
        safe = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
        message = quote_from_bytes(details.encode(), safe=safe).encode()
        # A value may not begin or end with a space (RFC 9113, 8.2.1).
        if message.startswith(b" "):
            message = b"%20" + message[1:]
        if message.endswith(b" "):
            message = message[:-1] + b"%20"
        fields.append((b"grpc-message", message))
    return [*fields, *trailing]


def code_of(fields: Iterable[Field]) -> tuple[grpc.StatusCode, str]:
    """Code and details of the fields that ended a response, or what their absence means. OK has no details, as with
    grpcio's client.
    """
    code: grpc.StatusCode | None = None
    details = http_status = b""
    for name, value in fields:
        if name == b"grpc-status":
            code = _CODES.get(int(value), grpc.StatusCode.UNKNOWN) if value.isdigit() else grpc.StatusCode.UNKNOWN
        elif name == b"grpc-message":
            details = unquote_to_bytes(value)
        elif name == b":status":
            http_status = value
    if code is grpc.StatusCode.OK:
        return code, ""
    if code is not None:
        return code, details.decode("utf-8", "replace")
    if http_status not in (b"", b"200"):
        return _BY_HTTP.get(http_status, grpc.StatusCode.UNKNOWN), f"HTTP status {http_status.decode()}"
    return grpc.StatusCode.UNKNOWN, "the response ended without a status"
