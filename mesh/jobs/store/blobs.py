"""Payloads that are too large for a stream: files under the data folder, or objects of a bucket.

Each carries its job's id, so that it goes when its job does, and whether it is needed is told by whether its job is
there. A file is written under another name, synced, renamed, and its folder synced, before anything refers to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from mesh.errors import NotFound, Overloaded, SetupError, Unavailable
from mesh.jobs.store.ids import ID_CHARACTERS

__all__ = ["BlobFolder", "BlobStore", "BucketBlobs", "Found", "id_of", "open_blobs"]

_NAME = re.compile(rf"(?:inputs|outputs)/([0-9a-v]{{{ID_CHARACTERS}}})(?:\.[0-9a-f]{{1,64}})?(?:~[0-9-]{{1,64}})?")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RETRY_AFTER_S = 10.0
_SHARD_CHARACTERS = 2
"""Of an id's end, which is as good as random: files of one folder are a 1,024th of all."""

Found = tuple[str, int, float]
"""A payload's name, its bytes, and the time of day at which it was written."""


class BlobStore(Protocol):
    """Where payloads are kept, by names such as `inputs/<id>` and `outputs/<id>.<attempt>`."""

    async def put(self, name: str, data: bytes | memoryview) -> None:
        """Keep a payload; it is on disk when this returns.

        Raises:
            Overloaded: There is no room.
            Unavailable: It cannot be kept for another reason.
        """
        ...

    async def get(self, name: str) -> bytes:
        """A payload.

        Raises:
            NotFound: It is not there.
            Unavailable: It cannot be read.
        """
        ...

    async def remove(self, name: str) -> None:
        """Remove a payload, if it is there.

        Raises:
            Unavailable: It cannot be removed.
        """
        ...

    async def scan(self, after: str, most: int) -> Sequence[Found]:
        """Payloads in some order that stays the same: those behind `after`, at most so many.

        Raises:
            Unavailable: They cannot be listed.
        """
        ...

    async def total(self) -> int:
        """Bytes of all inputs.

        Raises:
            Unavailable: They cannot be listed.
        """
        ...


def id_of(name: str) -> str | None:
    """The job of a payload; None for what is none."""
    matched = _NAME.fullmatch(name)
    return None if matched is None else matched[1]


def open_blobs(graph: str, folder: str, address: str) -> BlobStore:
    """Where the settings say.

    Args:
        graph: Whose; two graphs in one place do not see each other's.
        folder: The data folder.
        address: `s3://bucket/prefix`; the data folder where empty.

    Raises:
        SetupError: There is neither, or obstore is not installed, or does not take the address.
    """
    if not address:
        if not folder:
            raise SetupError("a store of jobs needs a data folder, or a bucket for payloads")
        return BlobFolder(Path(folder) / "payloads" / graph)
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "obstore":
            raise
        raise SetupError("payloads in a bucket need obstore: pip install 'inference-mesh[s3]'") from error
    try:
        return BucketBlobs(from_url(f"{address.rstrip('/')}/{graph}"))
    except (BaseError, ValueError) as error:
        raise SetupError(f"payloads at {address.partition('?')[0]}: {type(error).__name__}") from None


