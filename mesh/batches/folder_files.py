"""Which files an input is made of, and what format they have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mesh.errors import SetupError

__all__ = ["FORMATS", "SUFFIXES", "files_below", "format_of"]

SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy"}
"""What a file's name ends in -> its format."""
FORMATS = ("parquet", "csv", "jsonl", "npy", "files")
MAX_FILES = 1_000_000
"""Files of one input: their names are kept in memory."""
MAX_TABLES = 10_000
"""Files of one input that have rows inside: each is opened before anything runs."""


def format_of(path: Path, given: str) -> str:
    """The format of an input: what is given, or what its name says; of a folder, what the names of all in it say.

    Raises:
        SetupError: No such format; nothing there; or a file whose name says nothing.
    """
    if given and given not in FORMATS:
        raise SetupError(f"input format {given!r} is none of {', '.join(FORMATS)}")
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise SetupError(f"input {path}: {error.strerror or error}") from None
    if not is_folder and not is_file:
        raise SetupError(f"input {path}: there is no such file or folder")
    if is_file:
        if given == "files":
            raise SetupError(f"input {path}: the format 'files' takes a folder, whose files are the rows")
        found = given or SUFFIXES.get(path.suffix.lower(), "")
        if not found:
            known = ", ".join(SUFFIXES)
            raise SetupError(f"input {path}: its name ends in none of {known}: say what format it has")
        return found
    if given:
        return given
    told = {SUFFIXES.get(os.path.splitext(name)[1].lower(), "files") for name in _walk(path, MAX_FILES)}
    return told.pop() if len(told) == 1 else "files"


def files_below(path: Path, wanted: str) -> list[str]:
    """The files of an input, by path: itself, or those of its format in a folder and the folders below, by name.

    What begins with a dot or an underscore is left out, as every reader of tables leaves it out. Links to files are
    followed, links to folders are not.

    Raises:
        SetupError: There is none, there are too many, or a folder cannot be read.
    """
    if not path.is_dir():
        return [str(path)]
    most = MAX_FILES if wanted == "files" else MAX_TABLES
    names = (name for name in _walk(path, MAX_FILES) if wanted in ("files", _format(name)))
    found: list[str] = []
    for name in names:
        found.append(name)
        if len(found) > most:
            raise SetupError(f"input {path}: more than {most} files")
    if not found:
        raise SetupError(f"input {path}: there is no {'file' if wanted == 'files' else f'{wanted} file'} in it")
    # By their bytes: the same on every machine, whatever its language.
    return [os.path.join(path, name) for name in sorted(found, key=os.fsencode)]


def _format(name: str) -> str:
    return SUFFIXES.get(os.path.splitext(name)[1].lower(), "")


def _walk(path: Path, most: int) -> Iterator[str]:
    """Names of files, relative to `path`, in no order."""
    root, seen = os.fspath(path), 0

    def unreadable(error: OSError) -> None:
        raise SetupError(f"input {error.filename}: {error.strerror or error}")

    for folder, below, names in os.walk(root, onerror=unreadable):
        below[:] = _seen(below)
        for name in _seen(names):
            full = os.path.join(folder, name)
            if os.path.isfile(full):
                seen += 1
                if seen > most:
                    raise SetupError(f"input {path}: more than {most} files")
                yield os.path.relpath(full, root)


def _seen(names: Sequence[str]) -> list[str]:
    return [name for name in names if not name.startswith((".", "_"))]
