"""`RequestWriter`: the requests of a stream, written one by one or out of an iterator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

import grpc

from mesh.wire.client_call import CANCELLED, ClientCall
from mesh.wire.messages import MessageError
from mesh.wire.responses import Status

__all__ = ["MIXED", "RequestWriter"]

log = logging.getLogger("mesh.wire")

MIXED: Final = "The iterator and read/write APIs may not be mixed on a single RPC."
FINISHED: Final = "RPC already finished."
HALF_CLOSED: Final = 'RPC is half closed after calling "done_writing".'


class RequestWriter:
    """Writes the requests of one call.

    Args:
        call: The call, not begun yet.
        requests: An async or plain iterable, or None where `write` is called.
    """

    __slots__ = ("_call", "_requests", "_task")

    def __init__(self, call: ClientCall, requests: AsyncIterable[Any] | Iterable[Any] | None) -> None:
        self._call = call
        self._requests = requests
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take requests out of the iterator, where there is one, until the call is over."""
        call = self._call
        if self._requests is not None and call.status is None:
            self._task = task = call.host.loop.create_task(self._consume(self._requests))
            call.on_done(task.cancel)

    async def write(self, request: Any) -> None:
        """Send a request, and wait while the server does not take what was sent before.

        Raises:
            asyncio.InvalidStateError: The call is over, or its requests are.
            grpc.aio.UsageError: The requests come out of an iterator.
            grpc.aio.AioRpcError: The call ended before the request could be sent.
        """
        if self._requests is not None:
            raise grpc.aio.UsageError(MIXED)
        await self._write(request)

    def done_writing(self) -> None:
        """There are no more requests. Raises grpc.aio.UsageError where they come out of an iterator."""
        if self._requests is not None:
            raise grpc.aio.UsageError(MIXED)
        self._call.end_requests()

    async def _write(self, request: Any) -> None:
        call = self._call
        if call.status is not None:
            raise asyncio.InvalidStateError(FINISHED)
        if call.requests_ended:
            raise asyncio.InvalidStateError(HALF_CLOSED)
        if call.protocol is None:
            await call.started()
            call.raise_for_status()
        try:
            pieces = call.encoded(request)
        except MessageError as error:
            call.give_up(Status(error.code, error.text))
            call.raise_for_status()
            return
        try:
            await call.send(pieces)
        except asyncio.CancelledError:
            call.cancel_with(CANCELLED)
            raise

    async def _consume(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        call = self._call
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self._write(request)
            else:
                for request in requests:
                    await self._write(request)
            call.end_requests()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # Where the call is over, it says why. Else it was another call, of which the requests were to come.
            call.cancel_with(CANCELLED)
        except asyncio.CancelledError:
            call.cancel_with(CANCELLED)
            raise
        except Exception:
            # As with grpc.aio: a source of requests that fails cancels the call.
            log.debug("the requests of %s raised", call.method.path, exc_info=True)
            call.cancel_with(CANCELLED)
