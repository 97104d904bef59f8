"""`CacheSite`: the cache as the layer of one node has it in its hands. Asking it and keeping in it never fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.caches import CacheBackend, Entry, Found, Hits, KeySpec, read_answer, read_rows
from mesh.signature import Fit, TensorSpec
from mesh.tensors import Tensors

__all__ = ["CacheCounter", "CacheSite"]

log = logging.getLogger("mesh.cache")


@dataclass(slots=True)
class CacheCounter:
    """What became of the rows that one layer was asked for."""

    hits: int = 0
    """Rows that were there."""
    misses: int = 0
    """Rows that were computed."""
    coalesced: int = 0
    """Rows that were wanted by several at once, or were several times in one batch, and computed once."""
    stale: int = 0
    """Of the hits, those whose time was over."""
    negative: int = 0
    """Rows that were known to be refused."""
    refreshes: int = 0
    """Rows that were computed behind callers' backs."""
    broken: int = 0
    """Values that were there and could not be used."""
    failures: int = 0
    """Times that the cache could not be asked, or could not keep; also because too many puts were on their way."""
    putting: int = 0
    """Puts that are on their way."""
    recomputed: int = 0
    """Requests whose rows did not fit together, and were computed all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSite:
    """One node as its cache layer sees it: what is handed over when the node is built."""

    keys: KeySpec
    """What its answers depend on, but for what the layer's settings say."""
    namespace: str
    """Where its answers are kept."""
    gives: Mapping[str, TensorSpec] = field(default_factory=dict[str, TensorSpec])
    """What it gives; what is found and is none of it counts as broken. Not looked at where empty."""
    fits: Mapping[str, Fit] = field(init=False, compare=False, repr=False)
    """The same, to be held against many answers."""
    expands: bool = False
    backend: CacheBackend = field(compare=False)
    counter: CacheCounter = field(compare=False, default_factory=CacheCounter)
    max_puts: int = 256
    """Most puts that may be on their way; what comes beyond is not kept."""
    running: set[asyncio.Task[None]] = field(compare=False, default_factory=set[asyncio.Task[None]])
    """Computations that run."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fits", {name: Fit(spec) for name, spec in self.gives.items()})

    async def close(self) -> None:
        """End what runs behind callers' backs."""
        for task in (tasks := set(self.running)):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def look_up(self, keys: Sequence[bytes], stale_s: float) -> tuple[Hits, list[int]]:
        """What the cache has of some keys.

        Args:
            keys: The keys.
            stale_s: The time that is left to an answer once it is stale.

        Returns:
            What was found, errors with their place among the keys as their row; and the places of what is stale.
        """
        try:
            found = await self.backend.get_many(self.namespace, keys, with_ttl=stale_s > 0)
            hits = read_rows(keys, found.values)
        except Exception:
            self._failed("failed")
            found, hits = Found([]), Hits()
        self.counter.broken += hits.broken + hits.misfits
        for place, error in hits.errors.items():
            error.row = place
        if hits.tensors is not None and not self._is_an_answer(hits.tensors):
            self.counter.broken += len(hits.rows)
            hits.rows, hits.tensors = [], None
        left = found.ttls_s
        if len(left) < len(keys):
            return hits, []
        return hits, [place for place in hits.rows if (left_s := left[place]) is not None and left_s <= stale_s]

    def at_hand(self, keys: Sequence[bytes], stale_s: float) -> Tensors | None:
        """The answer to some rows, where the cache has all of it without waiting, and nothing of it is stale.

        None where it has to be looked up: then that tells what there is, and what is wrong with it.
        """
        try:
            values = self.backend.at_hand(self.namespace, keys, stale_s)
            answer = None if values is None else read_answer(keys, values)
        except Exception:
            return None
        return answer if answer is not None and self._is_an_answer(answer) else None

    async def keep(self, entries: Callable[[], list[Entry]]) -> None:
        """Keep what a function gives, if it can be kept."""
        if self.counter.putting >= self.max_puts:
            self.counter.failures += 1  # the cache is slower than what comes: what waits for it takes memory
            return
        self.counter.putting += 1
        try:
            if given := entries():
                await self.backend.put_many(self.namespace, given)
        except Exception:
            self._failed("could not keep what it was given")
        finally:
            self.counter.putting -= 1

    def _failed(self, what: str) -> None:
        log.warning("cache %s %s; going on without it", self.backend.url, what, exc_info=True)
        self.counter.failures += 1

    def _is_an_answer(self, tensors: Tensors) -> bool:
        """Whether the node could have given this."""
        for name, fit in self.fits.items():
            array = tensors.get(name)
            if array is None or fit.mismatch(array):
                return False
        return not self.gives or (len(tensors) == len(self.gives) and (tensors.sources is not None) == self.expands)
