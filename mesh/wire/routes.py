"""What a request's header block means to a gRPC server, made once for each block and remembered with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from mesh.wire.headers import Headers
from mesh.wire.metadata import decode_metadata, parse_timeout

__all__ = ["HandlerCallDetails", "Route", "Routes"]

KNOWN_ENCODINGS = (b"identity", b"gzip", b"deflate")


class HandlerCallDetails(grpc.HandlerCallDetails):
    """What interceptors and generic handlers are told."""

    def __init__(self, method: str, invocation_metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.method = method
        self.invocation_metadata = invocation_metadata


class Route:
    """A request's head, read: where it goes and what came with it. Shared by all calls with the same block."""

    __slots__ = ("accepts", "at_once", "details", "encoding", "handler", "http_status", "problem", "timeout_s")

    def __init__(self, headers: Headers) -> None:
        self.handler: Any = None
        """The RpcMethodHandler, or None where there is none or interceptors have to be asked."""
        self.at_once = False
        """Whether the handler takes one request and gives one response, and nothing speaks against asking it."""
        self.encoding = b"identity"
        self.accepts = b""
        self.timeout_s: float | None = None
        self.http_status = b""
        """An HTTP status to answer with, where the request is no gRPC at all."""
        self.problem: tuple[grpc.StatusCode, str] | None = None
        path = b""
        for name, value in headers.fields:
            match name:
                case b":path":
                    path = value
                case b":method":
                    self.http_status = b"" if value == b"POST" else b"405"
                case b"content-type":
                    plain = value.partition(b";")[0].strip()
                    if plain != b"application/grpc" and not plain.startswith(b"application/grpc+"):
                        self.http_status = self.http_status or b"415"
                case b"grpc-timeout":
                    self.timeout_s = parse_timeout(value)
                    if self.timeout_s is None:
                        self.problem = (grpc.StatusCode.INTERNAL, "grpc-timeout is not well formed")
                case b"grpc-encoding":
                    self.encoding = value
                case b"grpc-accept-encoding":
                    self.accepts = value
                case _:
                    pass
        if headers.get(b"content-type") is None:
            self.http_status = self.http_status or b"415"
        if self.encoding not in KNOWN_ENCODINGS:
            known = ", ".join(one.decode() for one in KNOWN_ENCODINGS)
            self.problem = (grpc.StatusCode.UNIMPLEMENTED, f"grpc-encoding is none of {known}")
        if headers.oversized:
            self.problem = (grpc.StatusCode.RESOURCE_EXHAUSTED, "received metadata size exceeds the limit")
        self.details = HandlerCallDetails(path.decode("latin-1"), decode_metadata(headers.fields))


class Routes:
    """Finds the handler of a method.

    Args:
        interceptors: Whether handlers depend on the single call.
    """

    def __init__(self, *, intercepted: bool) -> None:
        self._generic: list[grpc.GenericRpcHandler] = []
        self._registered: dict[str, Any] = {}
        self._intercepted = intercepted

    def add_generic(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Handlers that decide by the call; those added first are asked first."""
        self._generic += handlers

    def add_registered(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Handlers by method name of one service."""
        self._registered.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def find(self, details: HandlerCallDetails) -> Any:
        """The RpcMethodHandler, or None."""
        found = self._registered.get(details.method)
        if found is not None:
            return found
        for generic in self._generic:
            found = generic.service(details)
            if found is not None:
                return found
        return None

    def read(self, headers: Headers) -> Route:
        """The route of a header block, from memory where it came before."""
        route: Route | None = headers.memo
        if route is None:
            route = headers.memo = Route(headers)
            if not self._intercepted:
                route.handler = handler = self.find(route.details)
                if handler is not None and not (route.problem or route.http_status):
                    route.at_once = not (handler.request_streaming or handler.response_streaming)
        return route


Continuation = Callable[[HandlerCallDetails], Any]
