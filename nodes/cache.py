"""`MemoryCache`: a cache node, for what several workers are to share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from mesh import Cache, CacheEntry, CacheUse, Size
from mesh.caches import BackendSettings, Entry, open_backend
from mesh.context import SYSTEM_CLOCK, Clock

__all__ = ["MemoryCache"]


class MemoryCache(Cache):
    """Values in the memory of its worker, the least recently used dropped first. What it holds is gone with the worker.

    Args:
        max_bytes: The most bytes that keys, values and what holds them may take: 256 MiB unless said otherwise.
        max_value: The largest value that is kept, in bytes: 16 MiB unless said otherwise.
        clock: What times to live are measured by.

    Raises:
        SetupError: The bounds are none.
    """

    def __init__(
        self,
        *,
        max_bytes: Annotated[Size, Field(ge=4096, le=1 << 44)] = 256 << 20,
        max_value: Annotated[Size, Field(gt=0, le=1 << 30)] = 16 << 20,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        settings = BackendSettings(max_bytes=max_bytes, max_value_bytes=max_value)
        self._backend = open_backend("memory://", settings, clock=clock)

    async def __aexit__(self, *exc_info: object) -> None:
        await self._backend.close()

    async def get(self, namespace: str, keys: Sequence[bytes]) -> Sequence[CacheEntry | None]:
        found = await self._backend.get_many(namespace, keys, with_ttl=True)
        return [
            None if value is None else CacheEntry(key, value, ttl_s)
            for key, value, ttl_s in zip(keys, found.values, found.ttls_s, strict=True)
        ]

    async def put(self, namespace: str, entries: Sequence[CacheEntry]) -> int:
        return await self._backend.put_many(namespace, [Entry(*entry) for entry in entries])

    async def delete(self, namespace: str, keys: Sequence[bytes]) -> int:
        return await self._backend.delete_many(namespace, keys)

    async def clear(self, namespace: str | None = None) -> int:
        return await self._backend.forget(namespace)

    async def stats(self, namespace: str | None = None) -> CacheUse:
        told = await self._backend.read_stats(namespace)
        return CacheUse(
            backend=told.backend,
            hits=told.hits,
            misses=told.misses,
            kept=told.kept,
            evictions=told.evictions,
            expirations=told.expirations,
            failures=told.failures + told.skipped,
            entries=told.entries,
            nbytes=told.nbytes,
            max_bytes=told.max_bytes,
        )
