"""`Sender`: what goes out on one connection, within the peer's windows and frame size."""

from __future__ import annotations

from mesh.wire import frames
from mesh.wire.headers import NO_TABLE
from mesh.wire.peer import PeerSettings
from mesh.wire.streams import Buffer, Stream

__all__ = ["Sender"]


class Sender:
    """Bytes to be written, in order.

    Args:
        peer: What the peer takes.
        streams: The connection's open streams.
        client: Which side we are.
    """

    def __init__(self, peer: PeerSettings, streams: dict[int, Stream], *, client: bool) -> None:
        self._peer = peer
        self._out: list[Buffer] = []
        self._window = frames.DEFAULT_WINDOW
        self._first_block = True
        self.control_backlog = 0
        """Bytes of answers to control frames that were written and not taken yet, or not sent (see `unsent`)."""

    def write(self, data: Buffer) -> None:
        """Put bytes out as they are."""
        self._out.append(data)

    def control(self, data: bytes) -> None:
        """Put an answer to a control frame out, and count it: a peer that does not read may not fill our memory."""
        self._out.append(data)
        self.control_backlog += len(data)

    def take(self) -> bytes:
        """Everything put out since the last time."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return bytes(out[0]) if len(out) == 1 else b"".join(out)

    def drained(self) -> None:
        """Say that all that was taken has reached the operating system."""
        self.control_backlog = 0

    def head(self, stream: Stream, block: bytes, *, end: bool) -> None:
        """A block that opens our half of a stream."""
        if self._first_block:
            block = NO_TABLE + block
            self._first_block = False
        self._out.append(frames.headers(stream.stream_id, block, end_stream=end, max_frame=self._peer.max_frame))

    def data(self, stream: Stream, data: Buffer, *, end: bool) -> None:
        """Data, as far as the windows allow; the rest waits."""
        size = len(data)
        if stream.pending or size > self._window or size > stream.send_window:
            if size:
                stream.pending.append(data)
                stream.pending_bytes += size
            if end:
                stream.pending_end = b""
            self.flush(stream)
            return
        self._window -= size
        stream.send_window -= size
        if size <= self._peer.max_frame:
            flags = frames.END_STREAM if end else 0
            self._out.append(frames.head(size, frames.DATA, flags, stream.stream_id))
            if size:
                self._out.append(data)
        else:
            self._cut(stream, memoryview(data), end=end)

    def trailers(self, stream: Stream, block: bytes) -> None:
        """A block that ends our half, after what waits."""
        if stream.pending:
            stream.pending_end = block
        else:
            self._end(stream, block)

    def flush(self, stream: Stream) -> None:
        """Send what waits on a stream, as far as the windows allow."""
        while stream.pending:
            room = min(self._window, stream.send_window)
            if room <= 0:
                return
            data = stream.pending[0]
            view = memoryview(data)
            if len(view) > room:
                stream.pending[0] = view[room:]
                view = view[:room]
            else:
                stream.pending.popleft()
            self._window -= len(view)
            stream.send_window -= len(view)
            stream.pending_bytes -= len(view)
            last = not stream.pending and stream.pending_end == b""
            self._cut(stream, view, end=last)
            if last:
                stream.pending_end = None
        if stream.pending_end is not None:
            block, stream.pending_end = stream.pending_end, None
            self._end(stream, block)

    def open_connection(self, increment: int) -> bool:
        """Widen the connection's window; False where that is past any window."""
        self._window += increment
        return self._window <= frames.MAX_WINDOW

    def _end(self, stream: Stream, block: bytes) -> None:
        if block:
            self.head(stream, block, end=True)
        else:
            self._out.append(frames.head(0, frames.DATA, frames.END_STREAM, stream.stream_id))

    def _cut(self, stream: Stream, view: memoryview, *, end: bool) -> None:
        longest = self._peer.max_frame
        size = len(view)
        for start in range(0, size, longest):
            piece = view[start : start + longest]
            flags = frames.END_STREAM if end and start + longest >= size else 0
            self._out.append(frames.head(len(piece), frames.DATA, flags, stream.stream_id))
            self._out.append(piece)
