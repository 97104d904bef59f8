"""What a channel gives a stub for each method: called, it makes a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from mesh.wire.client_call import ClientCall
from mesh.wire.client_method import Method
from mesh.wire.client_streams import ResponseStream, StreamStreamCall, UnaryStreamCall
from mesh.wire.client_unary import StreamUnaryCall, UnaryUnaryCall
from mesh.wire.messages import MessageError
from mesh.wire.responses import Status

__all__ = ["StreamStreamCallable", "StreamUnaryCallable", "UnaryStreamCallable", "UnaryUnaryCallable"]


def _refuse(credentials: Any) -> None:
    if credentials is not None:
        raise ValueError(
            "credentials of a single call are not supported (grpcio's cannot be looked into): send them as metadata, "
            "or with an interceptor"
        )


class _Callable:
    """One method.

    Args:
        channel: Held, so that the channel lives as long as a stub does.
        method: What its calls have in common.
        interceptors: Of the method's cardinality.
    """

    def __init__(self, channel: grpc.aio.Channel, method: Method) -> None:
        self._channel = channel
        self._method = method


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
    ) -> UnaryUnaryCall:
        """Make a call; await it for the response.

        Raises:
            ValueError: Something that is not supported, or metadata that cannot be sent.
            TypeError: The request's serializer made no bytes.
            grpc.aio.UsageError: The channel is closed.
        """
        if credentials is not None:
            _refuse(credentials)
        method = self._method
        method.host.check_open()
        compress = method.compresses(compression)
        call = UnaryUnaryCall(method, method.block(metadata, compress=compress))
        call.compress = compress
        _send_one(call, request, timeout, wait_for_ready)
        return call


def _send_one(call: ClientCall, request: Any, timeout: float | None, wait_for_ready: bool | None) -> None:
    call.requests_ended = True
    try:
        call.keep(call.encoded(request))
    except MessageError as error:
        call.finish(Status(error.code, error.text))
    else:
        call.begin(timeout, wait_for_ready)


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
    ) -> UnaryStreamCall:
        """Make a call; iterate over it for the responses. Raises as `UnaryUnaryCallable` does."""
        _refuse(credentials)
        method = self._method
        method.host.check_open()
        compress = method.compresses(compression)
        call = ResponseStream(method, method.block(metadata, compress=compress))
        call.compress = compress
        _send_one(call, request, timeout, wait_for_ready)
        return UnaryStreamCall(call)


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
    ) -> StreamUnaryCall:
        """Make a call; write to it or give it an iterator, and await it. Raises as `UnaryUnaryCallable` does."""
        _refuse(credentials)
        method = self._method
        method.host.check_open()
        compress = method.compresses(compression)
        call = StreamUnaryCall(method, method.block(metadata, compress=compress), request_iterator)
        call.compress = compress
        call.begin(timeout, wait_for_ready)
        call.begin_requests()
        return call


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
    ) -> StreamStreamCall:
        """Make a call; write and read in any order. Raises as `UnaryUnaryCallable` does."""
        _refuse(credentials)
        method = self._method
        method.host.check_open()
        compress = method.compresses(compression)
        call = ResponseStream(method, method.block(metadata, compress=compress))
        call.compress = compress
        handle = StreamStreamCall(call, request_iterator)
        call.begin(timeout, wait_for_ready)
        handle.begin_requests()
        return handle
