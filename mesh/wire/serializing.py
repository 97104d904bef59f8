"""Messages to bytes and back, by a handler's own functions; what these raise ends the call and stays in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc

from mesh.wire.messages import MessageError

__all__ = ["deserialized", "serialized"]

log = logging.getLogger("mesh.wire")


def deserialized(deserializer: Callable[[bytes], Any] | None, raw: bytes, method: str) -> Any:
    """A request. Raises MessageError where the deserializer cannot make one."""
    if deserializer is None:
        return raw
    try:
        return deserializer(raw)
    except Exception:
        log.exception("a request of %s cannot be deserialized", method)
        raise MessageError(grpc.StatusCode.INTERNAL, "Exception deserializing request!") from None


def serialized(serializer: Callable[[Any], bytes] | None, message: Any, max_bytes: int, method: str) -> bytes:
    """A response's bytes, at most `max_bytes` (-1: any). Raises MessageError where there are more, or none."""
    raw: bytes = message
    if serializer is not None:
        try:
            raw = serializer(message)
        except Exception:
            log.exception("a response of %s cannot be serialized", method)
            raise MessageError(grpc.StatusCode.INTERNAL, "Failed to serialize response!") from None
    if 0 <= max_bytes < len(raw):
        text = f"Sent message larger than max ({len(raw)} vs. {max_bytes})"
        raise MessageError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
    return raw
