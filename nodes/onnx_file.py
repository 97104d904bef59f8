"""What an ONNX file refers to outside itself, found without loading it.

Large tensors may lie in files beside the model ("external data"), named by a path inside the model. A model that comes
from elsewhere must not be able to name `/etc/passwd` there. So the paths are read from the protobuf's own bytes, before
any runtime opens them: a walk over the few fields that lead to a tensor, which skips everything else by its length.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from mesh import SetupError

__all__ = ["digest_of", "external_files"]

MAX_DEPTH = 64
"""Messages inside messages; ONNX needs 6, and 4 more for each loop or branch inside another."""

# Message -> number of a field that may lead to a tensor -> the message in it. Numbers are those of onnx.proto.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _BadFile(Exception):
    """The bytes are no protobuf."""


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _BadFile


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of every length-delimited field of one message."""
    while at < end:
        tag, at = _varint(data, at, end)
        wire_type = tag & 7
        if wire_type == _BYTES:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise _BadFile
            yield tag >> 3, at, at + length
            at += length
        elif wire_type == _VARINT:
            _, at = _varint(data, at, end)
        elif wire_type in (_FIXED64, _FIXED32):
            at += 8 if wire_type == _FIXED64 else 4
        else:
            raise _BadFile
    if at != end:
        raise _BadFile


def _entry(data: mmap.mmap, at: int, end: int) -> tuple[bytes, bytes]:
    parts = {number: data[start:stop] for number, start, stop in _fields(data, at, end)}
    return parts.get(1, b""), parts.get(2, b"")


def _locations(data: mmap.mmap) -> Iterator[str]:
    """Every external location that a tensor of the model names."""
    if data.find(b"location") < 0:  # the key of such an entry: most models have none, however large they are
        return
    waiting = [("Model", 0, len(data), 0)]
    while waiting:
        message, at, end, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _BadFile
        for number, start, stop in _fields(data, at, end):
            inside = _FIELDS[message].get(number)
            if inside == "Entry":
                key, value = _entry(data, start, stop)
                if key == b"location":
                    yield value.decode("utf-8", "replace")
            elif inside is not None:
                waiting.append((inside, start, stop, depth + 1))


def _confined(model: Path, location: str) -> Path:
    outside = SetupError(f"{model}: its external data {location!r} lies outside the model's own folder")
    if "\0" in location or PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor:
        raise outside
    folder = model.parent.resolve()
    found = (folder / location).resolve()
    if not found.is_relative_to(folder):
        raise outside
    if not found.is_file():
        raise SetupError(f"{model}: its external data {location!r} is missing")
    return found


def external_files(model: Path) -> Mapping[str, Path]:
    """The external data files of a model, by the location that the model names, sorted.

    Raises:
        SetupError: The model is missing or no protobuf, or names a file that is missing or outside its own folder.
    """
    if not model.is_file():
        raise SetupError(f"{model}: there is no such model file")
    if model.stat().st_size == 0:
        raise SetupError(f"{model}: the model file is empty")
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            locations = sorted(set(_locations(data)))
        except _BadFile:
            raise SetupError(f"{model}: not an ONNX model: its bytes cannot be read as protobuf") from None
    return {location: _confined(model, location) for location in locations}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(model: Path) -> str:
    """SHA-256 of the model file; where it has external data, of that file's digest and each one's, in hexadecimal.

    Raises:
        SetupError: As `external_files`.
    """
    files = external_files(model)
    own = _sha256(model)
    if not files:
        return own
    parts = [own, *(f"{location}\0{_sha256(path)}" for location, path in files.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
