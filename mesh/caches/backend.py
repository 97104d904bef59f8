"""`CacheBackend`: the storage behind a cache. Values are bytes, by namespace and key.

A namespace is what is forgotten together: a node, and its version where it has one. Keys are digests
(`mesh.caches.keys`); values say themselves whether they are whole (`mesh.caches.values`).

A backend never fails a request. One that is down, slow or answers rubbish finds nothing and keeps nothing, within its
own timeout, and counts it. Only who asks to delete or forget is told that it could not be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol

from mesh.errors import SetupError

__all__ = [
    "ENTRY_OVERHEAD",
    "MAX_TTL_S",
    "MIN_BYTES",
    "CacheBackend",
    "CacheStats",
    "Entry",
    "Found",
    "lasting_s",
    "prefix_of",
]

MAX_NAMESPACE_BYTES = 512
MIN_BYTES = 4096
"""No bound of a backend may be lower."""
ENTRY_OVERHEAD = 520
"""Bytes that an entry in memory takes beside its key and value, at most: about 200 for two bytes objects, a pair, an
instant and its node; and 28 for each slot of the dictionary, of which CPython makes up to six an entry, twice while it
moves them. Mostly it is less, but a bound is what is never passed: a test holds it against what the allocator says."""
MAX_TTL_S = 10 * 365 * 86_400.0
"""Ten years: longer is taken as this."""


class Entry(NamedTuple):
    """A value to keep."""

    key: bytes
    value: bytes
    ttl_s: float | None = None
    """Seconds to keep it; None to keep it until it is evicted. One that is not above zero has no time left: nothing is
    kept, and what was there is forgotten."""


@dataclass(slots=True)
class Found:
    """What was found."""

    values: list[bytes | None]
    """By key, in the order of the keys; None where there is nothing."""
    ttls_s: list[float | None] = field(default_factory=list[float | None])
    """Where it was asked for, by key: the seconds that its value stays, above zero; None where it has no limit, or
    there is no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """How a backend does. Counts begin when it was opened."""

    backend: str
    """Its URL without passwords."""
    hits: int = 0
    """Keys that were found."""
    misses: int = 0
    """Keys that were not, whyever."""
    kept: int = 0
    """Values that were put and kept."""
    refused: int = 0
    """Values larger than it keeps."""
    evictions: int = 0
    """Entries dropped to make room."""
    expirations: int = 0
    """Entries dropped because their time had run out."""
    failures: int = 0
    """Operations that failed: refused connections, timeouts, answers that made no sense, values that were not taken."""
    skipped: int = 0
    """Operations that were not tried, because too many before them had failed."""
    entries: int | None = None
    """Entries it holds, those whose time has run out unnoticed included; None where it cannot say."""
    nbytes: int | None = None
    """Bytes they take, keys, values and what holds them; None where it cannot say."""
    max_bytes: int | None = None
    """The most bytes they may take; None where it has no bound that is known."""
    tiers: tuple[CacheStats, ...] = ()
    """The tiers it consists of, uppermost first."""


class CacheBackend(Protocol):
    """What every cache keeps its values in. `mesh.testing.check_cache` holds one against the rules.

    Namespaces have 1 to 512 bytes of UTF-8 without control characters.
    """

    @property
    def url(self) -> str:
        """Where it is, without passwords."""
        ...

    async def get_many(self, namespace: str, keys: Sequence[bytes], *, with_ttl: bool = False) -> Found:
        """Look several keys up at once. Never raises for what the backend does.

        Args:
            namespace: Where.
            keys: What; one that comes twice is found twice.
            with_ttl: Whether to tell how long the values stay.
        """
        ...

    def at_hand(self, namespace: str, keys: Sequence[bytes], least_s: float = 0.0) -> list[bytes] | None:
        """The values of all these keys, where they are there without waiting; else None, and nothing is counted.

        Args:
            namespace: Where.
            keys: The keys, one or more.
            least_s: Seconds that each value has to have left, beyond which it stays.
        """
        ...

    async def put_many(self, namespace: str, entries: Sequence[Entry]) -> int:
        """Keep several values, each in place of what its key had. Never raises for what the backend does.

        Returns:
            How many are kept.
        """
        ...

    async def delete_many(self, namespace: str, keys: Sequence[bytes]) -> int:
        """Delete several keys; how many there were.

        Raises:
            Unavailable: Nobody knows whether they are gone.
        """
        ...

    async def forget(self, namespace: str | None = None) -> int:
        """Delete everything of one namespace, or everything that Mesh keeps there; how many entries there were.

        Raises:
            Unavailable: Nobody knows whether they are gone.
        """
        ...

    async def read_stats(self, namespace: str | None = None) -> CacheStats:
        """How it does; with a namespace, `entries` and `nbytes` are of that alone, as far as they can be told."""
        ...

    async def probe(self) -> str:
        """Why it cannot be used now, without passwords; empty where it can. For those who start a mesh."""
        ...

    async def close(self) -> None:
        """Give back what it holds. From then on it finds nothing and keeps nothing. Harmless when repeated."""
        ...


@lru_cache(maxsize=1024)
def prefix_of(namespace: str) -> bytes:
    """What keys of a namespace begin with where all lie in one place: no prefix begins another.

    Raises:
        SetupError: It is no namespace.
    """
    told = namespace.encode(errors="replace")
    if not 0 < len(told) <= MAX_NAMESPACE_BYTES or any(ord(character) < 32 for character in namespace):
        raise SetupError(
            f"{namespace[:100]!r} is no namespace: 1 to {MAX_NAMESPACE_BYTES} bytes, no control characters"
        )
    return told + b"\0"


def lasting_s(ttl_s: float | None, most_s: float | None) -> float | None:
    """A time to live that backends can work with: None for no limit, 0 for none left, else at most ten years.

    Args:
        ttl_s: What was asked for.
        most_s: The backend's own limit, above zero; None where it has none.
    """
    if ttl_s is None:
        return most_s
    # Written so that a NaN becomes 0.
    return min(ttl_s, MAX_TTL_S if most_s is None else most_s) if ttl_s > 0 else 0.0
