"""What a channel gives a stub for each method: called, it makes a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import grpc

from mesh.wire.client_call import ClientCall
from mesh.wire.client_interceptors import (
    InterceptedStreamStreamCall,
    InterceptedStreamUnaryCall,
    InterceptedUnaryStreamCall,
    InterceptedUnaryUnaryCall,
    Make,
)
from mesh.wire.client_method import Method
from mesh.wire.client_streams import ResponseStream, StreamStreamCall, UnaryStreamCall
from mesh.wire.client_unary import StreamUnaryCall, UnaryUnaryCall
from mesh.wire.messages import MessageError
from mesh.wire.responses import Status

__all__ = ["StreamStreamCallable", "StreamUnaryCallable", "UnaryStreamCallable", "UnaryUnaryCallable"]

NO_CREDENTIALS: Final = (
    "credentials of a single call are not supported (grpcio's cannot be looked into): "
    "send them as metadata, or with an interceptor"
)


class _Callable:
    """One method.

    Args:
        channel: Held, so that the channel lives as long as a stub does.
        method: What its calls have in common.
        interceptors: Of the method's cardinality.
    """

    def __init__(self, channel: grpc.aio.Channel, method: Method, interceptors: Sequence[Any]) -> None:
        self._channel = channel
        self._method = method
        self._interceptors = interceptors

    def _details(self, timeout: float | None, metadata: Any, credentials: Any, wait_for_ready: bool | None) -> Any:
        """What interceptors are told, as grpc.aio tells it: the path as bytes, metadata always there."""
        self._method.host.check_open()
        if credentials is not None:
            raise ValueError(NO_CREDENTIALS)
        if not isinstance(metadata, grpc.aio.Metadata):
            metadata = grpc.aio.Metadata(*(metadata or ()))
        path: Any = self._method.path.encode()
        return grpc.aio.ClientCallDetails(path, timeout, metadata, credentials, wait_for_ready)

    def _make(self, make: Any, compression: grpc.Compression | None) -> Make:
        """Makes the call as the innermost interceptor wants it."""

        def made(details: Any, request: Any) -> Any:
            return make(
                self._method.renamed(details.method),
                request,
                details.timeout,
                details.metadata,
                details.credentials,
                details.wait_for_ready,
                compression,
            )

        return made


def _prepare(
    kind: Any, method: Method, metadata: Any, credentials: Any, compression: grpc.Compression | None, *more: Any
) -> Any:
    """A call that is not begun."""
    method.host.check_open()
    if credentials is not None:
        raise ValueError(NO_CREDENTIALS)
    compress = method.compresses(compression)
    call = kind(method, method.block(metadata, compress=compress), *more)
    if compress:
        call.compress = True
    return call


def _begin_with(call: ClientCall, request: Any, timeout: float | None, wait_for_ready: bool | None) -> None:
    """Send a call's only request."""
    call.requests_ended = True
    try:
        call.keep(call.encoded(request))
    except MessageError as error:
        call.finish(Status(error.code, error.text))
    else:
        call.begin(timeout, wait_for_ready)


def _unary_unary(
    method: Method,
    request: Any,
    timeout: float | None,
    metadata: Any,
    credentials: Any,
    wait_for_ready: bool | None,
    compression: grpc.Compression | None,
) -> UnaryUnaryCall:
    call = _prepare(UnaryUnaryCall, method, metadata, credentials, compression)
    _begin_with(call, request, timeout, wait_for_ready)
    return call


def _unary_stream(
    method: Method,
    request: Any,
    timeout: float | None,
    metadata: Any,
    credentials: Any,
    wait_for_ready: bool | None,
    compression: grpc.Compression | None,
) -> UnaryStreamCall:
    call = _prepare(ResponseStream, method, metadata, credentials, compression)
    _begin_with(call, request, timeout, wait_for_ready)
    return UnaryStreamCall(call)


