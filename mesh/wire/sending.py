"""`Sender`: what goes out on one connection, within the peer's windows and frame size."""

from __future__ import annotations

import mesh.wire.frames as frames
from mesh.wire.headers import NO_TABLE
from mesh.wire.peer import PeerSettings
from mesh.wire.streams import Buffer, Stream, Waiting

__all__ = ["Sender"]


class Sender:
    """Bytes to be written, in order.

    Args:
        peer: What the peer takes.
        most_bytes: How much data may be held for the peer.
    """

    __slots__ = (
        "_most",
        "_peer",
        "_queue",
        "control_backlog",
        "first_block",
        "out",
        "room",
        "waiting_bytes",
        "window",
    )

    def __init__(self, peer: PeerSettings, most_bytes: int) -> None:
        self._peer = peer
        self._most = most_bytes
        self.room = most_bytes
        """Bytes of data that may still be held: less what waits, what was put out, and what was not written yet."""
        self.first_block = True
        """Whether no header block was sent yet: the first says that we use no dynamic table."""
        self._queue: dict[int, Stream] = {}
        """Streams that wait for the connection's window alone, in the order in which they are served."""
        self.out: list[Buffer] = []
        """What was put out since the last time that it was taken."""
        self.window = frames.DEFAULT_WINDOW
        """Bytes of data that the peer takes on all streams together."""
        self.waiting_bytes = 0
        """Bytes that wait for a window, of all streams."""
        self.control_backlog = 0
        """Bytes of answers to control frames that the operating system did not take yet, as far as we were told."""

    def control(self, data: bytes) -> None:
        """Put an answer to a control frame out, and count it: a peer that does not read may not fill our memory."""
        self.out.append(data)
        self.control_backlog += len(data)

    def drained(self, unwritten: int = 0) -> None:
        """Say that all that was taken has reached the operating system, but for some bytes."""
        if not unwritten:
            self.control_backlog = 0
        self.room = self._most - self.waiting_bytes - unwritten

    @property
    def unwritten(self) -> int:
        """Bytes of data that wait for no window: they were put out, or the operating system did not take them yet."""
        return self._most - self.room - self.waiting_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing at all is held for the peer."""
        return self.room == self._most

    def block(self, stream: Stream, block: bytes, *, end: bool) -> None:
        """A header block, in as many frames as it needs."""
        if self.first_block:
            block = NO_TABLE + block
            self.first_block = False
        self.out.append(frames.headers(stream.stream_id, block, end_stream=end, max_frame=self._peer.max_frame))

    def data(self, stream: Stream, data: Buffer, *, end: bool) -> None:
        """Data, as far as the windows allow; the rest waits."""
        self.room -= len(data)
        waiting = stream.waiting
        if waiting is None:
            room = min(self.window, stream.send_window)
            if len(data) <= room or not data:
                self._cut(stream, memoryview(data), end=end)
                return
            waiting = stream.waiting = Waiting()
        if data:
            waiting.pieces.append(data)
            waiting.size += len(data)
            self.waiting_bytes += len(data)
        if end:
            waiting.end = b""
        self.flush(stream)

    def trailers(self, stream: Stream, block: bytes) -> None:
        """A block that ends our half, after what waits."""
        if stream.waiting is None:
            self.block(stream, block, end=True)
        else:
            stream.waiting.end = block

    def flush(self, stream: Stream) -> bool:
        """Send what waits on a stream, as far as the windows allow; says whether nothing waits any more."""
        waiting = stream.waiting
        if waiting is None:
            return True
        pieces = waiting.pieces
        while pieces:
            room = min(self.window, stream.send_window)
            if room <= 0:
                if stream.send_window > 0:
                    self._queue[stream.stream_id] = stream
                return False
            view = memoryview(pieces[0])
            if len(view) > room:
                pieces[0] = view[room:]
                view = view[:room]
            else:
                pieces.popleft()
            waiting.size -= len(view)
            self.waiting_bytes -= len(view)
            self._cut(stream, view, end=not pieces and waiting.end == b"")
        stream.waiting = None
        if waiting.end:
            self.block(stream, waiting.end, end=True)
        return True

    def widen(self, increment: int) -> bool:
        """Widen the connection's window; False where that is past any window. Then ask `next_waiting`."""
        self.window += increment
        return self.window <= frames.MAX_WINDOW

    def next_waiting(self) -> Stream | None:
        """The next stream that the connection's window lets go on; each in its turn. None where there is none."""
        if self.window <= 0 or not self._queue:
            return None
        return self._queue.pop(next(iter(self._queue)))

    def drop(self, stream: Stream) -> None:
        """Forget what waits on a stream."""
        if stream.waiting is not None:
            self.waiting_bytes -= stream.waiting.size
            self.room += stream.waiting.size
            stream.waiting = None
        self._queue.pop(stream.stream_id, None)

    def _cut(self, stream: Stream, view: memoryview, *, end: bool) -> None:
        """Data for which there is room, in frames of the size that the peer takes."""
        longest = self._peer.max_frame
        size = len(view)
        self.window -= size
        stream.send_window -= size
        for start in range(0, size or 1, longest):
            piece = view[start : start + longest]
            flags = frames.END_STREAM if end and start + longest >= size else 0
            self.out.append(frames.head(len(piece), frames.DATA, flags, stream.stream_id))
            self.out.append(piece)
