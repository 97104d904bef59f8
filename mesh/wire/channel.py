"""`insecure_channel()`, `secure_channel()`: drop-ins for those of `grpc.aio`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from mesh.wire.client_core import ChannelCore
from mesh.wire.client_interceptors import Interceptors
from mesh.wire.client_method import Method
from mesh.wire.client_options import ChannelOptions, compresses
from mesh.wire.credentials import ChannelCredentials
from mesh.wire.multicallables import StreamStreamCallable, StreamUnaryCallable, UnaryStreamCallable, UnaryUnaryCallable
from mesh.wire.resolving import parse_target

__all__ = ["WireChannel", "insecure_channel", "secure_channel"]

_Serializer = Callable[[Any], bytes] | None
_Deserializer = Callable[[bytes], Any] | None


def insecure_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
) -> WireChannel:
    """A channel in the clear, with the surface of `grpc.aio.insecure_channel`. It connects when first used.

    Args:
        target: See `mesh.wire.resolving`.
        options: See `ChannelOptions`.
        compression: Of requests: gzip or none.
        interceptors: Those of each cardinality apply to its calls, the first one outermost.

    Raises:
        ValueError: Something that is not supported; names it.
        RuntimeError: No event loop is running.
    """
    return WireChannel(target, options, None, compression, interceptors)


def secure_channel(
    target: str,
    credentials: ChannelCredentials,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
) -> WireChannel:
    """A channel under TLS. As `insecure_channel`, and besides:

    Raises:
        TypeError: The credentials are grpcio's, which cannot be looked into; use `mesh.wire.ChannelCredentials`.
        ssl.SSLError: The credentials' key or certificates are none.
    """
    if not isinstance(credentials, ChannelCredentials):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError("grpcio's ChannelCredentials cannot be looked into; use mesh.wire.ChannelCredentials")
    return WireChannel(target, options, credentials, compression, interceptors)


class WireChannel(grpc.aio.Channel):
    """Makes calls for stubs. It belongs to the event loop in which it was made."""

    def __init__(
        self,
        target: str,
        options: Sequence[tuple[str, Any]] | None,
        credentials: ChannelCredentials | None,
        compression: grpc.Compression | None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] | None,
    ) -> None:
        self._interceptors = Interceptors(interceptors)
        self._core = ChannelCore(
            parse_target(target),
            ChannelOptions.read(options),
            credentials,
            compress=compresses(compression),
            loop=asyncio.get_running_loop(),
        )

    def __del__(self) -> None:
        core: ChannelCore | None = getattr(self, "_core", None)
        if core is not None and not core.closed and not core.loop.is_closed():
            core.shut()

    # The state.

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """How the connections are; IDLE until the first use, and after it where nothing needs them."""
        state = self._core.state
        if try_to_connect:
            self._core.connect()
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another."""
        await self._core.state_changed(last_observed_state)

    async def channel_ready(self) -> None:
        """Connect, and wait until there is a connection."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                raise grpc.aio.UsageError("Channel is closed.")
            await self._core.state_changed(state)

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls, let those there are go on for `grace` seconds, cancel the rest, and hang up.

        Raises:
            ValueError: `grace` is negative.
        """
        if grace is not None and grace < 0:
            raise ValueError(f"grace must be non-negative, got {grace}.")
        await self._core.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close(None)

    # Methods. `_registered_method` is what generated code says; it changes nothing here.

    def unary_unary(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnaryCallable:
        """One request, one response."""
        made = Method(self._core, method, request_serializer, response_deserializer)
        return UnaryUnaryCallable(self, made, self._interceptors.unary_unary)

    def unary_stream(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryStreamCallable:
        """One request, any number of responses."""
        made = Method(self._core, method, request_serializer, response_deserializer)
        return UnaryStreamCallable(self, made, self._interceptors.unary_stream)

    def stream_unary(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamUnaryCallable:
        """Any number of requests, one response."""
        made = Method(self._core, method, request_serializer, response_deserializer)
        return StreamUnaryCallable(self, made, self._interceptors.stream_unary)

    def stream_stream(
        self,
        method: str,
        request_serializer: _Serializer = None,
        response_deserializer: _Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamStreamCallable:
        """Any number of requests and responses."""
        made = Method(self._core, method, request_serializer, response_deserializer)
        return StreamStreamCallable(self, made, self._interceptors.stream_stream)
