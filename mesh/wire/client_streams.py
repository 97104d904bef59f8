"""Calls that are answered with a stream: `UnaryStreamCall`, `StreamStreamCall`.

The connection holds the call; whoever made it holds a handle. When the handle is dropped, as by leaving an `async for`
early, nobody can read on, and the call is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import grpc

from mesh.wire.client_call import CANCELLED, COLLECTED, ClientCall
from mesh.wire.client_outcome import metadata_of
from mesh.wire.client_requests import MIXED, RequestWriter
from mesh.wire.messages import MessageError, MessageReader
from mesh.wire.responses import Status

__all__ = ["ResponseStream", "StreamStreamCall", "UnaryStreamCall"]

_UNKNOWN: Final = 0
_ITERATED: Final = 1
_READ: Final = 2


class ResponseStream(ClientCall):
    """A call whose responses are read one by one."""

    _reader: MessageReader | None = None
    _reading: asyncio.Future[None] | None = None
    _unacknowledged = 0

    def on_data(self, data: bytes | memoryview, flow_bytes: int) -> None:
        """Some bytes of responses."""
        reader = self._reader
        if reader is None:
            encoding = self.head.encoding if self.head is not None else b"identity"
            reader = self._reader = MessageReader(self.method.max_receive_bytes, encoding)
        self._unacknowledged += flow_bytes
        try:
            reader.feed(data)
        except MessageError as error:
            self.acknowledge()
            self.give_up(Status(error.code, error.text))
            return
        if len(reader) <= 1:
            # Nothing is kept from the reader yet: a message longer than the window has to be let in whole.
            self.acknowledge()
        if self._reading is not None and len(reader):
            self.wake_result()

    def acknowledge(self) -> None:
        """Let the server send as much again as was read."""
        count, self._unacknowledged = self._unacknowledged, 0
        protocol = self.protocol
        if count and protocol is not None:
            protocol.connection.acknowledge(self.stream_id, count)
            protocol.flush_soon()

    def finish(self, status: Status) -> None:
        """It is over."""
        self.acknowledge()
        super().finish(status)

    def checked(self, status: Status) -> Status:
        """A good end, unless a response is cut off."""
        if self._reader is not None and self._reader.partial:
            return Status(grpc.StatusCode.INTERNAL, "the last response is cut off")
        return status

    def wake_result(self) -> None:
        """Let whoever reads look again."""
        waiting, self._reading = self._reading, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def next_raw(self) -> bytes | None:
        """The next response's bytes; None at the end. A call that was cancelled here gives no more."""
        while True:
            reader = self._reader
            if reader is not None and len(reader) and not self.cancelled_here:
                try:
                    raw = reader.take()
                except MessageError as error:
                    reader.clear()
                    self._spoil(Status(error.code, error.text))
                    return None
                if not len(reader):
                    self.acknowledge()
                return raw
            if self.status is not None:
                return None
            if self._reading is None:
                self._reading = self.loop.create_future()
            try:
                await self._reading
            except asyncio.CancelledError:
                self.cancel_with(CANCELLED)
                raise

    def _spoil(self, status: Status) -> None:
        """A response cannot be unpacked: that is how the call ends, whatever the server said meanwhile."""
        self.give_up(status)
        self.status = status


class _Handle:
    """What is given to whoever made the call."""

    _call: ResponseStream
    _style = _UNKNOWN

    def __del__(self) -> None:
        call = getattr(self, "_call", None)
        if call is not None and call.status is None and not call.host.loop.is_closed():
            call.cancel_with(COLLECTED)

    # Responses.

    def __aiter__(self) -> Any:
        self._takes(_ITERATED)
        return self

    async def __anext__(self) -> Any:
        raw = await self._call.next_raw()
        if raw is None:
            self._call.raise_for_status()
            raise StopAsyncIteration
        return self._call.method.deserialized(raw)

    async def read(self) -> Any:
        """The next response, or `grpc.aio.EOF` after the last. Raises where the call went wrong."""
        self._takes(_READ)
        raw = await self._call.next_raw()
        if raw is None:
            self._call.raise_for_status()
            return grpc.aio.EOF
        return self._call.method.deserialized(raw)

    def _takes(self, style: int) -> None:
        if self._style == _UNKNOWN:
            self._style = style
        elif self._style != style:
            raise grpc.aio.UsageError(MIXED)

    # The surface of grpc.aio.Call.

    def cancel(self) -> bool:
        """End it; False where it was over."""
        return self._call.cancel_with(CANCELLED)

    def cancelled(self) -> bool:
        """Whether it ended as CANCELLED."""
        status = self._call.status
        return status is not None and status.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether it is over."""
        return self._call.status is not None

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None where there is none."""
        return self._call.time_left()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back, with this call, when it is over."""
        self._call.on_done(lambda: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """What came before the responses."""
        return await self._call.until_answered()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What came with the status."""
        return metadata_of((await self._call.until_done()).trailing)

    async def code(self) -> grpc.StatusCode:
        """The status."""
        return (await self._call.until_done()).code

    async def details(self) -> str:
        """The text beside the status."""
        return (await self._call.until_done()).details

    async def debug_error_string(self) -> str:
        """The end in one line, for people."""
        await self._call.until_done()
        return self._call.debug()

    async def wait_for_connection(self) -> None:
        """Wait until it is on a connection. Raises as reading does, where it ended before."""
        await self._call.started()
        self._call.raise_for_status()


class UnaryStreamCall(_Handle, grpc.aio.UnaryStreamCall[Any, Any] if TYPE_CHECKING else grpc.aio.UnaryStreamCall):
    """One request, any number of responses."""

    def __init__(self, call: ResponseStream) -> None:
        self._call = call


class StreamStreamCall(_Handle, grpc.aio.StreamStreamCall[Any, Any] if TYPE_CHECKING else grpc.aio.StreamStreamCall):
    """Any number of requests and responses, in any order."""

    def __init__(self, call: ResponseStream, requests: Any) -> None:
        self._call = call
        self._requests = RequestWriter(call, requests)

    def begin_requests(self) -> None:
        """Take requests out of their iterator, where they come out of one."""
        self._requests.begin()

    async def write(self, request: Any) -> None:
        """Send a request. Raises asyncio.InvalidStateError once the call is over or its requests are."""
        await self._requests.write(request)

    async def done_writing(self) -> None:
        """There are no more requests."""
        self._requests.done_writing()
