"""Files that are there as a whole or not at all, also after the power failed.

A file is written under a name of its own, forced to disk, and then given its name: by a link, where only the first may
have it, or by a rename, where the last has it. Then the folder is forced to disk, too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["force", "give_name", "replace_file", "unique", "write_new"]


def unique(name: str) -> str:
    """A name that no other process makes, now or later."""
    return f"{name}.{os.urandom(8).hex()}"


def force(path: Path) -> None:
    """Have a file or a folder on disk. Raises OSError."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def give_name(written: Path, name: Path) -> bool:
    """Make a file that is on disk visible, once: the first to come has the name, and for good.

    Returns:
        Whether this is the one. `written` is gone either way.

    Raises:
        OSError: The system cannot, as where there are no hard links.
    """
    try:
        os.link(written, name)
    except FileExistsError:
        return False
    else:
        force(name.parent)
        return True
    finally:
        with suppress(OSError):
            written.unlink()


def write_new(path: Path, data: bytes) -> bool:
    """A file that whoever comes first writes. Gives whether this is the one. Raises OSError."""
    return give_name(_written(path, data), path)


def replace_file(path: Path, data: bytes) -> None:
    """A file in place of the one there is. Raises OSError."""
    written = _written(path, data)
    written.replace(path)
    force(path.parent)


def _written(path: Path, data: bytes) -> Path:
    made = path.with_name(unique(path.name))
    try:
        with made.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            made.unlink()
        raise
    return made
