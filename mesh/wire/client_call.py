"""`ClientCall`: the life of one call at a client, whatever its cardinality.

    waiting in line => on a connection (=> waiting to be tried again => in line) => over

It is what a connection tells of the stream, and what the public call objects (`client_unary`, `client_streams`) ask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

import grpc

from mesh.wire.client_outcome import Outcome
from mesh.wire.connection import Connection
from mesh.wire.deadlines import Deadlines
from mesh.wire.events import ResponseReceived
from mesh.wire.faults import ErrorCode
from mesh.wire.headers import Headers, encode_field
from mesh.wire.messages import MessageError, encode_message, prefix_of
from mesh.wire.metadata import encode_timeout
from mesh.wire.responses import Status, of_reset, read_head, read_status
from mesh.wire.retries import Retries
from mesh.wire.service_config import MethodConfig

__all__ = ["CallHost", "CallMethod", "Carrier", "ClientCall", "timeout_field"]

CANCELLED: Final = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
COLLECTED: Final = Status(grpc.StatusCode.CANCELLED, "Cancelled upon garbage collection!")
EXPIRED: Final = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
WRITE_AHEAD_BYTES: Final = 64 << 10
"""A writer waits once more than this of its stream is not sent: enough to keep the wire busy, little enough to hold."""
LONG_BYTES: Final = 64 << 10
"""From this length on a message is not copied behind its prefix."""
_ATTEMPTS: Final = b"grpc-previous-rpc-attempts"
_TIMEOUT: Final = encode_field(b"grpc-timeout", b"")[:-1]


def timeout_field(seconds: float) -> bytes:
    """The field that tells how much time is left, as it goes behind a block."""
    value = encode_timeout(seconds)
    return _TIMEOUT + bytes((len(value),)) + value


class CallHost(Protocol):
    """What a call needs of its channel."""

    loop: asyncio.AbstractEventLoop
    deadlines: Deadlines
    retries: Retries

    def timeout_field(self, seconds: float, /) -> bytes:
        """`timeout_field`, from memory where it was made before."""
        ...

    def submit(self, call: ClientCall, /) -> None:
        """Send the call, or let it wait for a connection."""
        ...

    def submit_later(self, call: ClientCall, delay_s: float, /) -> None:
        """The same after a while."""
        ...

    def leave(self, call: ClientCall, /) -> None:
        """The call does not wait any more."""
        ...


class CallMethod(Protocol):
    """What a call needs of its method."""

    @property
    def host(self) -> CallHost:
        """The channel."""
        ...

    path: str
    config: MethodConfig
    max_send_bytes: int
    max_receive_bytes: int
    retry_buffer_bytes: int

    def serialized(self, request: Any, /) -> bytes:
        """A request's bytes."""
        ...

    def deserialized(self, raw: bytes, /) -> Any:
        """A response."""
        ...


class Carrier(Protocol):
    """What a call needs of the connection that it goes over."""

    connection: Connection
    calls: dict[int, ClientCall]
    paused: bool
    """Whether the operating system takes no more of what is written."""

    def began(self, stream_id: int, /) -> None:
        """A call begins."""
        ...

    def flush_soon(self) -> None:
        """Write before the loop waits again."""
        ...

    def forget(self, stream_id: int, /) -> None:
        """The call is over, or will be tried elsewhere."""
        ...


