"""Header blocks of a server's responses: their heads, and what ends them. The usual ones are made once."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from mesh.wire.fields import Field
from mesh.wire.frames import AnswerForm
from mesh.wire.headers import encode_block
from mesh.wire.metadata import encode_metadata, encode_status

__all__ = ["HEAD", "OK", "OK_TRAILERS", "head_block", "refusal_block", "trailers_block"]

HEAD_FIELDS: tuple[Field, ...] = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
)
HEAD = encode_block(HEAD_FIELDS)
OK_TRAILERS = encode_block(encode_status(grpc.StatusCode.OK, ""))
OK = AnswerForm(HEAD, OK_TRAILERS)
"""An answer of which there is nothing to say beside its message."""


def head_block(initial: Sequence[Field], *, compress: bool) -> bytes:
    """A response's head with initial metadata."""
    if not initial and not compress:
        return HEAD
    encoding: list[Field] = [(b"grpc-encoding", b"gzip")] if compress else []
    return encode_block((*HEAD_FIELDS, *encoding, *initial))


def trailers_block(code: grpc.StatusCode, details: str, trailing: Sequence[tuple[str, str | bytes]]) -> bytes:
    """What ends a response whose head was sent. Raises ValueError where metadata cannot be sent."""
    if code is grpc.StatusCode.OK and not details and not trailing:
        return OK_TRAILERS
    return encode_block(encode_status(code, details, encode_metadata(trailing)))


def refusal_block(
    initial: Sequence[Field], code: grpc.StatusCode, details: str, trailing: Sequence[tuple[str, str | bytes]]
) -> bytes:
    """Head and end in one, of a response without messages. Raises ValueError where metadata cannot be sent."""
    return encode_block((*HEAD_FIELDS[:2], *initial, *encode_status(code, details, encode_metadata(trailing))))
