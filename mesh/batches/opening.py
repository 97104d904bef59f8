"""An input by its path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mesh.batches.csv_input import CsvInput
from mesh.batches.files_input import FilesInput
from mesh.batches.folder_files import files_below, format_of
from mesh.batches.identity import InputIdentity
from mesh.batches.inputs import Input, Marks
from mesh.batches.jsonl_input import JsonlInput
from mesh.batches.npy_input import NpyInput
from mesh.batches.parquet_input import ParquetInput
from mesh.batches.text_input import TextInput
from mesh.errors import SetupError

__all__ = ["check_within", "open_input", "reopen_input"]

_INPUTS: dict[str, type[ParquetInput | CsvInput | JsonlInput | NpyInput | FilesInput]] = {
    one.format: one for one in (ParquetInput, CsvInput, JsonlInput, NpyInput, FilesInput)
}


def open_input(
    path: Path, input_format: str = "", *, within: Sequence[Path] | None = None, glance: bool = False
) -> Input:
    """Find an input's files, and look at each.

    Args:
        path: A file or a folder.
        input_format: `parquet`, `csv`, `jsonl`, `npy` or `files`; told by names where empty.
        within: Folders that every file has to lie in, links followed; anywhere where None.
        glance: Look at no more than the beginning of a text file: its columns are found then, but not all of its rows.

    Raises:
        SetupError: What is wrong with it, by name.
    """
    if within is not None:
        # Before anything is said of what is there.
        check_within([str(path)], within, "input", "read")
    found = format_of(path, input_format)
    paths = files_below(path, found)
    if within is not None:
        check_within(paths, within, "input", "read")
    kind = _INPUTS[found]
    return kind.open(path, paths, glance=glance) if issubclass(kind, TextInput) else kind.open(path, paths)


def reopen_input(path: Path, identity: InputIdentity, marks: Marks | None) -> Input:
    """Open an input that was looked at, without looking at all of it again: each file is checked when it is read.

    Args:
        path: Where it is.
        identity: What it was.
        marks: What reading goes by, where it was kept.

    Raises:
        SetupError: It is not what it was.
    """
    if identity.format in (CsvInput.format, JsonlInput.format) and marks is not None:
        kind = CsvInput if identity.format == CsvInput.format else JsonlInput
        paths = [str(path / file.name if path.is_dir() else path) for file in identity.files]
        try:
            return kind(paths, identity.files, kind.look(paths, marks), marks)
        except OSError as error:
            raise SetupError(f"input {path}: {error.strerror or error}") from None
    source = open_input(path, identity.format)
    if found := identity.differences(source.identity):
        source.close()
        raise SetupError(f"the input is not what it was when the batch began: {'; '.join(found)}")
    return source


def check_within(paths: Sequence[str], within: Sequence[Path], what: str, verb: str) -> None:
    """See that paths lie in folders, links followed.

    Raises:
        SetupError: One does not.
    """
    allowed = [folder.resolve() for folder in within]
    for path in paths:
        real = Path(os.path.realpath(path))
        if not any(real == folder or folder in real.parents for folder in allowed):
            raise SetupError(f"{what} {path}: it does not lie in a folder that batches may {verb}")
