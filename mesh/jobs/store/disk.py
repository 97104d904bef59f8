"""Room on the disk of the data folder, looked at before it is gone.

A nats-server that once found its disk full stores nothing more in that stream until it is started again, also when
there is room (seen with 2.15.1). So new jobs are refused while there still is some, and what there is left is for the
jobs that are stored already; workers begin nothing once half of that is gone.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from mesh.errors import Overloaded

__all__ = ["Disk"]

_RESERVE_BYTES = 64 << 20
_RESERVE_SHARE = 20
"""The reserve is at most a twentieth of a disk."""
_LOOK_S = 0.5
_RETRY_AFTER_S = 10.0


class Disk:
    """The disk of a folder.

    Args:
        folder: The folder, which need not be there yet; there is always room where empty.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) if folder else None
        self._until = -1.0
        self._free = self._reserve = 0

    def check(self, size: int) -> None:
        """Look for room for something new, as it was half a second ago.

        Raises:
            Overloaded: There is too little.
        """
        if self._folder is not None:
            self._look(self._folder)
            if self._free - size < self._reserve:
                raise Overloaded("the disk of the store is nearly full", retry_after_s=_RETRY_AFTER_S)
            self._free -= size

    def may_begin(self) -> bool:
        """Whether there is room for what comes of a job that is stored."""
        if self._folder is None:
            return True
        self._look(self._folder)
        return self._free >= self._reserve // 2

    def _look(self, folder: Path) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._until:
            return
        self._until = now + _LOOK_S
        for place in (folder, *folder.parents):
            try:
                found = os.statvfs(place)
            except OSError:
                continue
            self._free = found.f_bavail * found.f_frsize
            self._reserve = min(_RESERVE_BYTES, found.f_blocks * found.f_frsize // _RESERVE_SHARE)
            return
