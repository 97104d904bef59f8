"""What a cache node is asked and answers: values by namespace and key, and how it does.

A `CacheCall` goes over a link as tensors do for other nodes: one call of one of the verbs, answered by a `CacheAnswer`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mesh.errors import InvalidInput
from mesh.tensors import Tensors

__all__ = ["MAX_KEYS", "CacheAnswer", "CacheCall", "CacheEntry", "CacheUse"]

MAX_KEYS = 4096
"""Keys or entries of one call."""
_MIN_KEY, _MAX_KEY = 16, 64
_MAX_NAMESPACE = 512


class CacheEntry(NamedTuple):
    """A value that is kept, or is to be."""

    key: bytes
    value: bytes
    ttl_s: float | None = None
    """Seconds that it stays; None for as long as there is room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUse:
    """How a cache does. Counts begin when it was opened; None where it cannot say."""

    backend: str = ""
    """Its address without passwords."""
    hits: int = 0
    misses: int = 0
    kept: int = 0
    evictions: int = 0
    """Entries dropped to make room."""
    expirations: int = 0
    """Entries dropped because their time had run out."""
    failures: int = 0
    """Operations that failed or were not tried."""
    entries: int | None = None
    nbytes: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCall:
    """One thing that a cache, or whoever has caches, is asked."""

    verb: Literal["get", "put", "delete", "clear", "stats", "prefetch"]
    cache: str = ""
    """The cache node, or the cache of the topology; empty for all that there are."""
    namespace: str | None = None
    """Whose entries: of a node of a graph. None for everybody's, where that may be asked."""
    keys: tuple[bytes, ...] = ()
    entries: tuple[CacheEntry, ...] = ()
    node: str = ""
    """Of those who have caches in place of a cache node: the node whose entries are meant; empty for all."""
    version: str = ""
    """Of that node's answers; that which is served where left out."""
    own: bool = False
    """Only what this process has itself: a gateway asks nobody."""
    inputs: Tensors = field(default_factory=lambda: Tensors({}))
    """For `prefetch`: what the node is to be run on."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is asked, as they are bounded."""
        put = sum(len(entry.key) + len(entry.value) for entry in self.entries)
        return sum(map(len, self.keys)) + put + self.inputs.nbytes

    def check_size(self, most_bytes: int) -> None:
        """Hold its bytes against a bound. Raises InvalidInput."""
        if self.nbytes > most_bytes:
            raise InvalidInput(f"a call of {self.nbytes} bytes where at most {most_bytes} are carried")

    def check(self) -> None:
        """Hold it against what a cache takes.

        Raises:
            InvalidInput: Too many keys, or keys or a namespace of other lengths than there are.
        """
        keys = [*self.keys, *(entry.key for entry in self.entries)]
        if len(keys) > MAX_KEYS:
            raise InvalidInput(f"{len(keys)} keys in one call; at most {MAX_KEYS} are taken")
        for key in keys:
            if not _MIN_KEY <= len(key) <= _MAX_KEY:
                raise InvalidInput(f"a key has {_MIN_KEY} to {_MAX_KEY} bytes, and not {len(key)}")
        if self.namespace is not None:
            told = self.namespace.encode(errors="replace")
            if not 0 < len(told) <= _MAX_NAMESPACE or any(ord(character) < 32 for character in self.namespace):
                raise InvalidInput(f"a namespace has 1 to {_MAX_NAMESPACE} bytes and no control characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAnswer:
    """What came of it."""

    entries: tuple[CacheEntry | None, ...] = ()
    """For `get`, by key."""
    count: int = 0
    """Entries kept, forgotten, or rows run."""
    use: CacheUse = CacheUse()

    @property
    def nbytes(self) -> int:
        """Bytes of what is answered, as they are bounded."""
        return sum(len(entry.value) for entry in self.entries if entry is not None)
