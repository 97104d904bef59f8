"""`Method`: what the calls of one method of a channel have in common, made once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import grpc

from mesh.wire.client_call import CallHost
from mesh.wire.client_options import ChannelOptions, compresses
from mesh.wire.headers import encode_block
from mesh.wire.metadata import encode_metadata
from mesh.wire.service_config import MethodConfig

__all__ = ["Method", "MethodHost"]

log = logging.getLogger("mesh.wire")

REMEMBERED_METADATA: Final = 64
"""Blocks of metadata that are kept for a method; the oldest is forgotten first."""
REMEMBERED_BYTES: Final = 1024
"""Longer metadata is made anew every time."""
_PASSED_OVER: Final = frozenset(("te", "content-type", "content-length", "user-agent", "grpc-timeout"))
"""Keys that are the protocol's. As with grpc.aio they are left out: who passes on what it was sent has some of them."""
_REFUSED: Final = frozenset(("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"))
"""Keys with which a request is malformed (RFC 9113, 8.2.2)."""
_GZIP: Final = encode_block(((b"grpc-encoding", b"gzip"),))


class MethodHost(CallHost, Protocol):
    """What a method needs of its channel."""

    options: ChannelOptions
    authority: str
    scheme: bytes
    compress: bool
    closing: bool
    """Whether no call may begin any more."""

    def check_open(self) -> None:
        """Raise grpc.aio.UsageError where the channel is closed."""
        ...


class Method:
    """One method.

    Args:
        host: The channel.
        path: `/package.Service/Method`.
        serializer: Request to bytes, or None where requests are bytes.
        deserializer: Bytes to response, or None.
    """

    def __init__(
        self,
        host: MethodHost,
        path: str | bytes,
        serializer: Callable[[Any], bytes] | None,
        deserializer: Callable[[bytes], Any] | None,
    ) -> None:
        self.host = host
        self.path = path.decode() if isinstance(path, bytes) else path
        self.serializer = serializer
        self.deserializer = deserializer
        options = host.options
        self.config: MethodConfig = options.service_config.of(self.path)
        self.max_send_bytes = _least(options.max_send_bytes, self.config.max_request_bytes)
        self.max_receive_bytes = _least(options.max_receive_bytes, self.config.max_response_bytes)
        self.retry_buffer_bytes = options.retry_buffer_bytes
        self.plain_block = encode_block(
            (
                (b":method", b"POST"),
                (b":scheme", host.scheme),
                (b":path", self.path.encode()),
                (b":authority", host.authority.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", options.user_agent.encode()),
                (b"grpc-accept-encoding", b"identity, deflate, gzip"),
            )
        )
        self._metadata: dict[Any, bytes] = {}

    def renamed(self, path: str | bytes) -> Method:
        """The same for another path: an interceptor may send a call elsewhere."""
        path = path.decode() if isinstance(path, bytes) else path
        return self if path == self.path else Method(self.host, path, self.serializer, self.deserializer)

    def block(self, metadata: Any, *, compress: bool) -> bytes:
        """A call's header block, less its deadline.

        Raises:
            ValueError: Metadata that cannot be sent; names the key.
        """
        block = self.plain_block + _GZIP if compress else self.plain_block
        return block + self._block_of(metadata) if metadata else block

    def compresses(self, compression: grpc.Compression | None) -> bool:
        """Whether a call's messages are compressed. Raises ValueError for what is not gzip."""
        return self.host.compress if compression is None else compresses(compression)

    def _block_of(self, metadata: Any) -> bytes:
        key: Sequence[tuple[str, str | bytes]] = metadata if type(metadata) is tuple else tuple(metadata)
        try:
            found = self._metadata.get(key)
        except TypeError:  # a pair that is a list, or a value that is a bytearray
            return _encoded(key)
        if found is None:
            found = _encoded(key)
            if len(found) <= REMEMBERED_BYTES:
                if len(self._metadata) >= REMEMBERED_METADATA:
                    del self._metadata[next(iter(self._metadata))]
                self._metadata[key] = found
        return found

    def serialized(self, request: Any) -> bytes:
        """A request's bytes. As with grpc.aio, one that the serializer cannot take is logged and sent as empty.

        Raises:
            TypeError: The serializer made no bytes.
        """
        if self.serializer is not None:
            try:
                request = self.serializer(request)
            except Exception:
                log.exception("a request of %s cannot be serialized", self.path)
                return b""
        if not isinstance(request, bytes):
            if isinstance(request, bytearray | memoryview):
                return bytes(request)
            raise TypeError(f"a request of {self.path} has to be bytes, not {type(request).__name__}")
        return request

    def deserialized(self, raw: bytes) -> Any:
        """A response. As with grpc.aio, one that the deserializer cannot take is logged and given as None."""
        if self.deserializer is None:
            return raw
        try:
            return self.deserializer(raw)
        except Exception:
            log.exception("a response of %s cannot be deserialized", self.path)
            return None


def _encoded(metadata: Sequence[tuple[str, str | bytes]]) -> bytes:
    for key, _ in metadata:
        if key in _REFUSED:
            raise ValueError(f"{key!r} is no metadata key: it is of a connection")
    return encode_block(encode_metadata([pair for pair in metadata if pair[0] not in _PASSED_OVER]))


def _least(bound: int, other: int | None) -> int:
    """The smaller of two bounds, of which -1 is none."""
    if other is None:
        return bound
    return other if bound < 0 else min(bound, other)
