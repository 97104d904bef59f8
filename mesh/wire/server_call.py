"""`ServerCall`: one call at a server, and the context that its handler is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from mesh.wire.answers import OK, head_block, refusal_block, trailers_block
from mesh.wire.call_host import CallHost
from mesh.wire.credentials import identities, identity_key
from mesh.wire.faults import ErrorCode
from mesh.wire.fields import Field
from mesh.wire.intake import Intake
from mesh.wire.messages import MessageError, encode_message, prefix_of
from mesh.wire.metadata import encode_metadata
from mesh.wire.routes import Route
from mesh.wire.serializing import deserialized, serialized
from mesh.wire.stepping import StepTask

__all__ = ["Aborted", "ServerCall"]

FAREWELL_S = 0.05
"""How long a client may take to end its side of a call that is answered before it is reset."""
COPIED_BYTES = 64 << 10
"""A message of this length or more is sent after its prefix, and not copied behind it."""
WRITE_AHEAD_BYTES = 64 << 10
"""A writer waits once more than this of its stream is not sent: enough to keep the wire busy, little enough to hold."""


class Aborted(grpc.aio.AbortError):
    """Ends a handler that called `abort`."""


class ServerCall(Intake, grpc.aio.ServicerContext[Any, Any] if TYPE_CHECKING else grpc.aio.ServicerContext):
    """One call. What it offers is `grpc.aio.ServicerContext`; what it holds is the call's state.

    waiting for the request => handler runs => trailers sent => over
    """

    # Of these, most calls change few: what stands on the class need not be set for each of them.
    task: StepTask | None = None
    timer: asyncio.TimerHandle | None = None
    _as_usual: bool = True
    """Whether the handler has said nothing of the answer but what it returns, and nothing was sent."""
    _head_sent: bool = False
    _initial: Sequence[Field] = ()
    _trailing: Any = ()
    _code: grpc.StatusCode | None = None
    _details: str = ""
    _compress: bool | None = None
    _compress_next: bool = True
    _cancelled: bool = False
    _callbacks: tuple[Callable[[Any], None], ...] = ()
    _writing: asyncio.Future[None] | None = None

    def __init__(self, protocol: CallHost, stream_id: int, route: Route, timeout_s: float | None) -> None:
        self.protocol = protocol
        self.stream_id = stream_id
        self.route = route
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s

    # What a handler may ask and say: grpc.aio.ServicerContext.

    def invocation_metadata(self) -> Any:
        """What the client sent beside its messages."""
        return self.route.details.invocation_metadata

    def time_remaining(self) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Seconds until the deadline, at least 0; None where there is none, as with grpcio."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def peer(self) -> str:
        """The client's address."""
        return self.protocol.peer

    def peer_identities(self) -> Sequence[bytes] | None:
        """The client's names by its certificate."""
        return identities(self.protocol.auth_context)

    def peer_identity_key(self) -> str | None:
        """Under which key of `auth_context` these names stand."""
        return identity_key(self.protocol.auth_context)

    def auth_context(self) -> dict[str, Sequence[bytes]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What is known of the client by its certificate."""
        return dict(self.protocol.auth_context)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the response's head, with metadata. Raises grpc.aio.UsageError when it was sent before."""
        if self._head_sent:
            raise grpc.aio.UsageError("initial metadata was sent before")
        self._as_usual = False
        self._initial = encode_metadata(initial_metadata)
        self._send_head()
        self.protocol.flush_soon()

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """What to send beside the status."""
        self._as_usual = False
        self._trailing = trailing_metadata

    def trailing_metadata(self) -> Any:
        """What `set_trailing_metadata` set."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status that the call ends with when its handler returns or raises."""
        self._as_usual = False
        self._code = code

    def set_details(self, details: str) -> None:
        """The text beside the status."""
        self._as_usual = False
        self._details = details

    def code(self) -> grpc.StatusCode | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What `set_code` or `abort` set."""
        return self._code

    def details(self) -> str:
        """What `set_details` or `abort` set."""
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress what is sent, where the client takes it."""
        self._as_usual = False
        self._compress = compression is not grpc.Compression.NoCompression

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is."""
        self._compress_next = False

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with an error: raises, and is not to be caught."""
        if code is grpc.StatusCode.OK:
            code, details = grpc.StatusCode.UNKNOWN, f"abort() with OK: {details}"
        self._as_usual = False
        self._code, self._details = code, details
        if trailing_metadata:
            self._trailing = trailing_metadata
        raise Aborted("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status and its details: raises, and is not to be caught."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back, with this context, when the call is over."""
        self._callbacks = (*self._callbacks, callback)

    def cancelled(self) -> bool:
        """Whether the client went away, or the deadline passed."""
        return self._cancelled

    def done(self) -> bool:
        """Whether the call is over."""
        return self.over

    async def read(self) -> Any:
        """The next request, or `grpc.aio.EOF` after the last."""
        raw = await self.next_message()
        return grpc.aio.EOF if raw is None else self.deserialized(raw)

    async def write(self, message: Any) -> None:
        """Send a response, and wait while the client does not take what was sent before."""
        if self.over:
            raise asyncio.InvalidStateError("the call is over")
        self.send_message(self.serialized(message))
        host = self.protocol
        if not host.paused and host.connection.sender.unwritten > WRITE_AHEAD_BYTES:
            # One who never waits would fill the memory before anything is written, and let nobody else run.
            host.flush()
            await asyncio.sleep(0)
        else:
            host.flush_soon()
        while self._is_ahead():
            self._writing = asyncio.get_running_loop().create_future()
            await self._writing

    # Requests.

    def only_request(self) -> Any:
        """The request of a call that takes one. Raises MessageError where it is another number, or cannot be read."""
        raw, self.whole = self.whole, None
        if raw is None:
            reader = self.reader
            if reader is None or len(reader) != 1 or reader.partial:
                raise MessageError(grpc.StatusCode.UNIMPLEMENTED, f"{len(reader or ())} requests where one is taken")
            raw = self.taken(reader)
        return self.deserialized(raw)

    def wake_writer(self) -> None:
        """Let whoever waits for room look again."""
        waiting, self._writing = self._writing, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def deserialized(self, raw: bytes) -> Any:
        """A request. Raises MessageError where the handler's deserializer cannot make one."""
        return deserialized(self.handler.request_deserializer, raw, self.route.details.method)

    def serialized(self, message: Any) -> bytes:
        """A response's bytes. Raises MessageError where they are too many, or the serializer cannot make them."""
        bound = self.protocol.options.max_send_bytes
        return serialized(self.handler.response_serializer, message, bound, self.route.details.method)

    # Responses.

    def _is_ahead(self) -> bool:
        if self.over:
            return False
        waiting = self.protocol.connection.waiting_bytes(self.stream_id)
        return self.protocol.paused or waiting > WRITE_AHEAD_BYTES

    def _send_head(self) -> None:
        self._as_usual = False
        self._head_sent = True
        self.protocol.connection.send_head(self.stream_id, head_block(self._initial, compress=self._compressing()))

    def _compressing(self) -> bool:
        wanted = self.protocol.compress if self._compress is None else self._compress
        return wanted and b"gzip" in self.route.accepts

    def send_message(self, raw: bytes) -> None:
        """Put a response on its way."""
        if not self._head_sent:
            self._send_head()
        compress = self._compressing() and self._compress_next
        self._compress_next = True
        connection = self.protocol.connection
        if len(raw) < COPIED_BYTES or compress:
            sent = connection.send_data(self.stream_id, encode_message(raw, compress=compress))
        else:
            connection.send_data(self.stream_id, prefix_of(len(raw)))
            sent = connection.send_data(self.stream_id, raw)
        if not sent:
            self.cancel()

    def answer(self, message: Any) -> None:
        """End the call with its only response, or as the handler has said. Raises MessageError."""
        host = self.protocol
        if self._as_usual:
            raw = self.serialized(message)
            usual = type(raw) is bytes and len(raw) < COPIED_BYTES and not (self.over or host.compress)
            if usual and host.connection.send_answer(self.stream_id, OK, raw):
                self.close()
                host.flush_soon()
                return
        else:
            code = self._code
            if code is not None and code is not grpc.StatusCode.OK:
                self.finish(code, self._details)
                return
            raw = self.serialized(message)
        self.send_message(raw)
        self.finish(grpc.StatusCode.OK, self._details)

    def finish(self, code: grpc.StatusCode, details: str = "") -> None:
        """End the call with a status; the first one holds."""
        if self.over:
            return
        try:
            self._send_end(code, details, self._trailing or ())
        except ValueError as error:
            self._send_end(grpc.StatusCode.INTERNAL, str(error), ())
        connection = self.protocol.connection
        if not self.received_end and not connection.waiting_bytes(self.stream_id):
            # 8.1: the answer is whole, and nobody waits for the rest of the request. Most clients end it by themselves
            # once they read the answer, and grpcio's takes a reset that comes along with the answer for a failure.
            self.protocol.loop.call_later(FAREWELL_S, self._dismiss)
        self.close()
        self.protocol.flush_soon()

    def _dismiss(self) -> None:
        self.protocol.connection.reset(self.stream_id, ErrorCode.NO_ERROR)
        self.protocol.flush_soon()

    def _send_end(self, code: grpc.StatusCode, details: str, trailing: Any) -> None:
        connection = self.protocol.connection
        if not self._head_sent and code is not grpc.StatusCode.OK:
            connection.send_head(self.stream_id, refusal_block(self._initial, code, details, trailing), end=True)
            return
        block = trailers_block(code, details, trailing)
        if not self._head_sent:
            self._send_head()
        connection.send_trailers(self.stream_id, block)

    def cancel(self, code: grpc.StatusCode | None = None, details: str = "") -> None:
        """The client went away, or time is up (then `code` says what to tell it): stop the handler."""
        if self.over:
            return
        self._cancelled = True
        if code is not None:
            self.finish(code, details)
        else:
            self.close()
        if self.task is not None:
            self.task.cancel()
            self.protocol.still_runs(self.task)

    def expire(self) -> None:
        """Time is up."""
        self.cancel(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def arm(self) -> None:
        """See to it that the deadline is kept: only for who really waits, since a timer costs more than many calls."""
        if self.deadline is not None and self.timer is None:
            remaining = max(0.0, self.deadline - time.monotonic())
            self.timer = self.protocol.loop.call_later(remaining, self.expire)

    def close(self) -> None:
        """The call is over: free what it holds, and say so."""
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        host = self.protocol
        if self.reader is not None:
            host.held_bytes -= self.reader.held_bytes
            self.reader.clear()
        if self.unacknowledged:
            self.acknowledge()
        host.forget(self.stream_id)
        if self.reading is not None:
            self.wake_reader()
        if self._writing is not None:
            self.wake_writer()
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, ()
            for callback in callbacks:
                host.loop.call_soon(callback, self)

    def status_of_end(self) -> tuple[grpc.StatusCode, str]:
        """What a handler that returned wants to end with."""
        return (self._code or grpc.StatusCode.OK), self._details
