"""`Intake`: the requests of one call at a server, from data to messages."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from mesh.wire.call_host import CallHost
from mesh.wire.messages import MessageError, MessageReader, whole_message
from mesh.wire.routes import Route
from mesh.wire.streams import Buffer

__all__ = ["Intake"]


class Intake:
    """What a call has received."""

    protocol: CallHost
    stream_id: int
    route: Route
    # Of these, most calls change few: what stands on the class need not be set for each of them.
    handler: Any = None
    streams_in: bool = False
    """Whether messages go to the handler one by one."""
    reader: MessageReader | None = None
    """What takes messages out of data; there is none until there is data that is not a whole request."""
    whole: bytes | None = None
    """A whole request that came in one piece, until it is handed over."""
    received_end: bool = False
    """Whether the client's half is over."""
    over: bool = False
    """Whether trailers were sent, or the stream was reset."""
    unacknowledged: int = 0
    reading: asyncio.Future[None] | None = None
    """Who waits for a message."""

    def receive_whole(self, data: Buffer, flow_bytes: int) -> bool:
        """Take the whole request in one piece, which is how most come; False where it is not, and nothing was taken."""
        if self.streams_in or self.handler is None or self.reader is not None:
            return False
        host = self.protocol
        self.whole = whole_message(data, host.options.max_receive_bytes)
        if self.whole is None:
            return False
        self.received_end = True
        host.connection.acknowledge(0, flow_bytes)
        return True

    def receive(self, data: Buffer, flow_bytes: int) -> None:
        """Take some data in. Raises MessageError."""
        self.unacknowledged += flow_bytes
        host = self.protocol
        reader = self.reader
        if reader is None:
            reader = self.reader = MessageReader(host.options.max_receive_bytes, self.route.encoding)
        host.held_bytes -= reader.held_bytes
        try:
            reader.feed(data)
        finally:
            host.held_bytes += reader.held_bytes
        if host.held_bytes > host.connection.limits.max_held_bytes:
            raise MessageError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much of this connection's requests is held")
        if len(reader) <= 1:
            # Nothing is kept from the handler yet: a message longer than the window has to be let in whole.
            self.acknowledge()
        elif not self.streams_in:
            raise MessageError(grpc.StatusCode.UNIMPLEMENTED, "several requests where one is taken")
        if self.reading is not None and reader:
            self.wake_reader()

    def receive_end(self) -> None:
        """The client's half is over."""
        self.received_end = True
        self.wake_reader()

    async def next_message(self) -> bytes | None:
        """The next request's bytes, None after the last."""
        while not self.reader:
            if self.received_end or self.over:
                return None
            self.reading = asyncio.get_running_loop().create_future()
            await self.reading
        message = self.taken(self.reader)
        if not self.reader:
            self.acknowledge()
        return message

    def taken(self, reader: MessageReader) -> bytes:
        """The next message of the reader, which is not held any more."""
        host = self.protocol
        host.held_bytes -= reader.held_bytes
        try:
            return reader.take()
        finally:
            host.held_bytes += reader.held_bytes

    def wake_reader(self) -> None:
        """Let whoever waits for a message look again."""
        waiting, self.reading = self.reading, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def acknowledge(self) -> None:
        """Let the client send as much again as was consumed."""
        if self.unacknowledged:
            self.protocol.connection.acknowledge(self.stream_id, self.unacknowledged)
            self.unacknowledged = 0
            self.protocol.flush_soon()
