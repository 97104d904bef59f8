"""`Connection`: one HTTP/2 connection without I/O. Bytes in; events, and bytes out.

    events = connection.receive(data)
    connection.send_head(...)
    socket.write(connection.take())

It knows HTTP/2 (RFC 9113) and nothing of gRPC or sockets. Both roles are here: a server's streams are opened by the
peer, a client's by `open_stream`. What the peer does wrong never raises: it becomes an event and the frames that answer
it.

    connection   what is sent, and the surface of all
    receiving    bytes to frames
    joining      calls that come whole, in one step
    exchange     DATA, HEADERS, CONTINUATION: what calls are made of
    control      every other frame
    state        what they share; how streams come and go
    sending      windows of the peer, and what waits for them
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import mesh.wire.frames as frames
from mesh.wire.events import Event, StreamReset
from mesh.wire.faults import ErrorCode
from mesh.wire.limits import WireLimits
from mesh.wire.receiving import Receiver
from mesh.wire.state import State
from mesh.wire.streams import BODY, ENDED, HEAD, Buffer, Stream

__all__ = ["Connection"]

PIECES_OF_AN_ANSWER: Final = 3
"""What an answer earns its peer beside the pieces in which it is put out (see `Budget`): it is worth six, as if every
frame had been sent by itself."""


class Connection:
    """One side of a connection.

    What is sent on a stream that is closed goes nowhere, silently: the peer may close one at any time.

    Args:
        client: Which side.
        limits: What the peer may ask of us.
        joins: Whether a request or response of gRPC that comes whole in one read is told of in one event
            (RequestReceived, ResponseReceived) and not in two or three.
        clock: Seconds that never go back. Asked only of a peer that sends much that brings nothing forward (`Budget`).
    """

    def __init__(
        self,
        *,
        client: bool,
        limits: WireLimits | None = None,
        joins: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = client
        self.limits = limits or WireLimits()
        self._state = state = State(client=client, limits=self.limits, clock=clock)
        self._receiver = Receiver(state, joins=joins)
        self.receive: Callable[[bytes], list[Event]] = self._receiver.receive
        """What some bytes of the peer mean. Frames may be cut anywhere between calls.

        Every DataReceived has to be acknowledged once, whatever became of its stream, and so has whatever is joined.
        """
        self.peer = state.peer
        """What the peer said that it takes."""
        self.streams = state.streams
        """Streams that are not closed."""
        self.sender = state.sender
        self._out = state.sender.out

    # What is known.

    @property
    def terminated(self) -> bool:
        """Whether the connection is over by a rule of the protocol."""
        return self._state.terminated

    @property
    def settled(self) -> bool:
        """Whether the peer's first frame, SETTINGS, was there."""
        return self._receiver.settled

    @property
    def incomplete(self) -> bool:
        """Whether a frame, a header block or the preface has begun and is not whole: a peer may not stay there long."""
        return self._receiver.incomplete

    @property
    def rounds(self) -> int:
        """Changes whenever a read ends a frame or a header block: while it stands, what is incomplete grows old."""
        return self._receiver.rounds

    @property
    def highest_remote(self) -> int:
        """The highest stream that the peer opened."""
        return self._state.highest_remote

    @property
    def can_open(self) -> bool:
        """Whether the peer takes one more stream now."""
        return not self.exhausted and len(self.streams) < self.peer.max_concurrent_streams

    @property
    def exhausted(self) -> bool:
        """Whether no stream can be opened any more: the peer goes away, or the numbers are used up."""
        state = self._state
        return state.terminated or state.peer_gone_at != frames.MAX_STREAM_ID or state.next_id > frames.MAX_STREAM_ID

    def waiting_bytes(self, stream_id: int) -> int:
        """Bytes of a stream that wait for the peer's window."""
        stream = self.streams.get(stream_id)
        return stream.waiting.size if stream is not None and stream.waiting is not None else 0

    # The connection.

    def start(self) -> None:
        """Write the preface and our settings; call it first."""
        limits = self.limits
        told = {
            frames.MAX_CONCURRENT_STREAMS: limits.max_concurrent_streams,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            frames.MAX_FRAME_SIZE: limits.max_frame_bytes,
            frames.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
        }
        if self.client:
            del told[frames.MAX_CONCURRENT_STREAMS]
            told[frames.ENABLE_PUSH] = 0
            self._out.append(frames.PREFACE)
        self._out.append(frames.settings(told))
        extra = limits.connection_window_bytes - frames.DEFAULT_WINDOW
        if extra > 0:
            self._out.append(frames.window_update(0, extra))

    def take(self) -> bytes:
        """What is to be sent now; it is handed over once."""
        return b"".join(self.take_pieces())

    def take_pieces(self, most: int | None = None) -> list[Buffer]:
        """The same in pieces, for who can write them without putting them together: worth it where they are large. With
        `most`, whole pieces up to about so many bytes.
        """
        out = self._out
        if most is not None and sum(map(len, out)) > most:
            size = 0
            for count, piece in enumerate(out, start=1):
                size += len(piece)
                if size >= most:
                    pieces = out[:count]
                    del out[:count]
                    self._state.budget.earned += count
                    return pieces
        self.sender.out = self._out = []
        self._state.budget.earned += len(out)
        return out

    def ping(self, payload: bytes) -> None:
        """Ask the peer for a sign of life; PingAnswered brings the eight bytes back."""
        if not self.terminated:
            self._state.pings_out += 1
            self._out.append(frames.ping(payload, ack=False))

    def go_away(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """Take no more streams of the peer, and ignore those that come all the same; those that are open go on."""
        if not self.terminated:
            self._state.go_away(code, text)

    def warn_away(self) -> None:
        """Announce that GOAWAY follows: streams that are on their way are still taken (6.8)."""
        if self._state.gone_at == frames.MAX_STREAM_ID and not self.terminated:
            self._out.append(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR))

    def acknowledge(self, stream_id: int, count: int) -> None:
        """Say that `count` bytes of a stream were consumed, so that the peer may send more."""
        self._state.acknowledge(count)
        stream = self.streams.get(stream_id)
        if stream is not None and stream.receiving != ENDED:
            self._state.acknowledge_stream(stream, count)

    def hold(self) -> None:
        """Count a call as open although its stream is gone: what it set in motion still runs (CVE-2025-8671)."""
        self._state.held += 1

    def release(self) -> None:
        """Take back one `hold`."""
        self._state.held -= 1

    # Streams. The common case is written out: a frame that fits, and nothing that waits.

    def open_stream(self) -> int:
        """A new stream of ours; ask `can_open` first. Heads have to be sent in the order of the streams."""
        return self._state.open_local().stream_id

    def send_head(self, stream_id: int, block: bytes, *, end: bool = False) -> None:
        """A header block that opens our half, or (with `end`) opens and closes it.

        Raises:
            RuntimeError: The stream's head was sent before.
        """
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if stream.sending != HEAD:
            raise RuntimeError(f"the head of stream {stream_id} was sent before")
        stream.sending = BODY
        self.sender.block(stream, block, end=end)
        if end:
            self._sent_end(stream)

    def send_data(self, stream_id: int, data: Buffer, *, end: bool = False) -> bool:
        """Bytes, now or as the peer's windows allow; they must not change until they were taken.

        Returns:
            Whether there still is a stream to send them on.

        Raises:
            RuntimeError: The stream's head was not sent.
        """
        stream = self.streams.get(stream_id)
        if stream is None or stream.sending == ENDED:
            return False
        if stream.sending == HEAD:
            raise RuntimeError(f"the head of stream {stream_id} was not sent")
        size = len(data)
        sender = self.sender
        if (
            stream.waiting is not None
            or size > sender.window
            or size > stream.send_window
            or size > self.peer.max_frame
            or size > sender.room
        ):
            if not self._may_wait(stream, size):
                return False
            sender.data(stream, data, end=end)
        elif size:
            sender.window -= size
            sender.room -= size
            stream.send_window -= size
            self._out.append(frames.head(size, frames.DATA, frames.END_STREAM if end else 0, stream_id))
            self._out.append(data)
        elif end:
            self._out.append(frames.head(0, frames.DATA, frames.END_STREAM, stream_id))
        if end:
            self._sent_end(stream)
        return True

    def send_request(self, block: bytes, message: bytes) -> int:
        """A new stream of ours and all that is to be said on it: `open_stream`, `send_head` and `send_data` in one."""
        stream = self._state.open_local()
        stream_id = stream.stream_id
        size = len(message)
        sender = self.sender
        longest = self.peer.max_frame
        if (
            0 < size <= longest
            and len(block) <= longest
            and size <= sender.window
            and size <= stream.send_window
            and not sender.first_block
        ):
            sender.window -= size
            sender.room -= size
            stream.send_window -= size
            stream.sending = ENDED
            start = frames.START.pack
            self._out += (
                start(len(block) << 8 | frames.HEADERS, frames.END_HEADERS, stream_id) + block,
                start(size << 8 | frames.DATA, frames.END_STREAM, stream_id),
                message,
            )
        else:
            self.send_head(stream_id, block)
            self.send_data(stream_id, message, end=True)
        return stream_id

    def send_trailers(self, stream_id: int, block: bytes) -> None:
        """A header block that closes our half, after whatever still waits."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.sending == ENDED:
            return
        self.sender.trailers(stream, block)
        self._sent_end(stream)

    def send_answer(self, stream_id: int, form: frames.AnswerForm, message: bytes) -> bool:
        """A whole answer to a request that is whole, where nothing waits and all of it fits: the common case.

        Returns:
            Whether it was sent; if not, nothing was, and it has to be sent piece by piece.
        """
        stream = self.streams.get(stream_id)
        sender = self.sender
        size = len(message) + frames.PREFIX_SIZE
        longest = self.peer.max_frame
        if (
            stream is None
            or stream.sending != HEAD
            or stream.receiving != ENDED
            or sender.first_block
            or size > sender.window
            or size > stream.send_window
            or size > sender.room
            or size > longest
            or form.longest > longest
        ):
            return False
        sender.window -= size
        sender.room -= size
        self._out.extend(form.pieces(stream_id, message))
        self._state.budget.earned += PIECES_OF_AN_ANSWER
        self._state.close(stream_id)
        return True

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream at once. What the peer still sends on it is ignored."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        self._state.drop(stream_id)
        if stream.sending == HEAD and self.client:
            return  # the peer has never heard of it
        self._out.append(frames.rst_stream(stream_id, code))
        self._state.remember_reset(stream_id)

    def _sent_end(self, stream: Stream) -> None:
        stream.sending = ENDED
        if stream.receiving == ENDED and stream.waiting is None:
            self._state.close(stream.stream_id)

    def _may_wait(self, stream: Stream, size: int) -> bool:
        """Whether we hold this much for a peer that does not take it."""
        if size <= self.sender.room or self.sender.idle:
            return True
        text = "too much waits for the peer"
        self.reset(stream.stream_id, ErrorCode.ENHANCE_YOUR_CALM)
        self._state.events.append(StreamReset(stream.stream_id, ErrorCode.ENHANCE_YOUR_CALM, remote=False, text=text))
        return False
