"""What stands for a call where an interceptor gave something else: a response, or an iterator of responses."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import grpc

__all__ = ["Answered", "IteratedStreamStream", "IteratedUnaryStream"]


class _Over:
    """The surface of a call that went well and is over."""

    def cancel(self) -> bool:
        """It is over."""
        return False

    def cancelled(self) -> bool:
        """It was not."""
        return False

    def done(self) -> bool:
        """It is."""
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back at once."""
        callback(self)

    def time_remaining(self) -> float | None:
        """There is no deadline."""
        return None

    async def initial_metadata(self) -> Any:
        """There is none."""
        return None

    async def trailing_metadata(self) -> Any:
        """There is none."""
        return None

    async def code(self) -> grpc.StatusCode:
        """OK."""
        return grpc.StatusCode.OK

    async def details(self) -> str:
        """Nothing."""
        return ""

    async def debug_error_string(self) -> str | None:
        """Nothing."""
        return None

    async def wait_for_connection(self) -> None:
        """There is none to wait for."""


class Answered(_Over, grpc.aio.UnaryUnaryCall[Any, Any] if TYPE_CHECKING else grpc.aio.UnaryUnaryCall):
    """A response that an interceptor gave by itself."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._response


class _Iterated:
    """A call whose responses come out of an iterator that an interceptor gave; all else is asked of the call beneath,
    or of one that is over where the interceptor made none.
    """

    def __init__(self, call: Any, responses: Any) -> None:
        self._beneath: Any = _Over() if call is None else call
        self._responses = responses

    def __aiter__(self) -> Any:
        return self._responses.__aiter__()

    async def read(self) -> Any:
        """The next response, or `grpc.aio.EOF` after the last."""
        try:
            return await anext(self._responses.__aiter__())
        except StopAsyncIteration:
            return grpc.aio.EOF

    def cancel(self) -> bool:
        """End it; False where it was over."""
        return self._beneath.cancel()

    def cancelled(self) -> bool:
        """Whether it ended as CANCELLED."""
        return self._beneath.cancelled()

    def done(self) -> bool:
        """Whether it is over."""
        return self._beneath.done()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back, with this call, when it is over."""

        def when_over(_: Any) -> None:
            callback(self)

        self._beneath.add_done_callback(when_over)

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None where there is none."""
        return self._beneath.time_remaining()

    async def initial_metadata(self) -> Any:
        """What came before the responses."""
        return await self._beneath.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """What came with the status."""
        return await self._beneath.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """The status."""
        return await self._beneath.code()

    async def details(self) -> str:
        """The text beside the status."""
        return await self._beneath.details()

    async def debug_error_string(self) -> str | None:
        """The end in one line, for people."""
        return await self._beneath.debug_error_string()

    async def wait_for_connection(self) -> None:
        """Wait until it is on a connection."""
        await self._beneath.wait_for_connection()


class IteratedUnaryStream(_Iterated, grpc.aio.UnaryStreamCall[Any, Any] if TYPE_CHECKING else grpc.aio.UnaryStreamCall):
    """One request, and responses of an interceptor's making."""


class IteratedStreamStream(
    _Iterated, grpc.aio.StreamStreamCall[Any, Any] if TYPE_CHECKING else grpc.aio.StreamStreamCall
):
    """Any number of requests, and responses of an interceptor's making."""

    async def write(self, request: Any) -> None:
        """Requests go through the iterator that interceptors are given, never through here."""
        raise grpc.aio.UsageError("requests of an intercepted call are written to the call that its maker was given")

    async def done_writing(self) -> None:
        """As `write`."""
        await self.write(None)