def _stream_unary(
    method: Method,
    requests: Any,
    timeout: float | None,
    metadata: Any,
    credentials: Any,
    wait_for_ready: bool | None,
    compression: grpc.Compression | None,
) -> StreamUnaryCall:
    call = _prepare(StreamUnaryCall, method, metadata, credentials, compression, requests)
    call.begin(timeout, wait_for_ready)
    call.begin_requests()
    return call


def _stream_stream(
    method: Method,
    requests: Any,
    timeout: float | None,
    metadata: Any,
    credentials: Any,
    wait_for_ready: bool | None,
    compression: grpc.Compression | None,
) -> StreamStreamCall:
    call = _prepare(ResponseStream, method, metadata, credentials, compression)
    handle = StreamStreamCall(call, requests)
    call.begin(timeout, wait_for_ready)
    handle.begin_requests()
    return handle


class UnaryUnaryCallable(
    _Callable, grpc.aio.UnaryUnaryMultiCallable[Any, Any] if TYPE_CHECKING else grpc.aio.UnaryUnaryMultiCallable
):
    """One request, one response."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryUnaryCall | InterceptedUnaryUnaryCall:
        """Make a call; await it for the response.

        Raises:
            ValueError: Something that is not supported, or metadata that cannot be sent; names it.
            TypeError: The request's serializer made no bytes.
            grpc.aio.UsageError: The channel is closed.
        """
        method = self._method
        if not (self._interceptors or metadata or credentials or compression or method.host.compress):
            # The common case of what `_unary_unary` does.
            if method.host.closing:
                method.host.check_open()
            call = UnaryUnaryCall(method, method.plain_block)
            _begin_with(call, request, timeout, wait_for_ready)
            return call
        if not self._interceptors:
            return _unary_unary(method, request, timeout, metadata, credentials, wait_for_ready, compression)
        details = self._details(timeout, metadata, credentials, wait_for_ready)
        make = self._make(_unary_unary, compression)
        return InterceptedUnaryUnaryCall(self._interceptors, make, details, request)


class UnaryStreamCallable(
    _Callable, grpc.aio.UnaryStreamMultiCallable[Any, Any] if TYPE_CHECKING else grpc.aio.UnaryStreamMultiCallable
):
    """One request, any number of responses."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryStreamCall | InterceptedUnaryStreamCall:
        """Make a call; iterate over it for the responses. Raises as `UnaryUnaryCallable` does."""
        if not self._interceptors:
            return _unary_stream(self._method, request, timeout, metadata, credentials, wait_for_ready, compression)
        details = self._details(timeout, metadata, credentials, wait_for_ready)
        make = self._make(_unary_stream, compression)
        return InterceptedUnaryStreamCall(self._interceptors, make, details, request)


class StreamUnaryCallable(
    _Callable, grpc.aio.StreamUnaryMultiCallable[Any, Any] if TYPE_CHECKING else grpc.aio.StreamUnaryMultiCallable
):
    """Any number of requests, one response."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamUnaryCall | InterceptedStreamUnaryCall:
        """Make a call; write to it or give it an iterator, and await it. Raises as `UnaryUnaryCallable` does."""
        given = (timeout, metadata, credentials, wait_for_ready)
        if not self._interceptors:
            return _stream_unary(self._method, request_iterator, *given, compression)
        make = self._make(_stream_unary, compression)
        return InterceptedStreamUnaryCall(self._interceptors, make, self._details(*given), request_iterator)


class StreamStreamCallable(
    _Callable, grpc.aio.StreamStreamMultiCallable[Any, Any] if TYPE_CHECKING else grpc.aio.StreamStreamMultiCallable
):
    """Any number of requests and responses."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamStreamCall | InterceptedStreamStreamCall:
        """Make a call; write and read in any order. Raises as `UnaryUnaryCallable` does."""
        given = (timeout, metadata, credentials, wait_for_ready)
        if not self._interceptors:
            return _stream_stream(self._method, request_iterator, *given, compression)
        make = self._make(_stream_stream, compression)
        return InterceptedStreamStreamCall(self._interceptors, make, self._details(*given), request_iterator)