class BlobFolder:
    """Payloads as files.

    Args:
        folder: Where; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, name: str, data: bytes | memoryview) -> None:
        """See `BlobStore`."""
        await self._done(lambda: _write(self._path(name), self._folder, data), "kept")

    async def get(self, name: str) -> bytes:
        """See `BlobStore`."""
        try:
            return await self._done(self._path(name).read_bytes, "read")
        except FileNotFoundError:
            raise NotFound("the payload is gone") from None

    async def remove(self, name: str) -> None:
        """See `BlobStore`."""
        await self._done(lambda: self._path(name).unlink(missing_ok=True), "removed")

    async def scan(self, after: str, most: int) -> Sequence[Found]:
        """See `BlobStore`."""
        return await self._done(lambda: self._scanned(after, most), "listed")

    async def total(self) -> int:
        """See `BlobStore`."""
        return await self._done(lambda: sum(size for _, size, _ in self._files("", ("inputs",))), "listed")

    def _path(self, name: str) -> Path:
        kind, _, rest = name.partition("/")
        found = id_of(name)
        assert found is not None, name
        return self._folder / kind / found[-_SHARD_CHARACTERS:] / rest

    def _scanned(self, after: str, most: int) -> list[Found]:
        found: list[Found] = []
        for one in self._files(after, ("inputs", "outputs")):
            found.append(one)
            if len(found) == most:
                break
        return found

    def _files(self, after: str, kinds: Sequence[str]) -> Iterator[Found]:
        """In the order of kind, folder and name; those behind `after`."""
        behind = self._path(after).relative_to(self._folder).parts if after else ()
        for kind in kinds:
            for shard in _listed(self._folder / kind):
                if (kind, shard.name) < behind[:2]:
                    continue
                for file in _listed(Path(shard.path)):
                    if (kind, shard.name, file.name) <= behind:
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        status = file.stat()
                        yield f"{kind}/{file.name}", status.st_size, status.st_mtime

    async def _done(self, work: Any, verb: str) -> Any:
        try:
            return await asyncio.to_thread(work)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _FULL:
                raise Overloaded("there is no room for the payload", retry_after_s=_RETRY_AFTER_S) from error
            # The log of whoever asked has the path; a caller is told no path.
            raise Unavailable(f"the payload cannot be {verb}: {error.strerror or type(error).__name__}") from error


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _write(path: Path, root: Path, data: bytes | memoryview) -> None:
    _made(path.parent, root.parent)
    unfinished = path.with_name(f"{path.name}~{os.getpid()}-{time.monotonic_ns()}")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _made(folder: Path, root: Path) -> None:
    """Make a folder, and sync the name of each that is new."""
    if folder.is_dir():
        return
    if folder != root:
        _made(folder.parent, root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class BucketBlobs:
    """Payloads as objects, by obstore (https://github.com/developmentseed/obstore).

    Args:
        bucket: A store of obstore's.
    """

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket

    async def put(self, name: str, data: bytes | memoryview) -> None:
        """See `BlobStore`."""
        import obstore

        await self._done(obstore.put_async(self._bucket, name, bytes(data)), "kept")

    async def get(self, name: str) -> bytes:
        """See `BlobStore`."""
        import obstore

        found = await self._done(obstore.get_async(self._bucket, name), "read")
        return bytes(await self._done(found.bytes_async(), "read"))

    async def remove(self, name: str) -> None:
        """See `BlobStore`."""
        import obstore

        with contextlib.suppress(NotFound):
            await self._done(obstore.delete_async(self._bucket, name), "removed")

    async def scan(self, after: str, most: int) -> Sequence[Found]:
        """See `BlobStore`."""
        return await self._listed("", after, most)

    async def total(self) -> int:
        """See `BlobStore`."""
        total, after = 0, ""
        while found := await self._listed("inputs/", after, 1000):
            total += sum(size for _, size, _ in found)
            after = found[-1][0]
        return total

    async def _listed(self, prefix: str, after: str, most: int) -> list[Found]:
        import obstore

        stream = obstore.list(self._bucket, prefix or None, offset=after or None, chunk_size=most)
        try:
            async for chunk in stream:
                return sorted((one["path"], one["size"], one["last_modified"].timestamp()) for one in chunk)
        except Exception as error:
            raise Unavailable(f"payloads cannot be listed: {type(error).__name__}") from None
        return []

    async def _done(self, work: Any, verb: str) -> Any:
        try:
            return await work
        except FileNotFoundError:
            raise NotFound("the payload is gone") from None
        except Exception as error:
            # Texts of obstore name buckets, addresses and more.
            raise Unavailable(f"the payload cannot be {verb}: {type(error).__name__}") from error
