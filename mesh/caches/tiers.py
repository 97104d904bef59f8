"""`tiers: [memory://, redis://…]`: a fast small backend in front of a large shared one.

A key is looked for from the top down; what a lower tier has is put into those above it, for the time that it has left.
Puts go to all tiers. A tier that fails is a tier that missed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Unpack

from mesh.caches.aiocache_face import AiocacheFace, AiocacheOptions
from mesh.caches.backend import CacheBackend, CacheStats, Entry, Found
from mesh.errors import SetupError, Unavailable

__all__ = ["TieredBackend"]

log = logging.getLogger("mesh.cache")


class TieredBackend(AiocacheFace):
    """Backends one above another.

    Args:
        tiers: The uppermost first. They are closed with it.
        options: What aiocache's backends take.

    Raises:
        SetupError: There are not at least two, or one stands in it twice.
    """

    NAME = "mesh-tiers"

    def __init__(self, tiers: Sequence[CacheBackend], **options: Unpack[AiocacheOptions]) -> None:
        super().__init__(**options)
        if len(tiers) < 2 or len(set(map(id, tiers))) < len(tiers):
            raise SetupError(f"tiers of a cache have to be two or more, each once, and not {len(tiers)}")
        self._tiers = tuple(tiers)
        self._forgotten = 0
        """Times that something was deleted: what was looked up before is not put higher after."""
        self._hits = self._misses = self._kept = self._failures = 0

    @property
    def url(self) -> str:
        """The addresses of its tiers."""
        return f"[{', '.join(tier.url for tier in self._tiers)}]"

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        """See `CacheBackend`."""
        found = await self._look(self._tiers[0], namespace, keys, with_ttl)
        missing = [place for place, value in enumerate(found.values) if value is None]
        if missing:
            # A copy, because what lower tiers find is written into it.
            found = Found([*found.values], [*found.ttls_s])
        for number, tier in enumerate(self._tiers[1:], start=1):
            if not missing:
                break
            began = self._forgotten
            lower = await self._look(tier, namespace, [keys[place] for place in missing], True)
            fill: list[Entry] = []
            still: list[int] = []
            for place, value, ttl_s in zip(missing, lower.values, lower.ttls_s, strict=True):
                if value is None:
                    still.append(place)
                    continue
                found.values[place] = value
                if with_ttl:
                    found.ttls_s[place] = ttl_s
                fill.append(Entry(keys[place], value, ttl_s))
            missing = still
            for upper in self._tiers[:number] if fill else ():
                if began == self._forgotten:
                    await self._put(upper, namespace, fill)
        self._misses += len(missing)
        self._hits += len(keys) - len(missing)
        return found

    def at_hand(self, namespace: str, keys: Sequence[bytes], least_s: float = 0.0) -> list[bytes] | None:
        """See `CacheBackend`. What the uppermost tier has."""
        found = self._tiers[0].at_hand(namespace, keys, least_s)
        self._hits += 0 if found is None else len(found)
        return found

    async def _look(self, tier: CacheBackend, namespace: str, keys: Sequence[bytes], with_ttl: bool) -> Found:
        try:
            found = await tier.get_many(namespace, keys, with_ttl=with_ttl)
        except Exception:
            log.warning("cache tier %s failed; going on without it", tier.url, exc_info=True)
        else:
            if len(found.values) == len(keys) and len(found.ttls_s) == (len(keys) if with_ttl else 0):
                return found
        self._failures += 1
        return Found([None] * len(keys), [None] * len(keys) if with_ttl else [])

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        """See `CacheBackend`. Kept is what any tier kept."""
        # The lowest first: else what is put into a tier above could be overtaken by what a lookup fills it with.
        kept = max([await self._put(tier, namespace, entries) for tier in reversed(self._tiers)])
        self._kept += kept
        return kept

    async def _put(self, tier: CacheBackend, namespace: str, entries: Sequence[Entry]) -> int:
        try:
            return await tier.put_many(namespace, entries)
        except Exception:
            log.warning("cache tier %s failed; going on without it", tier.url, exc_info=True)
            self._failures += 1
            return 0

    async def delete_many(self, namespace: str, keys: Sequence[bytes]) -> int:
        """See `CacheBackend`. Every tier is asked, also where one fails."""

        async def delete(tier: CacheBackend) -> int:
            return await tier.delete_many(namespace, keys)

        return await self._everywhere(delete)

    async def forget(self, namespace: str | None = None) -> int:
        """See `CacheBackend`. Every tier is asked, also where one fails."""

        async def forget(tier: CacheBackend) -> int:
            return await tier.forget(namespace)

        return await self._everywhere(forget)

    async def _everywhere(self, what: Callable[[CacheBackend], Awaitable[int]]) -> int:
        # The lowest first, so that no lookup brings up what is gone above; one that did so before is told afterwards.
        counts: list[int] = []
        failed: Unavailable | None = None
        for tier in reversed(self._tiers):
            self._forgotten += 1
            try:
                counts.append(await what(tier))
            except Unavailable as error:
                failed = error
        self._forgotten += 1
        if failed is not None:
            raise failed
        return max(counts)

    async def read_stats(self, namespace: str | None = None) -> CacheStats:
        """See `CacheBackend`. Entries and bytes are told tier by tier."""
        return CacheStats(
            backend=self.url,
            hits=self._hits,
            misses=self._misses,
            kept=self._kept,
            failures=self._failures,
            tiers=tuple([await tier.read_stats(namespace) for tier in self._tiers]),
        )

    async def probe(self) -> str:
        """See `CacheBackend`."""
        troubles = [(tier.url, await tier.probe()) for tier in self._tiers]
        return "; ".join(f"{url}: {trouble}" for url, trouble in troubles if trouble)

    async def _close(self, *args: object, **kwargs: object) -> None:
        for tier in self._tiers:
            try:
                await tier.close()
            except Exception:
                log.warning("cache tier %s could not be closed", tier.url, exc_info=True)