class ClientCall(Outcome):
    """One call.

    Args:
        method: What it shares with the other calls of its method.
        block: Its header block, less the deadline.
    """

    # Most of these never change in a call's life: as attributes of the class they cost a call nothing.
    protocol: Carrier | None = None
    stream_id = 0
    wait_for_ready = False
    compress = False
    requests_ended = False
    attempts = 0
    """How often it was sent before."""
    _timeout: bytes | None = None
    """The field of the deadline, for a call that is sent at once."""
    _refused = False
    _kept: list[bytes] | None = None
    """What is sent again when the call is tried again; None once it will not be."""
    _kept_bytes = 0
    _writing: asyncio.Future[None] | None = None

    def __init__(self, method: CallMethod, block: bytes) -> None:
        self.method = method
        self.host: CallHost = method.host
        self.loop = self.host.loop
        self.block = block

    # Beginning.

    def begin(self, timeout_s: float | None, wait_for_ready: bool | None) -> None:
        """Send it, or let it wait for a connection. What is to be sent with its head was given before."""
        config = self.method.config
        if config.timeout_s is not None:
            timeout_s = config.timeout_s if timeout_s is None else min(timeout_s, config.timeout_s)
        self.wait_for_ready = config.wait_for_ready if wait_for_ready is None else wait_for_ready
        host = self.host
        if timeout_s is not None:
            self.deadline = deadline = time.monotonic() + timeout_s
            if timeout_s <= 0:
                self.finish(EXPIRED)
                return
            self._timeout = host.timeout_field(timeout_s)
            host.deadlines.add(self, deadline)
        host.submit(self)
        self._timeout = None  # whatever is sent later has less time

    def keep(self, pieces: list[bytes]) -> None:
        """Have a message sent with the head, and again should the call be tried again."""
        if self._kept is None:
            self._kept = pieces
        else:
            self._kept += pieces
        self._kept_bytes += sum(map(len, pieces))

    def send_on(self, protocol: Carrier) -> None:
        """Open a stream and send what there is: called by the channel, for a connection that takes one more."""
        connection = protocol.connection
        self.protocol = protocol
        block = self.block
        if self.attempts:
            block += encode_field(_ATTEMPTS, b"%d" % self.attempts)
        deadline = self.deadline
        if deadline is not None:
            block += self._timeout or timeout_field(deadline - time.monotonic())
        messages = self._kept
        ended = self.requests_ended
        if ended and messages and len(messages) == 1:
            stream_id = connection.send_request(block, messages[0])
        else:
            stream_id = connection.open_stream()
            connection.send_head(stream_id, block, end=ended and not messages)
            _send_pieces(connection, stream_id, messages or (), end=ended)
        self.stream_id = stream_id
        protocol.calls[stream_id] = self
        if self._kept_bytes > self.method.retry_buffer_bytes:
            self._kept = None
        protocol.began(stream_id)
        if self.watchers:
            self.wake()

    # Requests of a stream.

    def encoded(self, request: Any) -> list[bytes]:
        """A request as it goes on the wire; a long one in two pieces, which spares a copy.

        Raises:
            MessageError: It is longer than may be sent.
            TypeError: The serializer made no bytes.
        """
        raw = self.method.serialized(request)
        size = len(raw)
        if 0 <= self.method.max_send_bytes < size:
            text = f"Sent message larger than max ({size} vs. {self.method.max_send_bytes})"
            raise MessageError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        if self.compress:
            squeezed = encode_message(raw, compress=True)
            if len(squeezed) < size:
                return [squeezed]
        return [encode_message(raw)] if size < LONG_BYTES else [prefix_of(size), raw]

    async def started(self) -> None:
        """Wait until it is on a connection, or over."""
        while self.protocol is None and self.status is None:
            await self.changed()

    async def send(self, pieces: list[bytes]) -> None:
        """Send one request of a stream, and wait while the server does not take what was sent before."""
        await self.started()
        protocol = self.protocol
        if protocol is None or self.status is not None:
            return
        if self.head is None and (self._kept is not None or not self._kept_bytes):
            self.keep(pieces)
            if self._kept_bytes > self.method.retry_buffer_bytes:
                self._kept = None
        _send_pieces(protocol.connection, self.stream_id, pieces, end=False)
        protocol.flush_soon()
        while self._is_ahead():
            if self._writing is None:
                self._writing = self.host.loop.create_future()
            await self._writing

    def end_requests(self) -> None:
        """There are no more requests."""
        if self.requests_ended or self.status is not None:
            return
        self.requests_ended = True
        if self.protocol is not None:
            self.protocol.connection.send_data(self.stream_id, b"", end=True)
            self.protocol.flush_soon()

    def _is_ahead(self) -> bool:
        protocol = self.protocol
        if protocol is None or self.status is not None:
            return False
        return protocol.paused or protocol.connection.waiting_bytes(self.stream_id) > WRITE_AHEAD_BYTES

    def wake_writer(self) -> None:
        """Let whoever waits for room look again."""
        waiting, self._writing = self._writing, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # What the connection tells.

    def on_head(self, headers: Headers, end: bool) -> None:
        """The response's opening list; with `end` it is all there is."""
        if end:
            self.end_attempt(read_status(headers))
            return
        self.head = head = read_head(headers)
        self._kept = None  # whatever follows is the answer
        if head.problem is not None:
            self.give_up(head.problem)
        elif self.watchers:
            self.wake()

    def on_data(self, data: bytes | memoryview, flow_bytes: int) -> None:
        """Some bytes of responses."""
        raise NotImplementedError

    def on_response(self, event: ResponseReceived) -> bool:
        """A whole response; False where that has to be told in parts, and nothing of it was taken."""
        return False

    def on_trailers(self, headers: Headers) -> None:
        """The end, as the server sees it."""
        self.end_attempt(read_status(headers))

    def on_reset(self, code: int, *, remote: bool, text: str) -> None:
        """The stream is over before its end."""
        refused = remote and code == ErrorCode.REFUSED_STREAM
        self.end_attempt(of_reset(code, remote=remote, text=text), unseen=refused)

    def end_attempt(self, status: Status, *, unseen: bool = False) -> None:
        """The server, or the loss of it, ended the call, or only this attempt: `unseen` where no server looked at it.

        Tried again is what nothing was received of: once where it was not seen, and else as the method's policy says.
        """
        retries = self.host.retries
        if self.head is None and (self._kept is not None or not self._kept_bytes):
            if unseen and not self._refused:
                self._refused = True
                self._let_go()
                self.host.submit(self)
                return
            if self.method.config.retry is not None and status.retryable:
                delay_s = retries.next_delay(self.method.config.retry, self.attempts + 1, status)
                if delay_s is not None:
                    self.attempts += 1
                    self._let_go()
                    self.host.submit_later(self, delay_s)
                    return
        if status.ok:
            retries.succeeded()
            status = self.checked(status)
        self.finish(status)

    def checked(self, status: Status) -> Status:
        """A good end, or what is wrong with the responses before it."""
        return status

    # Ending.

    def expire(self) -> None:
        """The deadline has passed."""
        self.give_up(EXPIRED)

    def give_up(self, status: Status) -> None:
        """End it from here."""
        if self.status is None:
            self.host.leave(self)
            self.finish(status)

    def cancel_with(self, status: Status) -> bool:
        """End it because whoever made it does not want it any more."""
        if self.status is not None:
            return False
        self.cancelled_here = True
        self.give_up(status)
        return True

    def _let_go(self) -> None:
        """Leave the connection. A stream that is not over on both sides is ended."""
        protocol = self.protocol
        if protocol is not None:
            self.protocol = None
            protocol.forget(self.stream_id)
            if self._writing is not None:
                self.wake_writer()  # there may be more room elsewhere

    def finish(self, status: Status) -> None:
        """It is over: free what it holds, and say so. The first status holds."""
        if self.status is not None:
            return
        self.status = status
        self._let_go()
        self._kept = None
        if self.deadline is not None:
            self.host.deadlines.discard(self)
        self.wake_result()
        if self.watchers:
            self.wake()
        if self.callbacks:
            self.call_back()

    def wake_result(self) -> None:
        """Let whoever waits for a response look again."""
        raise NotImplementedError


def _send_pieces(connection: Connection, stream_id: int, pieces: Sequence[bytes], *, end: bool) -> None:
    last = len(pieces) - 1
    for place, piece in enumerate(pieces):
        connection.send_data(stream_id, piece, end=end and place == last)
