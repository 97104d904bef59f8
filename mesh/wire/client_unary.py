"""Calls that are answered with one response: `UnaryUnaryCall`, `StreamUnaryCall`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import grpc

from mesh.wire.client_call import CANCELLED, ClientCall
from mesh.wire.client_method import Method
from mesh.wire.client_outcome import metadata_of
from mesh.wire.client_requests import RequestWriter
from mesh.wire.events import ResponseReceived
from mesh.wire.frames import PREFIX_SIZE
from mesh.wire.messages import MessageError, MessageReader
from mesh.wire.responses import ResponseHead, Status, read_head, read_status

__all__ = ["StreamUnaryCall", "UnaryUnaryCall"]


class _OneResponse(ClientCall):
    """A call that is awaited."""

    _waiter: asyncio.Future[None] | None = None
    _reader: MessageReader | None = None
    _raw: bytes | None = None
    _made = False
    _response: Any = None

    def on_response(self, event: ResponseReceived) -> bool:
        """The whole of it at once, which is how most come."""
        head, status = event.headers.memo, event.trailers.memo
        if type(head) is not ResponseHead or type(status) is not Status:
            head, status = read_head(event.headers), read_status(event.trailers)
        message = event.message
        if head.problem is not None or not status.ok or 0 <= self.method.max_receive_bytes < len(message):
            return False
        self.head = head
        self._raw = message
        self.host.retries.succeeded()
        self.finish(status)
        return True

    def on_data(self, data: bytes | memoryview, flow_bytes: int) -> None:
        """Some bytes of the response."""
        protocol = self.protocol
        assert protocol is not None
        size = len(data) - PREFIX_SIZE
        if (
            self._reader is None
            and self._raw is None
            and size >= 0
            and not data[0]
            and int.from_bytes(data[1:PREFIX_SIZE], "big") == size
            and not 0 <= self.method.max_receive_bytes < size
        ):
            # By far the most common case: one whole uncompressed message in one frame. More of the stream is not due.
            self._raw = bytes(data[PREFIX_SIZE:])
            protocol.connection.acknowledge(0, flow_bytes)
        else:
            protocol.connection.acknowledge(self.stream_id, flow_bytes)
            self._feed(data)

    def _feed(self, data: bytes | memoryview) -> None:
        head = self.head
        if self._reader is None:
            self._reader = MessageReader(self.method.max_receive_bytes, head.encoding if head else b"identity")
        reader = self._reader
        try:
            reader.feed(data)
            if len(reader) + (self._raw is not None) > 1:
                raise MessageError(grpc.StatusCode.UNIMPLEMENTED, "more responses than the one that is due")
            if len(reader):
                self._raw = reader.take()
        except MessageError as error:
            self.give_up(Status(error.code, error.text))

    def checked(self, status: Status) -> Status:
        if self._reader is not None and self._reader.partial:
            return Status(grpc.StatusCode.INTERNAL, "the response is cut off")
        if self._raw is None:
            return Status(grpc.StatusCode.UNIMPLEMENTED, "no response where one is due")
        return status

    def wake_result(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def __await__(self) -> Generator[Any, None, Any]:
        if self.status is None:
            if self._waiter is None:
                self._waiter = self.loop.create_future()
            try:
                yield from self._waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        elif not self._made and not self.status.ok:
            # It failed at once. Who asks again and again would keep the loop from ever connecting.
            yield
        if not self._made:
            if self._raw is None or self.cancelled_here or not self.status or not self.status.ok:
                self.raise_for_status()
            assert self._raw is not None
            self._response = self.method.deserialized(self._raw)
            self._raw = None
            self._made = True
        return self._response

    # The surface of grpc.aio.Call.

    def cancel(self) -> bool:
        """End it; False where it was over."""
        return self.cancel_with(CANCELLED)

    def cancelled(self) -> bool:
        """Whether it ended as CANCELLED."""
        return self.status is not None and self.status.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether it is over."""
        return self.status is not None

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None where there is none."""
        return self.time_left()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back, with this call, when it is over."""
        self.on_done(lambda: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """What came before the response."""
        return await self.until_answered()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What came with the status."""
        return metadata_of((await self.until_done()).trailing)

    async def code(self) -> grpc.StatusCode:
        """The status."""
        return (await self.until_done()).code

    async def details(self) -> str:
        """The text beside the status."""
        return (await self.until_done()).details

    async def debug_error_string(self) -> str:
        """The end in one line, for people."""
        await self.until_done()
        return self.debug()

    async def wait_for_connection(self) -> None:
        """Wait until it is on a connection. Raises as awaiting does, where it ended before."""
        await self.started()
        self.raise_for_status()


class UnaryUnaryCall(_OneResponse, grpc.aio.UnaryUnaryCall[Any, Any] if TYPE_CHECKING else grpc.aio.UnaryUnaryCall):
    """One request, one response."""


class StreamUnaryCall(_OneResponse, grpc.aio.StreamUnaryCall[Any, Any] if TYPE_CHECKING else grpc.aio.StreamUnaryCall):
    """Any number of requests, one response."""

    def __init__(self, method: Method, block: bytes, requests: Any) -> None:
        super().__init__(method, block)
        self._requests = RequestWriter(self, requests)

    def begin_requests(self) -> None:
        """Take requests out of their iterator, where they come out of one."""
        self._requests.begin()

    async def write(self, request: Any) -> None:
        """Send a request. Raises asyncio.InvalidStateError once the call is over or its requests are."""
        await self._requests.write(request)

    async def done_writing(self) -> None:
        """There are no more requests."""
        self._requests.done_writing()
