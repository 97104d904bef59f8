"""A server whose disk was full does not write again by itself: it is started again, once there is room.

From the first write on that found no room, nats-server (2.15) refuses every write to that stream until it is started
again, and answers none; what it has can still be read. So it is left alone for as long as the disk is full, and counts
as hung as soon as it is not: what supervises it then ends it and starts it again, with all that it acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["ENOUGH_BYTES", "StoreRoom"]

ENOUGH_BYTES = 64 << 20
"""Free on the disk before it is tried again: far more than it takes to start, so that it is not full at once again."""
_NO_ROOM = ("no space left on device", "disk quota exceeded")
"""As the C library words ENOSPC and EDQUOT, and Go after it."""
_BEGINS = "Starting nats-server"


class StoreRoom:
    """Whether a server is of no use any more though there is room again.

    Args:
        folder: On the disk that it stores on.
        free: Bytes that are free there; as the system says where None.
    """

    def __init__(self, folder: Path, free: Callable[[], int] | None = None) -> None:
        self._folder = folder
        self._free = free or self._told
        self._refuses = False

    def heard(self, line: str) -> None:
        """A line of the server's log."""
        if _BEGINS in line:
            self._refuses = False
        elif any(text in line.lower() for text in _NO_ROOM):
            self._refuses = True

    def to_be_restarted(self) -> bool:
        """Whether it found the disk full, and would find room now."""
        return self._refuses and self._free() >= ENOUGH_BYTES

    def _told(self) -> int:
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize
