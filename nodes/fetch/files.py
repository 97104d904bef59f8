"""Files below allowed folders, opened so that no symbolic link leads out, not even one made meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from mesh import InvalidInput, SetupError, Unavailable
from mesh.units import format_size
from nodes.fetch.references import FileReference

__all__ = ["Roots"]

_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})
_LOOK = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting, should a pipe be put where a file was a moment ago.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK = 1 << 20


class Roots:
    """The folders that files are read from. A link inside is followed where it leads to a place inside, of any root.

    Args:
        folders: Absolute, or counted from the working directory.
        max_bytes: The largest file.
    """

    def __init__(self, folders: Sequence[Path], max_bytes: int) -> None:
        self._folders = [os.path.abspath(folder) for folder in folders]
        self._max_bytes = max_bytes

    def check(self) -> None:
        """Look whether they are there.

        Raises:
            SetupError: One is missing or no folder.
        """
        for folder in self._folders:
            if not os.path.isdir(folder):
                raise SetupError(f"roots has {folder}: there is no such folder")

    def read(self, reference: FileReference) -> bytes:
        """The bytes of a regular file. Blocks.

        A path outside is refused alike whether something is there or not.

        Raises:
            InvalidInput: Outside the roots, missing, no regular file, not readable, or too large.
            Unavailable: The machine cannot read now.
        """
        # Looked up every time: a root may be a link that is moved on to the next release.
        roots = {folder: os.path.realpath(folder) for folder in self._folders}
        missing = False
        for path in _paths(reference, roots):
            real = os.path.realpath(path)
            root = next((root for root in roots.values() if _inside(real, root)), None)
            if root is None:
                continue
            try:
                return self._read(root, os.path.relpath(real, root).split(os.sep))
            except (FileNotFoundError, NotADirectoryError):
                missing = True
            except OSError as error:
                raise _told(error) from error
        raise InvalidInput("there is no such file" if missing else "it lies outside the roots")

    def _read(self, root: str, parts: list[str]) -> bytes:
        # Step by step from the root, following nothing: what was resolved above is what is opened.
        folder = os.open(root, _LOOK & ~os.O_NOFOLLOW)
        try:
            for part in parts[:-1]:
                inner = os.open(part, _LOOK, dir_fd=folder)
                os.close(folder)
                folder = inner
            # Before it is opened: to open a device can set something going.
            _check_regular(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False))
            file = os.open(parts[-1], _READ, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            return self._content(file)
        finally:
            os.close(file)

    def _content(self, file: int) -> bytes:
        found = os.fstat(file)
        _check_regular(found)
        if found.st_size > self._max_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        left = self._max_bytes + 1  # a file may grow while it is read, and those of /proc state no size
        while left and (chunk := os.read(file, min(left, _CHUNK))):
            chunks.append(chunk)
            left -= len(chunk)
        if not left:
            raise self._too_large()
        return b"".join(chunks)

    def _too_large(self) -> InvalidInput:
        return InvalidInput(f"more than the {format_size(self._max_bytes)} that are taken")


def _paths(reference: FileReference, roots: dict[str, str]) -> list[str]:
    """Where it may be: an absolute path below a root as it is written or as it is, a relative one below each root."""
    if not reference.absolute:
        return [os.path.join(root, *reference.parts) for root in roots.values()]
    path = os.sep + os.path.join(*reference.parts)
    return [path] if any(_inside(path, root) for pair in roots.items() for root in pair) else []


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInput("it is no regular file")


def _told(error: OSError) -> InvalidInput | Unavailable:
    """In words that name no path: the caller has sent his own, and is not told where it leads."""
    if error.errno in _PASSING:
        return Unavailable("the file cannot be read now")
    if isinstance(error, PermissionError):
        return InvalidInput("it may not be read")
    if error.errno == errno.ELOOP:
        return InvalidInput("it lies behind a link that leads nowhere or has just changed")
    return InvalidInput("it cannot be read")
