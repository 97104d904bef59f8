"""What an input was when its batch was planned, so that nobody goes on with another.

| format | digest of a file |
|---|---|
| csv, jsonl | BLAKE3 of all of it: it is read once anyway, to find where its records begin |
| parquet | BLAKE3 of its footer and its modification time: a value may change and leave the footer as it was |
| npy | BLAKE3 of its header and its modification time |
| files | BLAKE3 of each file's path, size and modification time, all of them together |

Sizes are compared as well. A file whose size and modification time are what they were is taken to be what it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from blake3 import blake3

__all__ = ["FileIdentity", "InputIdentity", "hashed", "stat_of"]

_MOST_TOLD = 5
"""Files that a difference names."""


def hashed(*parts: bytes) -> str:
    """Hex BLAKE3, 32 characters, of parts one after another, their lengths with them."""
    hashing = blake3()
    for part in parts:
        hashing.update(len(part).to_bytes(8, "little"))
        hashing.update(part)
    return hashing.hexdigest(length=16)


def stat_of(path: str) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds. Raises OSError."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIdentity:
    """One file."""

    name: str
    """Below the input, where that is a folder; else its last part."""
    size: int
    mtime_ns: int
    rows: int
    digest: str

    def differs(self, now: FileIdentity) -> str:
        """What is not as it was; empty where nothing is."""
        if now.rows != self.rows:
            return f"{self.name} had {self.rows} rows and has {now.rows}"
        if (now.size, now.digest) != (self.size, self.digest):
            sizes = f" ({self.size} bytes, now {now.size})" if now.size != self.size else ""
            return f"{self.name} was changed, or written again{sizes}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputIdentity:
    """A whole input."""

    format: str
    files: tuple[FileIdentity, ...]

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(file.rows for file in self.files)

    def differences(self, now: InputIdentity) -> list[str]:
        """What is not as it was, for people."""
        if now.format != self.format:
            return [f"the input was {self.format} and is {now.format}"]
        before, after = _named(self.files), _named(now.files)
        found = [f"the input lacks {name}, which was there" for name in before if name not in after]
        found += [f"the input has {name}, which was not there" for name in after if name not in before]
        for name, file in before.items():
            if name in after and (wrong := file.differs(after[name])):
                found.append(f"the input's {wrong}")
        if not found and list(before) != list(after):
            found.append("the input's files come in another order")
        if len(found) > _MOST_TOLD:
            found[_MOST_TOLD:] = [f"and {len(found) - _MOST_TOLD} more differences in the input's files"]
        return found

    def looks_like(self, now: InputIdentity) -> bool:
        """Whether every file has the name, the size and the time that it had."""
        return [(file.name, file.size, file.mtime_ns) for file in self.files] == [
            (file.name, file.size, file.mtime_ns) for file in now.files
        ]

    def to_json(self) -> dict[str, Any]:
        """For the plan and the manifest."""
        return {"format": self.format, "rows": self.rows, "files": [asdict(file) for file in self.files]}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        """What `to_json` gave. Raises KeyError or TypeError where it is something else."""
        return cls(format=told["format"], files=tuple(FileIdentity(**file) for file in told["files"]))


def _named(files: Sequence[FileIdentity]) -> dict[str, FileIdentity]:
    return {file.name: file for file in files}
