"""`memory://`: values in this process, bounded in bytes, the least recently used dropped first.

Every operation costs the same however much it holds, forgetting a namespace excepted. There are no timers: an entry
whose time has run out is dropped when somebody asks for it, or when it has become the least recently used.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Unpack

from mesh.caches.aiocache_face import AiocacheFace, AiocacheOptions
from mesh.caches.backend import ENTRY_OVERHEAD, MIN_BYTES, CacheStats, Entry, Found, lasting_s, prefix_of
from mesh.context import SYSTEM_CLOCK, Clock
from mesh.errors import SetupError

__all__ = ["MemoryBackend"]


class MemoryBackend(AiocacheFace):
    """A bounded dictionary.

    Args:
        max_bytes: The most bytes that keys, values and what holds them may take. Never exceeded.
        max_value_bytes: The largest value that is kept; where left out, whatever fits.
        max_ttl_s: The longest that any value stays; None for as long as it is used.
        clock: What times to live are measured by.
        options: What aiocache's backends take.

    Raises:
        SetupError: The bound is below 4 KiB.
    """

    NAME = "mesh-memory"

    def __init__(
        self,
        *,
        max_bytes: int = 256 << 20,
        max_value_bytes: int | None = None,
        max_ttl_s: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
        **options: Unpack[AiocacheOptions],
    ) -> None:
        super().__init__(**options)
        if max_bytes < MIN_BYTES:
            raise SetupError(f"a cache of {max_bytes} bytes: at least {MIN_BYTES} are needed")
        self._max_bytes = max_bytes
        self._max_value_bytes = max_bytes if max_value_bytes is None else max_value_bytes
        self._max_ttl_s = max_ttl_s
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        """Namespace and key -> value, and the instant at which its time runs out; the least recently used first."""
        self._nbytes = 0
        self._closed = False
        self._hits = self._misses = self._kept = self._refused = self._evictions = self._expirations = 0

    @property
    def url(self) -> str:
        """`memory://`."""
        return "memory://"

    @property
    def nbytes(self) -> int:
        """Bytes that its entries take."""
        return self._nbytes

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        """See `CacheBackend`."""
        prefix = prefix_of(namespace)
        entries = self._entries
        now = self._clock.now()
        values: list[bytes | None] = []
        ends: list[float] = []
        missed = 0
        for key in keys:
            full = prefix + key
            entry = entries.get(full)
            if entry is None:
                missed += 1
                values.append(None)
                ends.append(now)
                continue
            value, end = entry
            if end <= now:
                self._drop(full)
                self._expirations += 1
                missed += 1
                values.append(None)
            else:
                entries.move_to_end(full)
                values.append(value)
            ends.append(end)
        self._misses += missed
        self._hits += len(values) - missed
        if not with_ttl:
            return Found(values)
        pairs = zip(values, ends, strict=True)
        return Found(values, [None if value is None or end == math.inf else end - now for value, end in pairs])

    def at_hand(self, namespace: str, keys: Sequence[bytes], least_s: float = 0.0) -> list[bytes] | None:
        """See `CacheBackend`."""
        prefix = prefix_of(namespace)
        full = [prefix + key for key in keys]
        found = list(map(self._entries.get, full))
        ends = self._clock.now() + least_s
        values = [entry[0] for entry in found if entry is not None and entry[1] > ends]
        if len(values) < len(full):
            return None
        for one in full:
            self._entries.move_to_end(one)
        self._hits += len(full)
        return values

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        """See `CacheBackend`."""
        if self._closed:
            return 0
        prefix = prefix_of(namespace)
        now, most_s = self._clock.now(), self._max_ttl_s
        return sum(self._put(prefix + key, value, lasting_s(ttl_s, most_s), now) for key, value, ttl_s in entries)

    def _put(self, full: bytes, value: bytes, ttl_s: float | None, now: float) -> bool:
        if full in self._entries:
            self._drop(full)
        size = len(full) + len(value) + ENTRY_OVERHEAD
        if len(value) > self._max_value_bytes or size > self._max_bytes:
            self._refused += 1
            return False
        if ttl_s == 0:
            return False
        while self._nbytes + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
            self._evictions += 1
        self._entries[full] = (value, math.inf if ttl_s is None else now + ttl_s)
        self._nbytes += size
        self._kept += 1
        return True

    def _drop(self, full: bytes) -> None:
        self._nbytes -= len(full) + len(self._entries.pop(full)[0]) + ENTRY_OVERHEAD

    async def delete_many(self, namespace: str, keys: Sequence[bytes]) -> int:
        """See `CacheBackend`."""
        prefix = prefix_of(namespace)
        now = self._clock.now()
        deleted = 0
        for key in keys:
            entry = self._entries.get(prefix + key)
            if entry is not None:
                self._drop(prefix + key)
                deleted += entry[1] > now
        return deleted

    async def forget(self, namespace: str | None = None) -> int:
        """See `CacheBackend`. Looks at every entry there is, some tenth of a second a million."""
        doomed = self._of(namespace)
        for full in doomed:
            self._drop(full)
        return len(doomed)

    async def read_stats(self, namespace: str | None = None) -> CacheStats:
        """See `CacheBackend`. With a namespace, looks at every entry there is."""
        nbytes, entries = self._nbytes, len(self._entries)
        if namespace is not None:
            of_it = self._of(namespace)
            entries = len(of_it)
            nbytes = sum(len(full) + len(self._entries[full][0]) + ENTRY_OVERHEAD for full in of_it)
        return CacheStats(
            backend=self.url,
            hits=self._hits,
            misses=self._misses,
            kept=self._kept,
            refused=self._refused,
            evictions=self._evictions,
            expirations=self._expirations,
            entries=entries,
            nbytes=nbytes,
            max_bytes=self._max_bytes,
        )

    def _of(self, namespace: str | None) -> list[bytes]:
        if namespace is None:
            return list(self._entries)
        prefix = prefix_of(namespace)
        return [full for full in self._entries if full.startswith(prefix)]

    async def probe(self) -> str:
        """Nothing: there is nothing to reach."""
        return ""

    async def _close(self, *args: object, **kwargs: object) -> None:
        self._closed = True
        self._entries.clear()
        self._nbytes = 0
