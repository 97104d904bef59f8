"""A small disk of its own, for tests of what happens when it is full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["SmallDisk", "small_disk"]

_PIECE = 64 << 10


class SmallDisk:
    """A file system in memory.

    Args:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, left: int) -> None:
        """Take what is free of it, but for so many bytes."""
        told = os.statvfs(self.folder)
        most = told.f_bavail * told.f_frsize - left
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while most > 0:
                    most -= file.write(bytes(min(most, _PIECE)))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                # Others write, too: what they took is gone as well.

    def free(self) -> None:
        """There is room again."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, size: int) -> Generator[SmallDisk]:
    """Make one; the test is skipped where nobody may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("nobody may mount a disk here: only a bound of the store's server is tried")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
