"""One HTTP/2 stream: its state and its two windows (RFC 9113, 5.1 and 5.2)."""

from __future__ import annotations

from collections import deque

__all__ = ["Stream"]

Buffer = bytes | memoryview


class Stream:
    """A stream that is open, or half closed. What is closed has no object.

        idle => open => half closed (local or remote) => closed

    `received_end` and `sent_end` are the two halves.
    """

    __slots__ = (
        "content_left",
        "got_head",
        "pending",
        "pending_bytes",
        "pending_end",
        "receive_window",
        "received_end",
        "send_window",
        "sent_end",
        "sent_head",
        "stream_id",
        "unacknowledged",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.stream_id = stream_id
        self.send_window = send_window
        """Bytes that the peer still takes; below zero after it made its initial window smaller (6.9.2)."""
        self.receive_window = receive_window
        """Bytes that the peer may still send."""
        self.unacknowledged = 0
        """Bytes consumed here that the peer was not told of yet."""
        self.content_left = -1
        """Bytes that content-length still promises; -1 where there is none."""
        self.got_head = False
        self.received_end = False
        self.sent_head = False
        self.sent_end = False
        self.pending: deque[Buffer] = deque()
        """What waits for the peer's window."""
        self.pending_bytes = 0
        self.pending_end: bytes | None = None
        """What ends our half once `pending` is gone: a block of trailers, or nothing but the end (the empty block)."""
