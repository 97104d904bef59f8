"""`GatewayClient`: what clients of a gateway's services have in common: a channel, and errors as they were raised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

import grpc

from mesh.context import cancel_requested
from mesh.errors import NotFound, RequestError, Unavailable
from mesh.transports import ENGINES, Limits
from mesh.transports.grpc import target_of
from mesh.transports.status import DETAILS_KEY, error_of_call

__all__ = ["GatewayClient"]

T = TypeVar("T")


class GatewayClient:
    """An async context manager; it connects when first used. Good for any number of calls at once.

    Args:
        address: `grpc://host:port` or `unix:/path` of a gateway.
        engine: What speaks gRPC at this side, `wire` or `grpcio`.
        call_s: How long one answer may take, in seconds.
        stub: The generated stub of the service.
        takes: What a gateway without the service does not take, in a word.

    Raises:
        PlacementError: `address` is no address.
    """

    def __init__(
        self, address: str, *, engine: str, call_s: float, stub: Callable[[grpc.aio.Channel], Any], takes: str
    ) -> None:
        self._address = address
        self._target = target_of(address)
        self._engine = engine
        self._call_s = call_s
        self._make_stub = stub
        self._takes = takes
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        self._channel = ENGINES[self._engine]().channel(self._target, Limits())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    @property
    def _closed(self) -> bool:
        return self._channel is None

    def _stub(self) -> Any:
        if self._channel is None:
            raise Unavailable("the client is closed")
        return self._make_stub(self._channel)

    async def _ask(self, method: str, request: Any) -> Any:
        ask = getattr(self._stub(), method)
        return await self._heard(lambda: ask(request, timeout=self._call_s))

    async def _heard(self, asking: Callable[[], Awaitable[T]]) -> T:
        """What a call gives; errors come back as they were raised."""
        try:
            return await asking()
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # What grpcio says when the channel was closed under a call, or before it.
            if cancel_requested():
                raise
            raise Unavailable("the client is closed") from None

    def _error(self, error: grpc.aio.AioRpcError) -> RequestError:
        if any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ()):
            return error_of_call(error)
        match error.code():
            case grpc.StatusCode.UNIMPLEMENTED:
                return NotFound(f"{self._address} takes no {self._takes}: its topology needs a jobs: block")
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return Unavailable(f"{self._address} cannot be reached: nobody answers there")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return Unavailable(f"{self._address} took the call and did not answer within {self._call_s:g} s")
            case _:
                return error_of_call(error)
