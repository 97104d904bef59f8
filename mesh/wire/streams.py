"""One HTTP/2 stream: its two halves and its two windows (RFC 9113, 5.1 and 5.2)."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["BODY", "ENDED", "HEAD", "Buffer", "Stream", "Waiting"]

Buffer = bytes | memoryview

HEAD: Final = 0
"""A half whose header list is still to come."""
BODY: Final = 1
"""A half whose header list was there: data may follow."""
ENDED: Final = 2
"""A half that is over."""


class Waiting:
    """What a stream has to send and the peer's windows do not take yet."""

    __slots__ = ("end", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: deque[Buffer] = deque()
        self.size = 0
        self.end: bytes | None = None
        """What ends our half behind the pieces: a block of trailers, or nothing but the end (the empty block)."""


class Stream:
    """A stream that is open or half closed. What is idle or closed has no object.

    Each half goes HEAD => BODY => ENDED. A stream is open while neither has ended, half closed when one has, and closed
    when both have and nothing waits any more.
    """

    __slots__ = (
        "content_left",
        "receive_window",
        "receiving",
        "send_window",
        "sending",
        "stream_id",
        "unacknowledged",
        "waiting",
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
        self.receiving = HEAD
        self.sending = HEAD
        self.waiting: Waiting | None = None
