"""`Connection`: one HTTP/2 connection without I/O. Bytes in; events, and bytes out.

    events = connection.receive(data)
    connection.send_head(...)
    socket.write(connection.take())

It knows HTTP/2 (RFC 9113) and nothing of gRPC, sockets or clocks. Both roles are here: a server's streams are opened by
the peer, a client's by `open_stream`. What the peer does wrong never raises: it becomes an event and the frames that
answer it.
"""

from __future__ import annotations

from collections.abc import Callable

from mesh.wire import frames
from mesh.wire.budget import Budget
from mesh.wire.events import (
    DataReceived,
    Event,
    GoingAway,
    HeadReceived,
    PingAnswered,
    SettingsChanged,
    StreamReset,
    Terminated,
    TrailersReceived,
    WindowOpened,
)
from mesh.wire.faults import ConnectionFault, ErrorCode, StreamFault
from mesh.wire.headers import HeaderReader
from mesh.wire.limits import WireLimits
from mesh.wire.peer import PeerSettings
from mesh.wire.sending import Sender
from mesh.wire.streams import Stream

__all__ = ["Connection"]

REMEMBERED_CLOSED = 256
"""Streams whose way of closing is remembered, to tell a late frame from a wrong one."""


class Connection:
    """One side of a connection.

    Args:
        client: Which side.
        limits: What the peer may ask of us.
    """

    def __init__(self, *, client: bool, limits: WireLimits | None = None) -> None:
        self.client = client
        self.limits = limits or WireLimits()
        self.peer = PeerSettings()
        self.streams: dict[int, Stream] = {}
        """Streams that are not closed."""
        self.terminated = False
        self.highest_remote = 0
        """The highest stream that the peer opened."""
        self.sender = Sender(self.peer, self.streams, client=client)
        self._budget = Budget(self.limits.max_glitches)
        self._reader = HeaderReader(self.limits, requests=not client)
        self._next_id = 1 if client else 2
        self._remote_open = 0
        self._closed: dict[int, bool] = {}
        """Lately closed streams: whether we reset them, so that what is still on its way is ignored."""
        self._tail = b""
        self._preface = b"" if client else frames.PREFACE
        self.settled = False
        """Whether the peer's first frame, SETTINGS, was there."""
        self._assembling: tuple[int, int, list[bytes], int] | None = None
        """A header block under way: stream, flags, pieces, bytes so far."""
        self._receive_window = self.limits.connection_window_bytes
        self._unacknowledged = 0
        self._settings_unanswered = 1
        self._going_away = frames.MAX_STREAM_ID
        self._events: list[Event] = []
        self._readers: dict[int, Callable[[int, int, bytes, int, int], None]] = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_rst_stream,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_continuation,
        }

    # Out.

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
            self.sender.write(frames.PREFACE)
        self.sender.write(frames.settings(told))
        extra = limits.connection_window_bytes - frames.DEFAULT_WINDOW
        if extra > 0:
            self.sender.write(frames.window_update(0, extra))

    def take(self) -> bytes:
        """What is to be sent now; it is handed over once."""
        return self.sender.take()

    @property
    def can_open(self) -> bool:
        """Whether the peer takes one more stream now."""
        return (
            not self.terminated
            and self._going_away == frames.MAX_STREAM_ID
            and len(self.streams) < self.peer.max_concurrent_streams
            and self._next_id <= frames.MAX_STREAM_ID
        )

    @property
    def exhausted(self) -> bool:
        """Whether no stream can be opened any more: the peer goes away, or the numbers are used up."""
        return self.terminated or self._going_away != frames.MAX_STREAM_ID or self._next_id > frames.MAX_STREAM_ID

    def open_stream(self) -> int:
        """A new stream of ours; `send_head` has to follow, in the order in which streams were opened."""
        stream_id = self._next_id
        self._next_id += 2
        self.streams[stream_id] = Stream(stream_id, self.peer.initial_window, self.limits.stream_window_bytes)
        return stream_id

    def send_head(self, stream_id: int, block: bytes, *, end: bool = False) -> None:
        """A header block that opens our half, or (with `end`) opens and closes it."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.sent_end:
            return
        stream.sent_head = True
        self.sender.head(stream, block, end=end)
        if end:
            self._half_closed(stream)

    def send_data(self, stream_id: int, data: bytes | memoryview, *, end: bool = False) -> None:
        """Bytes, now or as the peer's windows allow. Nothing happens on a stream that is closed."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.sent_end:
            return
        self.sender.data(stream, data, end=end)
        if end:
            self._half_closed(stream)

    def send_trailers(self, stream_id: int, block: bytes) -> None:
        """A header block that closes our half, after whatever still waits."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.sent_end:
            return
        self.sender.trailers(stream, block)
        self._half_closed(stream)

    def waiting_bytes(self, stream_id: int) -> int:
        """Bytes of a stream that wait for the peer's window."""
        stream = self.streams.get(stream_id)
        return stream.pending_bytes if stream else 0

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream at once."""
        if stream_id in self.streams:
            self.sender.write(frames.rst_stream(stream_id, code))
            self._forget(stream_id, reset_here=True)

    def ping(self, payload: bytes) -> None:
        """Ask the peer for a sign of life; PingAnswered brings the eight bytes back."""
        self.sender.write(frames.ping(payload, ack=False))

    def go_away(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """Take no more streams of the peer; those that are open go on."""
        self.sender.write(frames.goaway(self.highest_remote, code, text.encode()[:128]))

    def warn_away(self) -> None:
        """Announce that GOAWAY follows: streams that are on their way are still taken (6.8)."""
        self.sender.write(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR))

    def acknowledge(self, stream_id: int, count: int) -> None:
        """Say that `count` bytes of a stream were consumed, so that the peer may send more."""
        self._unacknowledged += count
        if self._unacknowledged * 2 >= self.limits.connection_window_bytes:
            self.sender.write(frames.window_update(0, self._unacknowledged))
            self._receive_window += self._unacknowledged
            self._unacknowledged = 0
        stream = self.streams.get(stream_id)
        if stream is None or stream.received_end:
            return
        stream.unacknowledged += count
        if stream.unacknowledged * 2 >= self.limits.stream_window_bytes:
            self.sender.write(frames.window_update(stream_id, stream.unacknowledged))
            stream.receive_window += stream.unacknowledged
            stream.unacknowledged = 0

    # In.

    def receive(self, data: bytes) -> list[Event]:
        """What some bytes of the peer mean. Frames may be cut anywhere between calls."""
        if self.terminated:
            return []
        if self._tail:
            data = self._tail + data
        self._events = events = []
        try:
            position = self._take_preface(data) if self._preface else 0
            self._tail = self._frames(data, position)
        except ConnectionFault as fault:
            self._terminate(fault.code, fault.text)
        if not self.terminated and self.sender.control_backlog > self.limits.max_control_backlog_bytes:
            self._terminate(ErrorCode.ENHANCE_YOUR_CALM, "answers to control frames are not read")
        return events

    def _take_preface(self, data: bytes) -> int:
        wanted = self._preface
        given = data[: len(wanted)]
        if not wanted.startswith(given):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "3.4: not the preface of HTTP/2")
        self._preface = wanted[len(given) :]
        return len(given)

    def _frames(self, data: bytes, position: int) -> bytes:
        """Read whole frames; returns what is left of the last one."""
        size = len(data)
        unpack = frames.HEAD.unpack_from
        longest = self.limits.max_frame_bytes
        readers = self._readers
        while size - position >= frames.HEAD_SIZE:
            upper, lower, kind, flags, stream_id = unpack(data, position)
            length = upper << 8 | lower
            if length > longest:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "4.2: a frame longer than we take")
            begin = position + frames.HEAD_SIZE
            position = begin + length
            if position > size:
                position = begin - frames.HEAD_SIZE
                break
            stream_id &= frames.MAX_STREAM_ID
            if self._assembling is not None and (kind != frames.CONTINUATION or stream_id != self._assembling[0]):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.10: a frame within a header block")
            if not self.settled:
                if kind != frames.SETTINGS or flags & frames.ACK:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "3.4: the first frame is not SETTINGS")
                self.settled = True
            reader = readers.get(kind)
            if reader is None:
                self._budget.glitch()  # 5.5: frames of unknown kinds are ignored
                continue
            try:
                reader(flags, stream_id, data, begin, position)
            except StreamFault as fault:
                self._end_stream(fault)
        return data[position:]

    def _end_stream(self, fault: StreamFault) -> None:
        self._budget.glitch()
        self.sender.write(frames.rst_stream(fault.stream_id, fault.code))
        if fault.stream_id in self.streams:
            self._forget(fault.stream_id, reset_here=True)
            self._events.append(StreamReset(fault.stream_id, fault.code, remote=False, text=fault.text))
        else:
            self._remember_closed(fault.stream_id, reset_here=True)

    def _terminate(self, code: ErrorCode, text: str) -> None:
        self.go_away(code, text)
        self.terminated = True
        self._tail = b""
        self.streams.clear()
        self._events.append(Terminated(code, text))

    # Streams: open => half closed => closed.

    def _half_closed(self, stream: Stream) -> None:
        """Our half was ended (perhaps some of it still waits for the peer's window)."""
        stream.sent_end = True
        if stream.received_end and not stream.pending and stream.pending_end is None:
            self._forget(stream.stream_id, reset_here=False)

    def _received_end(self, stream: Stream) -> None:
        if stream.content_left > 0:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, "8.1.1: less data than content-length says")
        stream.received_end = True
        if stream.sent_end and not stream.pending and stream.pending_end is None:
            self._forget(stream.stream_id, reset_here=False)

    def _forget(self, stream_id: int, *, reset_here: bool) -> None:
        stream = self.streams.pop(stream_id)
        stream.pending.clear()
        if self.client == bool(stream_id % 2):
            pass
        else:
            self._remote_open -= 1
        if not reset_here:
            self._budget.progress()
        self._remember_closed(stream_id, reset_here=reset_here)

    def _remember_closed(self, stream_id: int, *, reset_here: bool) -> None:
        if len(self._closed) >= REMEMBERED_CLOSED:
            del self._closed[next(iter(self._closed))]
        self._closed[stream_id] = reset_here

    def _is_idle(self, stream_id: int) -> bool:
        ours = bool(stream_id % 2) == self.client
        return stream_id >= self._next_id if ours else stream_id > self.highest_remote

    # Frames, by kind. Section numbers are those of RFC 9113.

    def _unpadded(self, flags: int, data: bytes, begin: int, end: int) -> tuple[int, int]:
        if not flags & frames.PADDED:
            return begin, end
        if begin == end or data[begin] >= end - begin:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.1: padding as long as the frame")
        return begin + 1, end - data[begin]

    def _on_data(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.1: DATA on stream 0")
        length = end - begin
        self._receive_window -= length
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "6.9.1: more than the connection's window")
        inside, inside_end = self._unpadded(flags, data, begin, end)
        stream = self.streams.get(stream_id)
        if stream is None or stream.received_end:
            self.acknowledge(0, length)  # it counted against the connection, and nobody will consume it
            self._data_on_closed(stream_id, known=stream is not None)
            return
        if not stream.got_head:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1: data before the head")
        stream.receive_window -= length
        if stream.receive_window < 0:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "6.9.1: more than the stream's window")
        size = inside_end - inside
        finished = bool(flags & frames.END_STREAM)
        if size == 0 and not finished:
            self._budget.glitch()  # CVE-2019-9518
        if stream.content_left >= 0:
            stream.content_left -= size
            if stream.content_left < 0:
                self.acknowledge(0, length)
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1.1: more data than content-length says")
        self._events.append(DataReceived(stream_id, memoryview(data)[inside:inside_end], length, finished))
        if finished:
            self._received_end(stream)

    def _data_on_closed(self, stream_id: int, *, known: bool) -> None:
        if not known and self._is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "5.1: DATA on an idle stream")
        if not known and self._closed.get(stream_id, False):
            self._budget.glitch()  # it was on its way when we reset the stream
            return
        raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "5.1: DATA on a stream that is closed")

    def _on_headers(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.2: HEADERS on stream 0")
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            begin, end = self._unpadded(flags, data, begin, end)
            if flags & frames.HAS_PRIORITY:
                if end - begin < 5:
                    raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.2: too short for its priority")
                depends_on = int.from_bytes(data[begin : begin + 4], "big") & frames.MAX_STREAM_ID
                begin += 5
                if depends_on == stream_id:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "5.3.1 of RFC 7540: depends on itself")
        if not flags & frames.END_HEADERS:
            self._assembling = (stream_id, flags, [data[begin:end]], end - begin)
            return
        self._header_block(flags, stream_id, data[begin:end])

    def _on_continuation(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        if self._assembling is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.10: CONTINUATION without HEADERS")
        first, first_flags, pieces, size = self._assembling
        pieces.append(data[begin:end])
        size += end - begin
        if size > self.limits.max_header_bytes or len(pieces) > self.limits.max_headers_frames:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block past any bound")
        if not flags & frames.END_HEADERS:
            self._assembling = (first, first_flags, pieces, size)
            return
        self._assembling = None
        self._header_block(first_flags, stream_id, b"".join(pieces))

    def _header_block(self, flags: int, stream_id: int, block: bytes) -> None:
        finished = bool(flags & frames.END_STREAM)
        stream = self.streams.get(stream_id)
        trailers = stream is not None and stream.got_head
        # Read in any case: the tables of both sides have to stay alike (4.3).
        headers, timeout = self._reader.read(block, trailers=trailers)
        if stream is None:
            stream = self._open_remote(stream_id)
            if stream is None:
                return
        elif stream.received_end:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "5.1: HEADERS on a half-closed stream")
        if headers.wrong:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, headers.wrong)
        if trailers:
            if not finished:
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1: trailers that end nothing")
            self._events.append(TrailersReceived(stream_id, headers))
            self._received_end(stream)
            return
        if self.client and (headers.get(b":status") or b"")[:1] == b"1":
            if finished:
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "8.1: an interim response that ends")
            self._budget.glitch()
            return
        stream.got_head = True
        length = headers.get(b"content-length")
        if length is not None:
            stream.content_left = int(length)
        self._events.append(HeadReceived(stream_id, headers, timeout, finished))
        if finished:
            self._received_end(stream)

    def _open_remote(self, stream_id: int) -> Stream | None:
        """A stream that the peer opens; None where it is refused or comes too late."""
        if self.client or stream_id % 2 == 0:
            if self.client and not self._is_idle(stream_id):
                if self._closed.get(stream_id, False):
                    return None
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "5.1: HEADERS on a closed stream")
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "5.1.1: a stream of a number that is not the peer's")
        if stream_id <= self.highest_remote:
            if self._closed.get(stream_id, False):
                self._budget.glitch()
                return None
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "5.1.1: a stream that was used before")
        self.highest_remote = stream_id
        if self._remote_open >= self.limits.max_concurrent_streams:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, "5.1.2: too many streams")
        stream = Stream(stream_id, self.peer.initial_window, self.limits.stream_window_bytes)
        self.streams[stream_id] = stream
        self._remote_open += 1
        return stream

    def _on_priority(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        self._budget.glitch()
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.3: PRIORITY on stream 0")
        if end - begin != 5:
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "6.3: PRIORITY is five bytes")
        if int.from_bytes(data[begin : begin + 4], "big") & frames.MAX_STREAM_ID == stream_id:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "5.3.1 of RFC 7540: depends on itself")

    def _on_rst_stream(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        if stream_id == 0 or self._is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.4: RST_STREAM on an idle stream")
        if end - begin != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.4: RST_STREAM is four bytes")
        self._budget.glitch()
        if stream_id in self.streams:
            code = int.from_bytes(data[begin:end], "big")
            self._forget(stream_id, reset_here=True)
            self._events.append(StreamReset(stream_id, code, remote=True))

    def _on_settings(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.5: SETTINGS on a stream")
        self._budget.glitch()
        if flags & frames.ACK:
            if begin != end:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.5: an acknowledgement with settings")
            if self._settings_unanswered == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.5: nothing to acknowledge")
            self._settings_unanswered -= 1
            return
        grown = self.peer.update(data, begin, end, by_server=self.client)
        self.sender.control(frames.SETTINGS_ACK)
        if grown:
            for stream in self.streams.values():
                stream.send_window += grown
                if stream.send_window > frames.MAX_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "6.9.2: a window past 2^31-1")
            self._flush_all()
        self._events.append(SettingsChanged())

    def _on_push_promise(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "8.4: we take no push")

    def _on_ping(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.7: PING on a stream")
        if end - begin != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.7: PING is eight bytes")
        self._budget.glitch()
        if flags & frames.ACK:
            self._events.append(PingAnswered(data[begin:end]))
        else:
            self.sender.control(frames.ping(data[begin:end], ack=True))

    def _on_goaway(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.8: GOAWAY on a stream")
        if end - begin < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.8: GOAWAY is at least eight bytes")
        self._budget.glitch()
        last = int.from_bytes(data[begin : begin + 4], "big") & frames.MAX_STREAM_ID
        code = int.from_bytes(data[begin + 4 : begin + 8], "big")
        self._going_away = min(self._going_away, last)
        self._events.append(GoingAway(last, code, data[begin + 8 : end]))

    def _on_window_update(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        if end - begin != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "6.9: WINDOW_UPDATE is four bytes")
        increment = int.from_bytes(data[begin:end], "big") & frames.MAX_WINDOW
        if stream_id == 0:
            if increment == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "6.9: an increment of zero")
            if not self.sender.open_connection(increment):
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "6.9.1: a window past 2^31-1")
            self._flush_all()
            return
        if self._is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "5.1: WINDOW_UPDATE on an idle stream")
        stream = self.streams.get(stream_id)
        if increment == 0:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "6.9: an increment of zero")
        if stream is None:
            self._budget.glitch()
            return
        stream.send_window += increment
        if stream.send_window > frames.MAX_WINDOW:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "6.9.1: a window past 2^31-1")
        self._flush(stream)

    # What waited for a window.

    def _flush_all(self) -> None:
        for stream in list(self.streams.values()):
            if stream.pending or stream.pending_end is not None:
                self._flush(stream)

    def _flush(self, stream: Stream) -> None:
        waited = bool(stream.pending)
        self.sender.flush(stream)
        if waited and not stream.pending:
            self._events.append(WindowOpened(stream.stream_id))
        if stream.sent_end and stream.received_end and not stream.pending and stream.pending_end is None:
            self._forget(stream.stream_id, reset_here=False)
