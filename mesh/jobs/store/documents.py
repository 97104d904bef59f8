"""Small documents: kept by key, each write compared with what it replaces."""

from __future__ import annotations

from mesh.errors import InvalidInput
from mesh.jobs.records import Conflict
from mesh.jobs.store.stored import INLINE_BYTES, Records

__all__ = ["Documents"]

_MAX_KEYS = 10_000


class Documents:
    """Those who keep documents.

    Args:
        records: What is shared.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    async def keep(self, key: str, data: bytes, expected: int | None) -> int:
        """See `JobStore.keep`."""
        subjects = self._records.subjects
        if len(data) > INLINE_BYTES:
            raise InvalidInput(f"a document of {len(data)} bytes, where {INLINE_BYTES} are kept")
        return await self._records.jetstream.write(subjects.state, subjects.document_of(key), data, expected=expected)

    async def read(self, key: str) -> tuple[bytes, int] | None:
        """See `JobStore.read`."""
        subjects = self._records.subjects
        stored = await self._records.jetstream.last(subjects.state, subjects.document_of(key))
        return None if stored is None else (stored.data, stored.sequence)

    async def forget(self, key: str, expected: int | None) -> None:
        """See `JobStore.forget`."""
        jetstream, subjects = self._records.jetstream, self._records.subjects
        stored = await jetstream.last(subjects.state, subjects.document_of(key))
        if stored is None:
            return
        if expected is not None and stored.sequence != expected:
            raise Conflict(stored.sequence)
        # By its sequence: one that was kept meanwhile stays.
        await jetstream.remove(subjects.state, stored.sequence)

    async def keys(self, prefix: str) -> list[str]:
        """See `JobStore.keys`."""
        jetstream, subjects = self._records.jetstream, self._records.subjects
        below = subjects.document_of(prefix) if prefix else subjects.documents[:-1]
        body = {"subjects_filter": f"{below}.>"}
        info = await jetstream.ask(f"STREAM.INFO.{subjects.state}", body)
        found = sorted(info["state"].get("subjects") or {})
        return [subject.removeprefix(subjects.documents) for subject in found[:_MAX_KEYS]]
